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
	Addr      string        `default:"${defaultAddr}" placeholder:"HOST:PORT" help:"Where to listen (${default}). Beyond this machine it takes a key and TLS."`
	Host      []string      `placeholder:"NAME" help:"A further name that it goes by, such as that of a proxy in front, which takes a key; may be given several times."`
	Origin    []string      `placeholder:"URL" help:"A web page that may ask it, such as https://chat.example.com, without a key models only; may be given several times."`
	TLSCert   string        `name:"tls-cert" placeholder:"FILE" help:"Its certificate, in PEM; without one it makes its own, whose fingerprint it prints."`
	TLSKey    string        `name:"tls-key" placeholder:"FILE" help:"The key of --tls-cert."`
	Idle      time.Duration `default:"15m" placeholder:"TIME" help:"End workers that were started on demand after so long without a request (${default}); 0 never does."`
	Install   bool          `help:"Make it a service of yours, of systemd or launchd, with these flags, and start it. Secrets in the environment do not go along."`
	Uninstall bool          `help:"End that service."`

	NoTLS bool `name:"no-tls" help:"Plain HTTP also beyond this machine, for behind a proxy."`
}

// Help is shown below the command's summary.
func (serveCmd) Help() string {
	return describe("The queen holds one connection to each hive and knows what runs where. It takes every operation over HTTP (`--queen URL` of any command), and serves all models of the fleet at one OpenAI-compatible address: `/v1/chat/completions`, `/v1/models` and the others. A model that is on a hive and not loaded is loaded when it is asked for.\n\nOn loopback it asks for no key. A web page in your browser cannot drive it.",
		[]string{
			"rbee serve",
			"curl http://127.0.0.1:8500/v1/models",
			"rbee status --queen http://127.0.0.1:8500",
			"rbee serve --install",
			"rbee key add laptop && rbee serve --addr 0.0.0.0:8500 --host queen.lan",
		})
}

// Run serves until it is interrupted.
func (c *serveCmd) Run(ctx context.Context, a *app) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	switch {
	case a.flags().Queen != "":
		return &usageError{message: "--queen is for a queen that runs elsewhere, and this is one", hint: "leave it out; --addr says where this one listens"}
	case c.Install:
		return c.install(ctx, a, o.Paths)
	case c.Uninstall:
		return c.uninstall(ctx, a, o.Paths)
	}
	o.Prompter = nil // nobody is there to be asked
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

// secure says what strangers need: nothing on loopback, a key and TLS beyond, and a key
// alone behind a proxy on this machine, whose name --host gives. pin is what goes behind
// the address for those who shall trust the queen's own certificate.
func (c *serveCmd) secure(a *app, paths pkgmgr.Paths, s *queen.Options) (pin string, err error) {
	far := !queen.OnLoopback(c.Addr)
	if far || len(c.Host) > 0 {
		s.Keys = access.OpenKeys(keysPath(paths))
		keys, err := s.Keys.List()
		if err != nil {
			return "", err
		}
		if len(keys) == 0 {
			way := c.Addr
			if !far {
				way = "a queen that goes by " + c.Host[0]
			}
			return "", &usageError{message: way + " can be reached from other machines, and there is no key yet", hint: "`rbee key add NAME` makes one"}
		}
	}
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return "", &usageError{message: "--tls-cert and --tls-key belong together", hint: "give both, or none for a certificate of rbee's own"}
	case c.TLSCert != "":
		cert, _, err := access.LoadCertificate(c.TLSCert, c.TLSKey)
		s.Certificate = &cert
		return "", err
	case !far || c.NoTLS:
		return "", nil
	}
	var cert tls.Certificate
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return "", &usageError{message: fmt.Sprintf("%q is no address", c.Addr), hint: "such as 0.0.0.0:8500"}
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
