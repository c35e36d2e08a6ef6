package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/kardianos/service"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
	"github.com/rbee-keeper/rbee/rbee/internal/linger"
	"github.com/rbee-keeper/rbee/rbee/internal/queen"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// answersWithin is how long a service that was started may take until it answers.
const answersWithin = 20 * time.Second

// unused stands for what the service manager's library would run itself.
type unused struct{}

func (unused) Start(service.Service) error { return nil }
func (unused) Stop(service.Service) error  { return nil }

// onSystemd is false for launchd, which is the only other one.
func onSystemd() (bool, error) {
	manager := "none"
	if s := service.ChosenSystem(); s != nil {
		manager = s.String()
	}
	switch manager {
	case "linux-systemd":
		return true, nil
	case "darwin-launchd":
		return false, nil
	}
	return false, &operations.Error{
		Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: "there is no service manager for users on this machine, neither systemd nor launchd",
	}
}

// service is the queen as a service of the user's own.
func (p servicePlan) service() (service.Service, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the program's own file: %w", err)
	}
	return service.New(unused{}, &service.Config{
		Name: "rbee-queen", DisplayName: "rbee queen", Description: "rbee queen", Executable: self, Arguments: p.args, EnvVars: p.env,
		Option: service.KeyValue{"UserService": true, "SystemdScript": p.unitText(self), "RunAtLoad": true, "KeepAlive": true},
	})
}

// install makes the queen a service and starts it, anew if there is one.
func (c *serveCmd) install(ctx context.Context, a *app, paths controller.Paths) error {
	var s queen.Options
	if _, err := c.secure(a, paths, &s); err != nil {
		return err // it would not start either
	}
	systemd, err := onSystemd()
	if err != nil {
		return err
	}
	plan := c.plan(a, paths, machine{runtime.GOOS, os.Getuid()})
	svc, err := plan.service()
	if err != nil {
		return err
	}
	_ = svc.Stop()      // of the one before, if there is one
	_ = svc.Uninstall() // likewise
	if err := svc.Install(); err != nil {
		return fmt.Errorf("installing the service: %w", err)
	}
	if systemd {
		plan.cautions = append(plan.cautions, letLinger(ctx, paths)...)
	}
	if err := svc.Start(); err != nil {
		return fmt.Errorf("starting the service: %w", errors.Join(err, svc.Uninstall()))
	}
	if s.Certificate == nil && queen.OnLoopback(c.Addr) {
		if err := awaitHealth(ctx, "http://"+c.Addr); err != nil {
			return fmt.Errorf("the service was started and does not answer; `journalctl --user -u rbee-queen` may say why: %w", err)
		}
	}
	for _, w := range plan.cautions {
		if err := ui.Warning(a.p.Stderr, a.style(a.p.Stderr), w.text, w.hint); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.p.Stdout, "✅ The queen runs as a service of yours, at %s\n", c.Addr)
	return err
}

// lingerMark is there while rbee has turned lingering on for the queen's service.
func lingerMark(paths controller.Paths) string { return filepath.Join(paths.StateDir, "queen-lingers") }

// letLinger lets the service outlive this login, or tells that it will not.
func letLinger(ctx context.Context, paths controller.Paths) []caution {
	on, err := linger.Enable(ctx, runCommand)
	if err != nil {
		return []caution{{"the service ends when you log out: " + err.Error(), "an administrator can change that, with `loginctl enable-linger` and your name"}}
	}
	if on {
		_ = errors.Join(os.MkdirAll(paths.StateDir, 0o700), os.WriteFile(lingerMark(paths), nil, 0o600)) // without it, lingering only stays on
	}
	return nil
}

func awaitHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	running := client.Client{URL: url, Retry: -1}
	for {
		err := running.Health(ctx)
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
func (c *serveCmd) uninstall(ctx context.Context, a *app, paths controller.Paths) error {
	systemd, err := onSystemd()
	if err != nil {
		return err
	}
	svc, err := servicePlan{}.service()
	if err != nil {
		return err
	}
	stopped := svc.Stop()
	if err := svc.Uninstall(); err != nil {
		return fmt.Errorf("removing the service: %w", errors.Join(stopped, err))
	}
	if _, err := os.Stat(lingerMark(paths)); systemd && err == nil {
		err := linger.Disable(ctx, runCommand, filepath.Join(paths.Home, ".config", "systemd", "user"))
		if err = errors.Join(err, os.Remove(lingerMark(paths))); err != nil {
			return fmt.Errorf("the service is removed; letting your services end with the login: %w", err)
		}
	}
	_, err = fmt.Fprintln(a.p.Stdout, "✅ The queen is no service any more; workers go on")
	return err
}

// runCommand runs a program of the system for at most 20 s.
func runCommand(ctx context.Context, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput() //nolint:gosec // fixed names
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}
