package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/queen"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// startTimeout limits the time until a started service responds.
const startTimeout = 20 * time.Second

// stopTimeout limits the time in which the service stops. It is longer than the time
// that requests in flight get.
const stopTimeout = 45 * time.Second

// service returns the user service of the queen. Installing it may add a warning to
// the plan.
func (p *servicePlan) service(program string, paths pkgmgr.Paths) *service.Service {
	s := &service.Service{
		Name: "rbee-queen", Label: "rbee-queen", Description: "rbee queen", Program: program, Args: p.args,
		StopTimeout: stopTimeout, UserHome: paths.Home, Record: filepath.Join(paths.StateDir, "queen-service.json"),
	}
	for _, name := range slices.Sorted(maps.Keys(p.env)) {
		s.Env = append(s.Env, name+"="+p.env[name])
	}
	if runtime.GOOS == "darwin" { // launchd does not store logs
		s.Log = filepath.Join(paths.Home, "Library", "Logs", "rbee-queen.log")
	}
	s.LingerFailed = func(err error) {
		p.warnings = append(p.warnings, warning{"the service stops when you log out: " + err.Error(), "ask an administrator to run `loginctl enable-linger` for your user"})
	}
	return s
}

// manager returns the service manager of the user, or an error if the system has none.
func manager(ctx context.Context, s *service.Service) (service.Manager, error) {
	name := s.Detect(ctx)
	if name == service.Detached {
		return nil, &operations.Error{
			Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: "cannot find a systemd or launchd user service manager on this machine",
		}
	}
	return s.Manager(ctx, name), nil
}

// install installs the queen as a service and starts or restarts it.
func (c *serveCmd) install(ctx context.Context, a *app, paths pkgmgr.Paths) error {
	var s queen.Options
	if _, err := c.secure(a, paths, &s); err != nil {
		return err // the service would not start either
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find the rbee executable: %w", err)
	}
	plan := c.plan(a, paths, machine{runtime.GOOS, os.Getuid()})
	svc := plan.service(self, paths)
	m, err := manager(ctx, svc)
	if err != nil {
		return err
	}
	if err := svc.Install(ctx, m); err != nil {
		return fmt.Errorf("cannot start the service: %w", err)
	}
	if s.Certificate == nil && queen.OnLoopback(c.Addr) {
		if err := awaitHealth(ctx, "http://"+c.Addr); err != nil {
			return fmt.Errorf("the service was started but does not respond (see `journalctl --user -u rbee-queen`): %w", err)
		}
	}
	for _, w := range plan.warnings {
		if err := ui.Warning(a.p.Stderr, a.style(a.p.Stderr), w.text, w.hint); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.p.Stdout, "✅ Queen running as a user service at %s\n", c.Addr)
	return err
}

// awaitHealth waits until the queen at url responds.
func awaitHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	queen := client.Client{URL: url, Retry: -1}
	for {
		err := queen.Health(ctx)
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

// uninstall stops and removes the service. Workers keep running.
func (c *serveCmd) uninstall(ctx context.Context, a *app, paths pkgmgr.Paths) error {
	svc := new(servicePlan).service("", paths)
	m, err := manager(ctx, svc)
	if err != nil {
		return err
	}
	file, err := m.File()
	if err == nil {
		_, err = os.Stat(file)
	}
	if err != nil {
		return fmt.Errorf("cannot remove the service: %w", err)
	}
	stopErr := m.Stop(ctx)
	if err := m.Remove(ctx); err != nil {
		return fmt.Errorf("cannot remove the service: %w", errors.Join(stopErr, err))
	}
	if err := os.Remove(svc.Record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the service: %w", errors.Join(stopErr, err))
	}
	if stopErr != nil {
		return fmt.Errorf("cannot stop the service, which was removed and may still be running: %w", stopErr)
	}
	_, err = fmt.Fprintln(a.p.Stdout, "✅ Removed the user service; workers keep running")
	return err
}
