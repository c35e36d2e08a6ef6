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

// answersWithin is how long a service that was started may take until it answers.
const answersWithin = 20 * time.Second

// stopTimeout is how long the service may take to stop: longer than answers under way
// are given.
const stopTimeout = 45 * time.Second

// service returns the queen as a service of the user's own, with the caution that
// its manager adds, if any.
func (p *servicePlan) service(program string, paths pkgmgr.Paths) *service.Service {
	s := &service.Service{
		Name: "rbee-queen", Label: "rbee-queen", Description: "rbee queen", Program: program, Args: p.args,
		StopTimeout: stopTimeout, UserHome: paths.Home, Record: filepath.Join(paths.StateDir, "queen-service.json"),
	}
	for _, name := range slices.Sorted(maps.Keys(p.env)) {
		s.Env = append(s.Env, name+"="+p.env[name])
	}
	if runtime.GOOS == "darwin" { // launchd has no log of its own
		s.Log = filepath.Join(paths.Home, "Library", "Logs", "rbee-queen.log")
	}
	s.LingerFailed = func(err error) {
		p.cautions = append(p.cautions, caution{"the service ends when you log out: " + err.Error(), "an administrator can change that, with `loginctl enable-linger` and your name"})
	}
	return s
}

// manager returns the service manager of this user, which must be there.
func manager(ctx context.Context, s *service.Service) (service.Manager, error) {
	name := s.Detect(ctx)
	if name == service.Detached {
		return nil, &operations.Error{
			Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: "there is no service manager for users on this machine, neither systemd nor launchd",
		}
	}
	return s.Manager(ctx, name), nil
}

// install makes the queen a service and starts it, anew if there is one.
func (c *serveCmd) install(ctx context.Context, a *app, paths pkgmgr.Paths) error {
	var s queen.Options
	if _, err := c.secure(a, paths, &s); err != nil {
		return err // it would not start either
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the program's own file: %w", err)
	}
	plan := c.plan(a, paths, machine{runtime.GOOS, os.Getuid()})
	svc := plan.service(self, paths)
	m, err := manager(ctx, svc)
	if err != nil {
		return err
	}
	if err := svc.Install(ctx, m); err != nil {
		return fmt.Errorf("starting the service: %w", err)
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
		return fmt.Errorf("removing the service: %w", err)
	}
	stopped := m.Stop(ctx)
	if err := m.Remove(ctx); err != nil {
		return fmt.Errorf("removing the service: %w", errors.Join(stopped, err))
	}
	if err := os.Remove(svc.Record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the service: %w", errors.Join(stopped, err))
	}
	if stopped != nil {
		return fmt.Errorf("cannot stop the service, which was removed and may still run: %w", stopped)
	}
	_, err = fmt.Fprintln(a.p.Stdout, "✅ The queen is no service any more; workers go on")
	return err
}
