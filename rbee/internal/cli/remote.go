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

// remoteQueen is a queen that runs elsewhere.
type remoteQueen struct {
	client.Client
	paths pkgmgr.Paths // of this machine
}

// Run implements [operations.Runner]. A path goes out as the file that it names
// here: what is relative would mean another one where the queen runs.
func (r *remoteQueen) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	op, err := client.WithPaths(op, r.absolute)
	if err != nil {
		return nil, err
	}
	return r.Client.Run(ctx, op, events)
}

// absolute is the full path of a file. The mark of a directory, a separator at its
// end, stays.
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

// client is the way to the queen at an address: a URL, whose fragment is the
// fingerprint of its certificate where that is its own.
func (a *app) client(address string) (Runner, error) {
	bad := func(why string) error {
		return &usageError{message: "the queen's address " + why, hint: "such as http://127.0.0.1:8500, or https://host:8500#SHA256:… as `rbee serve` prints it"}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, bad("is no URL")
	case u.User != nil:
		return nil, bad("must not hold a user or a password: a key goes into $RBEE_API_KEY")
	case u.Fragment != "" && (u.Scheme != "https" || !strings.HasPrefix(u.Fragment, "SHA256:")):
		return nil, bad("has a # and no fingerprint of a certificate after it")
	}
	g := a.flags()
	for flag, set := range map[string]bool{
		"--accept-new-host-keys": g.AcceptNewHostKeys, "--ssh-config-file": g.SSHConfigFile != "", "--binaries": g.Binaries != "", "--timeout": g.Timeout != 0,
	} {
		if set {
			return nil, &usageError{message: flag + " is for the one who makes the connections", hint: "give it to `rbee serve`, or leave out --queen"}
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
