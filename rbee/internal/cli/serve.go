package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
	"github.com/rbee-keeper/rbee/rbee/internal/queen"
)

type serveCmd struct {
	Addr      string        `default:"${defaultAddr}" placeholder:"HOST:PORT" help:"Listen address; other machines need an API key and TLS (default: ${default})"`
	Host      []string      `placeholder:"NAME" help:"Additional host name, such as the name of a reverse proxy; requires an API key (repeat, or separate with commas)"`
	Origin    []string      `placeholder:"URL" help:"Web page that may call the API, such as https://chat.example.com; without an API key, it can only use models (repeat, or separate with commas)"`
	TLSCert   string        `name:"tls-cert" placeholder:"FILE" help:"Certificate in PEM format (default: self-signed; its fingerprint is printed)"`
	TLSKey    string        `name:"tls-key" placeholder:"FILE" help:"Private key of --tls-cert"`
	Idle      time.Duration `default:"15m" placeholder:"TIME" help:"Stop on-demand workers after this idle time; 0 never stops them (default: ${default})"`
	Install   bool          `help:"Install and start a systemd or launchd user service with these flags; secrets in the environment are not stored"`
	Uninstall bool          `help:"Stop and remove the user service"`

	NoTLS bool `name:"no-tls" help:"Serve plain HTTP to other machines, for use behind a reverse proxy"`
}

// help implements [helper].
func (serveCmd) help() commandHelp {
	return commandHelp{
		text: "The queen keeps one SSH connection to each hive and serves all models of the fleet through one OpenAI-compatible API. If a request names a model that is on a hive but not loaded, the queen starts a worker for it. Other rbee commands use the queen with `--queen URL`.\n\nOn loopback, no API key is needed, and web pages in your browser cannot control the queen.",
		examples: []string{
			"rbee serve",
			"curl http://127.0.0.1:8500/v1/models",
			"rbee status --queen http://127.0.0.1:8500",
			"rbee serve --install",
			"rbee key add laptop && rbee serve --addr 0.0.0.0:8500 --host queen.lan",
		},
	}
}

// Run runs the queen until it is interrupted.
func (c *serveCmd) Run(ctx context.Context, a *app) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	switch {
	case a.flags().Queen != "":
		return &usageError{message: "serve and --queen cannot be combined", hint: "remove --queen; --addr sets the listen address"}
	case c.Install:
		return c.install(ctx, a, o.Paths)
	case c.Uninstall:
		return c.uninstall(ctx, a, o.Paths)
	}
	o.Prompter = nil // a server cannot ask questions
	s := queen.Options{
		Addr: c.Addr, Config: a.config(), Idle: c.Idle, Origins: c.Origin, Hosts: c.Host,
		Log: slog.New(slog.NewTextHandler(a.p.Stderr, &slog.HandlerOptions{Level: a.logLevel()})),
	}
	if c.Idle == 0 {
		s.Idle = -1
	}
	pin, err := c.secure(a, o.Paths, &s)
	if err != nil {
		return err
	}
	s.Ready = func(addr net.Addr) {
		scheme := "http"
		if s.Certificate != nil {
			scheme = "https"
		}
		fmt.Fprintf(a.p.Stdout, "%s://%s%s\n", scheme, addr, pin)
	}
	return queen.Serve(ctx, o, s)
}

// secure configures authentication and TLS in s. Other machines need an API key and
// TLS; clients of a reverse proxy on this machine, whose name is in --host, need only
// a key; loopback needs neither. pin is the URL fragment with the fingerprint of a
// self-signed certificate.
func (c *serveCmd) secure(a *app, paths pkgmgr.Paths, s *queen.Options) (pin string, err error) {
	public := !queen.OnLoopback(c.Addr)
	if public || len(c.Host) > 0 {
		s.Keys = access.OpenKeys(keysPath(paths))
		keys, err := s.Keys.List()
		if err != nil {
			return "", err
		}
		if len(keys) == 0 {
			name := c.Addr
			if !public {
				name = c.Host[0]
			}
			return "", &usageError{message: "other machines can reach " + name + ", but no API key exists", hint: "run `rbee key add NAME` to create one"}
		}
	}
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return "", &usageError{message: "--tls-cert and --tls-key must be used together", hint: "pass both, or neither for a self-signed certificate"}
	case c.TLSCert != "":
		cert, _, err := access.LoadCertificate(c.TLSCert, c.TLSKey)
		s.Certificate = &cert
		return "", err
	case !public || c.NoTLS:
		return "", nil
	}
	var cert tls.Certificate
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return "", &usageError{message: fmt.Sprintf("invalid address %q: want HOST:PORT", c.Addr), hint: "use an address such as 0.0.0.0:8500"}
	}
	names := append([]string{}, c.Host...)
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		names = append(names, host)
	}
	cert, pin, err = access.Certificate(filepath.Join(paths.StateDir, "tls"), names)
	s.Certificate = &cert
	return "#" + pin, err
}

func (a *app) logLevel() slog.Level {
	switch g := a.flags(); {
	case g.Quiet:
		return slog.LevelWarn
	case g.Verbose:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
