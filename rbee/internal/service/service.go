// Package service runs the hive and queen daemons in the background: as systemd or launchd
// services of the current user, or as detached processes. It does not need root.
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

// ManagerVariable is the name of the environment variable that contains the name of the
// manager that runs the daemon. Only daemons with [Service.SetManager] get it.
const ManagerVariable = "RBEE_SUPERVISOR"

// Command runs a system program and returns its output.
type Command func(ctx context.Context, argv ...string) (string, error)

// Service is one daemon of this user. Set its fields before the first call.
type Service struct {
	// Name is the name of the systemd unit without ".service". Label is the label of the
	// launchd agent.
	Name, Label string

	// Description is the description of the systemd unit.
	Description string

	// Program is the absolute path of the program of the daemon, and Args its arguments.
	Program string
	Args    []string

	// Env is the environment of the daemon, as NAME=VALUE. The values must not contain
	// secrets or control characters other than newlines.
	Env []string

	// Inherited contains further environment variables, copied from this process. A service
	// file omits variables that may be secret or that it cannot represent.
	Inherited []string

	// SetManager sets [ManagerVariable] in the environment of the daemon.
	SetManager bool

	// Log is the file to which the output of the daemon is appended. It is required for a
	// detached process. Empty means the log of the service manager.
	Log string

	// StopTimeout limits the time until the daemon stops. After it, the daemon is killed.
	StopTimeout time.Duration

	// KeepChildren keeps child processes of the daemon running when the daemon stops.
	KeepChildren bool

	// UserHome is the user's home directory; empty means os.UserHomeDir.
	UserHome string

	// Record is the path of the file that records the changes that Start made outside the
	// rbee directory. Remove needs this file.
	Record string

	// Command runs a system program and kills it when ctx ends; nil means os/exec.
	Command Command

	// LingerFailed, if not nil, is called with the error if lingering cannot be enabled.
	// The service then runs only while the user is logged in.
	LingerFailed func(error)

	limits limits // zero fields mean the defaults
}

// limits are time limits for commands of service managers.
type limits struct {
	command time.Duration // for one command
	stop    time.Duration // for a command that stops the daemon, added to StopTimeout
	load    time.Duration // for loading an agent that launchd is not unloading
}

// timeLimits returns the time limits, with defaults for zero fields.
func (s *Service) timeLimits() limits {
	return limits{
		command: cmp.Or(s.limits.command, 20*time.Second), stop: cmp.Or(s.limits.stop, 15*time.Second), load: cmp.Or(s.limits.load, 5*time.Second),
	}
}

// Manager starts a daemon and keeps it running.
type Manager interface {
	// Name returns the name of the manager: Systemd, Launchd or Detached.
	Name() string

	// File returns the path of the service file; empty if the manager does not use one.
	File() (string, error)

	// Start starts or restarts the daemon. If auto is set, the daemon also starts at
	// boot. exited, if not nil, is closed when the daemon exits.
	Start(ctx context.Context, auto bool) (exited <-chan struct{}, err error)

	// Enable sets whether the daemon starts at boot.
	Enable(ctx context.Context, auto bool) error

	// Stop stops the daemon if this manager runs it.
	Stop(ctx context.Context) error

	// Remove undoes the changes that Start made outside the rbee directory.
	Remove(ctx context.Context) error
}

// Manager returns the manager with the given name. An empty name selects the service
// manager of this machine, or a detached process if the service manager does not respond.
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
		return detachedManager{s}
	}
}

// pickManager returns the name of the service manager that is available for the home
// directory of the service; [Detached] if none is.
func (s *Service) pickManager(ctx context.Context, goos string) string {
	home, err := s.userHome()
	u, userErr := user.Current()
	if err != nil || userErr != nil || filepath.Clean(u.HomeDir) != filepath.Clean(home) {
		return Detached // the service manager uses another home directory
	}
	return s.detect(ctx, goos)
}

// Detect returns the name of the service manager that is available to this user; [Detached]
// if none is.
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

// Stop stops the daemon if systemd or launchd runs it.
func (s *Service) Stop(ctx context.Context) error {
	return errors.Join(systemd{s}.Stop(ctx), launchd{s}.Stop(ctx))
}

// Remove undoes the changes that [Manager.Start] made outside the rbee directory.
func (s *Service) Remove(ctx context.Context) error {
	return errors.Join(systemd{s}.Remove(ctx), launchd{s}.Remove(ctx))
}

func (s *Service) userHome() (string, error) {
	if s.UserHome != "" {
		return s.UserHome, nil
	}
	return os.UserHomeDir()
}

// run runs a system program with the time limit for one command.
func (s *Service) run(ctx context.Context, argv ...string) (string, error) {
	return s.runFor(ctx, s.timeLimits().command, argv)
}

// runStop runs a system program that returns when the daemon has stopped.
func (s *Service) runStop(ctx context.Context, argv ...string) (string, error) {
	return s.runFor(ctx, s.StopTimeout+s.timeLimits().stop, argv)
}

func (s *Service) runFor(ctx context.Context, limit time.Duration, argv []string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no response within %s", limit))
	defer cancel()
	if s.Command != nil {
		return s.Command(ctx, argv...)
	}
	return runCommand(ctx, argv...)
}

// runCommand runs a system program with os/exec. Its error contains the output of the
// program.
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
