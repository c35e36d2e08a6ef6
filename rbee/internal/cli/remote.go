package cli

import (
	"context"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
)

// remoteQueen runs operations on a queen at an address.
type remoteQueen struct {
	client.Client
	paths pkgmgr.Paths // of this machine
}

// Run implements [operations.Runner]. It sends absolute paths, since the queen has
// another working directory.
func (r *remoteQueen) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	op, err := client.WithPaths(op, r.absolute)
	if err != nil {
		return nil, err
	}
	return r.Client.Run(ctx, op, events)
}

// absolute returns the absolute path of a file. It keeps a trailing separator, which
// marks a directory.
func (r *remoteQueen) absolute(path string) (string, error) {
	full, err := r.paths.ConfigFile(path)
	if err == nil && strings.HasSuffix(path, string(filepath.Separator)) {
		full += string(filepath.Separator)
	}
	return full, err
}

// Close implements [Runner].
func (r *remoteQueen) Close() error {
	r.HTTP.CloseIdleConnections()
	return nil
}

// client returns a runner for the queen at a URL. The fragment of the URL is the
// fingerprint of a self-signed certificate.
func (a *app) client(address string) (Runner, error) {
	invalid := func(problem string) error {
		return &usageError{message: "invalid address of the queen: " + problem, hint: "use a URL such as http://127.0.0.1:8500, or https://host:8500#SHA256:… as printed by `rbee serve`"}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, invalid("want an http or https URL")
	case u.User != nil:
		return nil, invalid("it contains a user or a password; set $RBEE_API_KEY instead")
	case u.Fragment != "" && (u.Scheme != "https" || !strings.HasPrefix(u.Fragment, "SHA256:")):
		return nil, invalid("want the fingerprint of a certificate after #")
	}
	g := a.flags()
	for flag, set := range map[string]bool{
		"--accept-new-host-keys": g.AcceptNewHostKeys, "--ssh-config-file": g.SSHConfigFile != "", "--binaries": g.Binaries != "", "--timeout": g.Timeout != 0,
	} {
		if set {
			return nil, &usageError{message: flag + " has no effect with --queen: the queen makes the SSH connections", hint: "pass it to `rbee serve`, or remove --queen"}
		}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableCompression: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
	if u.Fragment != "" {
		transport.TLSClientConfig = access.PinnedClient(u.Fragment)
		u.Fragment = ""
	}
	paths, err := a.paths()
	if err != nil {
		return nil, err
	}
	return &remoteQueen{paths: paths, Client: client.Client{
		URL: strings.TrimSuffix(u.String(), "/"), Token: operations.Secret(a.p.Getenv("RBEE_API_KEY")),
		HTTP: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}}, nil
}
