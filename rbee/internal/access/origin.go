package access

import (
	"net/netip"
	"net/url"
	"strings"
)

// origin is a page's origin: of http and https the default port is left out, as
// browsers do.
type origin struct{ scheme, host string }

// parseOrigin reads an Origin header; false, if it is none, which "null" is too.
func parseOrigin(s string) (origin, bool) {
	scheme, host, ok := strings.Cut(strings.ToLower(s), "://")
	if _, fine := hostname(host); !ok || !fine || scheme == "" {
		return origin{}, false
	}
	return origin{scheme, withoutPort(scheme, host)}, true
}

// String is the origin as browsers write it.
func (o origin) String() string { return o.scheme + "://" + o.host }

// of tells if this is the origin of the server's own pages, whose Host header is
// given. A proxy in front may speak TLS, so http and https are the same here.
func (o origin) of(host string) bool {
	return (o.scheme == "http" || o.scheme == "https") && o.host == withoutPort(o.scheme, strings.ToLower(host))
}

// withoutPort leaves out the port that goes without saying.
func withoutPort(scheme, host string) string {
	switch scheme {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// hostname is the name in a Host header or an address, in lower case and without
// brackets; false, if there is none.
func hostname(hostport string) (string, bool) {
	u, err := url.Parse("//" + hostport)
	if err != nil || u.Host != hostport || u.Hostname() == "" {
		return "", false // u.Host is less than all where there is a user, a path or an escape
	}
	return strings.ToLower(u.Hostname()), true
}

// isLoopback tells if a name means this machine, whoever looks it up.
func isLoopback(name string) bool {
	ip, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && ip.IsLoopback()
}
