// Package service runs rbee's daemons, the hive and the queen, without a terminal: as
// services of the user's own service manager, systemd or launchd, or as detached
// processes. It never needs root.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Names of the managers.
const (
	Systemd  = "systemd"
	Launchd  = "launchd"
	Detached = "none" // a detached process
)

// ManagerVariable is the environment variable in which a daemon with
// [Service.SetManager] finds the name of the manager that runs it.
const ManagerVariable = "RBEE_SUPERVISOR"

// Command runs a program of the system and returns what it printed.
type Command func(ctx context.Context, argv ...string) (string, error)

// Service is one daemon of this user. Set its fields before the first call.
type Service struct {
	// Name is the name of the systemd unit without ".service", and Label that of the
	// launchd agent.
	Name, Label string

	// Description is a short text for people.
	Description string

	// Program is the absolute path of the daemon's program, and Args its arguments.
	Program string
	Args    []string

	// Env is NAME=VALUE of variables that the daemon always gets. They must hold no
	// secret and no control characters other than a newline.
	Env []string

	// Inherited is NAME=VALUE of variables of this process that the daemon gets too. A
	// service's file leaves out those that may be secret or that it cannot hold.
	Inherited []string

	// SetManager gives the daemon [ManagerVariable].
	SetManager bool

	// Log is the file to which the daemon's output is appended. It is required for a
	// detached process. Empty means the manager's own log.
	Log string

	// StopTimeout is how long the daemon may take to stop before it is killed.
	StopTimeout time.Duration

	// KeepChildren leaves the processes that the daemon started running when it stops.
	KeepChildren bool

	// UserHome is the user's home directory; empty means os.UserHomeDir.
	UserHome string

	// Record is a file which notes what starting the service changed elsewhere. It
	// must stay until the service is removed.
	Record string

	// Command runs a program of the system until its context ends; nil runs the program
	// of that name.
	Command Command

	// LingerFailed, if not nil, is called when the service cannot be made to run
	// without a login.
	LingerFailed func(error)

	limits limits // the zero ones are the usual ones
}

// limits are the times that service managers get.
type limits struct {
	command time.Duration // for one call
	stop    time.Duration // for a call that stops the daemon, beyond StopTimeout
	load    time.Duration // for launchd to accept an agent that is not loaded
}

// limit returns the times that service managers get.
func (s *Service) limit() limits {
	return limits{
		command: cmp.Or(s.limits.command, 20*time.Second), stop: cmp.Or(s.limits.stop, 15*time.Second), load: cmp.Or(s.limits.load, 5*time.Second),
	}
}

// Manager starts a daemon and keeps it running.
type Manager interface {
	// Name returns one of the names of managers.
	Name() string

	// File returns the path of the service's file; empty if the manager has none.
	File() (string, error)

	// Start starts the daemon, or starts it again; exited, if not nil, is closed when
	// it ends. auto says whether it also starts with the machine.
	Start(ctx context.Context, auto bool) (exited <-chan struct{}, err error)

	// Enable sets whether the daemon starts with the machine.
	Enable(ctx context.Context, auto bool) error

	// Stop stops the daemon if this manager runs it.
	Stop(ctx context.Context) error

	// Remove removes what Start left outside rbee's directory.
	Remove(ctx context.Context) error
}

// Manager returns the manager with a name; if the name is empty, the one that works
// best on this machine.
func (s *Service) Manager(ctx context.Context, name string) Manager {
	if name == "" {
		name = s.pickManager(ctx, runtime.GOOS)
	}
	switch name {
	case Systemd:
		return systemd{s}
	case Launchd:
		return launchd{s}
	default:
		return detached{s}
	}
}

// pickManager finds out whether the user's own service manager answers.
func (s *Service) pickManager(ctx context.Context, goos string) string {
	home, err := s.userHome()
	u, userErr := user.Current()
	if err != nil || userErr != nil || filepath.Clean(u.HomeDir) != filepath.Clean(home) {
		return Detached // the manager reads another home than this one
	}
	return s.detect(ctx, goos)
}

// Detect returns the name of the service manager that answers for this user;
// [Detached] if none does.
func (s *Service) Detect(ctx context.Context) string { return s.detect(ctx, runtime.GOOS) }

func (s *Service) detect(ctx context.Context, goos string) string {
	switch goos {
	case "linux":
		if _, err := s.run(ctx, "systemctl", "--user", "show-environment"); err == nil {
			return Systemd
		}
	case "darwin":
		if _, err := s.run(ctx, "launchctl", "print", guiDomain()); err == nil {
			return Launchd
		}
	}
	return Detached
}

// Stop stops the daemon where a service manager has it.
func (s *Service) Stop(ctx context.Context) error {
	return errors.Join(systemd{s}.Stop(ctx), launchd{s}.Stop(ctx))
}

// Remove removes what [Manager.Start] left with a service manager.
func (s *Service) Remove(ctx context.Context) error {
	return errors.Join(systemd{s}.Remove(ctx), launchd{s}.Remove(ctx))
}

func (s *Service) userHome() (string, error) {
	if s.UserHome != "" {
		return s.UserHome, nil
	}
	return os.UserHomeDir()
}

// run runs a program of the system that answers soon.
func (s *Service) run(ctx context.Context, argv ...string) (string, error) {
	return s.runFor(ctx, s.limit().command, argv)
}

// runStop runs a program of the system that waits until the daemon has stopped.
func (s *Service) runStop(ctx context.Context, argv ...string) (string, error) {
	return s.runFor(ctx, s.StopTimeout+s.limit().stop, argv)
}

func (s *Service) runFor(ctx context.Context, limit time.Duration, argv []string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	if s.Command != nil {
		return s.Command(ctx, argv...)
	}
	return runCommand(ctx, argv...)
}

// runCommand runs a program of the system.
func runCommand(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // fixed names
	cmd.WaitDelay = time.Second
	cmd.Env = os.Environ()
	if dir := fmt.Sprintf("/run/user/%d", os.Getuid()); os.Getenv("XDG_RUNTIME_DIR") == "" {
		if _, err := os.Stat(dir); err == nil {
			cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+dir)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
		if text := strings.TrimSpace(string(out)); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
	}
	return string(out), err
}
