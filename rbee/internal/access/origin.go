package access

import (
	"net/netip"
	"net/url"
	"strings"
)

// origin is the origin of a page. Like browsers, it omits the default ports of http and
// https.
type origin struct{ scheme, host string }

// parseOrigin parses an Origin header; ok is false if it is invalid or "null".
func parseOrigin(s string) (origin, bool) {
	scheme, host, ok := strings.Cut(strings.ToLower(s), "://")
	if _, valid := hostname(host); !ok || !valid || scheme == "" {
		return origin{}, false
	}
	return origin{scheme, trimDefaultPort(scheme, host)}, true
}

// String returns the origin as browsers write it.
func (o origin) String() string { return o.scheme + "://" + o.host }

// matchesHost reports whether o is the origin of the server's own pages, given the Host
// header. http and https match both, because a proxy may terminate TLS.
func (o origin) matchesHost(host string) bool {
	return (o.scheme == "http" || o.scheme == "https") && o.host == trimDefaultPort(o.scheme, strings.ToLower(host))
}

// trimDefaultPort removes the default port of the scheme from host.
func trimDefaultPort(scheme, host string) string {
	switch scheme {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// hostname returns the host in a Host header or an address, in lower case and without
// brackets; ok is false if it is invalid.
func hostname(hostport string) (string, bool) {
	u, err := url.Parse("//" + hostport)
	if err != nil || u.Host != hostport || u.Hostname() == "" {
		return "", false // u.Host differs from hostport if hostport has a user, a path or an escape
	}
	return strings.ToLower(u.Hostname()), true
}

// isLoopback reports whether a name always refers to this machine.
func isLoopback(name string) bool {
	ip, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && ip.IsLoopback()
}
