package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kardianos/service"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/queen"
)

// serviceUnit is the queen as a service of systemd. TimeoutStopSec is more than
// answers under way are given.
const serviceUnit = `[Unit]
Description={{Description}}

[Service]
ExecStart={{Path | cmdEscape}}{{range Arguments}} {{. | cmd}}{{end}}
Restart=on-failure
RestartSec=2
TimeoutStopSec=45
{{range EnvVars}}{{.}}
{{end}}
[Install]
WantedBy=default.target
`

// answersWithin is how long a service that was started may take until it answers.
const answersWithin = 20 * time.Second

// unused stands for what the service manager's library would run itself.
type unused struct{}

func (unused) Start(service.Service) error { return nil }
func (unused) Stop(service.Service) error  { return nil }

// service is the queen as a service of the user's own.
func (c *serveCmd) service(a *app) (service.Service, error) {
	manager := "none"
	if s := service.ChosenSystem(); s != nil {
		manager = s.String()
	}
	if manager != "linux-systemd" && manager != "darwin-launchd" {
		return nil, &operations.Error{
			Code: operations.CodeUnsupported, Message: "there is no service manager for users on this machine, neither systemd nor launchd",
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the program's own file: %w", err)
	}
	args := []string{"serve", "--addr", c.Addr, "--idle", c.Idle.String()}
	add := func(flag, value string) {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	absolute := func(path string) string {
		if full, err := filepath.Abs(path); err == nil && path != "" {
			return full
		}
		return path
	}
	g := a.flags()
	add("--config", absolute(a.config()))
	add("--tls-cert", absolute(c.TLSCert))
	add("--tls-key", absolute(c.TLSKey))
	add("--ssh-config-file", absolute(g.SSHConfigFile))
	add("--binaries", absolute(g.Binaries))
	for _, host := range c.Host {
		add("--host", host)
	}
	for _, origin := range c.Origin {
		add("--origin", origin)
	}
	if c.NoTLS {
		args = append(args, "--no-tls")
	}
	env := map[string]string{}
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "GITHUB_API_URL", "UV_DEFAULT_INDEX"} {
		if v := a.p.Getenv(name); v != "" {
			env[name] = v
		}
	}
	return service.New(unused{}, &service.Config{
		Name: "rbee-queen", DisplayName: "rbee queen", Description: "rbee queen", Executable: self, Arguments: args, EnvVars: env,
		Option: service.KeyValue{"UserService": true, "SystemdScript": serviceUnit, "RunAtLoad": true, "KeepAlive": true},
	})
}

// install makes the queen a service and starts it, anew if there is one.
func (c *serveCmd) install(ctx context.Context, a *app, paths queen.Paths) error {
	var s queen.ServeOptions
	if _, err := c.secure(a, paths, &s); err != nil {
		return err // it would not start either
	}
	svc, err := c.service(a)
	if err != nil {
		return err
	}
	_ = svc.Stop()      // of the one before, if there is one
	_ = svc.Uninstall() // likewise
	if err := svc.Install(); err != nil {
		return fmt.Errorf("installing the service: %w", err)
	}
	if err := svc.Start(); err != nil {
		return fmt.Errorf("starting the service: %w", errors.Join(err, svc.Uninstall()))
	}
	if s.Certificate == nil && queen.OnLoopback(c.Addr) {
		if err := awaitHealth(ctx, "http://"+c.Addr); err != nil {
			return fmt.Errorf("the service was started and does not answer; `journalctl --user -u rbee-queen` may say why: %w", err)
		}
	}
	_, err = fmt.Fprintf(a.p.Stdout, "✅ The queen runs as a service of yours, at %s\n", c.Addr)
	return err
}

func awaitHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	client := operations.Client{URL: url, Retry: -1}
	for {
		err := client.Health(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// uninstall ends the service. Workers go on.
func (c *serveCmd) uninstall(a *app) error {
	svc, err := c.service(a)
	if err != nil {
		return err
	}
	stopped := svc.Stop()
	if err := svc.Uninstall(); err != nil {
		return fmt.Errorf("removing the service: %w", errors.Join(stopped, err))
	}
	_, err = fmt.Fprintln(a.p.Stdout, "✅ The queen is no service any more; workers go on")
	return err
}
