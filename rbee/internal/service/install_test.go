package service

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// slowStop delays the commands that stop the daemon. It returns the recorder of finished
// commands.
func slowStop(s *Service, delay time.Duration) (c *commands) {
	c = &commands{}
	s.Command = func(ctx context.Context, argv ...string) (string, error) {
		if slices.ContainsFunc(argv, func(arg string) bool { return arg == "stop" || arg == "restart" || arg == "bootout" }) {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return "", context.Cause(ctx)
			}
		}
		return c.run(ctx, argv...)
	}
	return c
}

// TestSlowStop checks that the time limit of commands that stop the daemon includes
// StopTimeout.
func TestSlowStop(t *testing.T) {
	t.Parallel()
	for _, manager := range []string{Systemd, Launchd} {
		s, _ := newHiveService(t)
		s.StopTimeout, s.limits = 30*time.Second, limits{command: 100 * time.Millisecond, stop: time.Second}
		c := slowStop(s, 200*time.Millisecond)
		m := s.Manager(t.Context(), manager)
		for range 2 { // a new service, and its replacement
			if err := s.Install(t.Context(), m); err != nil {
				t.Errorf("%s: Install() = %v, want nil; commands %q", manager, err, c.take())
			}
		}
		if err := m.Stop(t.Context()); err != nil {
			t.Errorf("%s: Stop() = %v, want nil", manager, err)
		}

		s.StopTimeout, s.limits.stop = 10*time.Millisecond, 10*time.Millisecond
		if err := m.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "no response within 20ms") {
			t.Errorf("%s: Stop() of a daemon that does not stop = %v, want no response within 20ms", manager, err)
		}
	}
}

// TestInstallFails checks that a failed Install restores the previous service, or removes a
// new one.
func TestInstallFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ manager, start, stop string }{
		{Systemd, "systemctl --user restart", "systemctl --user stop"}, {Launchd, "launchctl bootstrap", "launchctl bootout"},
	} {
		s, c := newHiveService(t)
		s.StopTimeout, s.limits.load = 0, time.Millisecond
		m := s.Manager(t.Context(), tt.manager)
		path, err := m.File()
		if err != nil {
			t.Fatal(err)
		}
		fails := true
		c.fail = func(line string) bool { return strings.HasPrefix(line, tt.start) && fails }
		if err := s.Install(t.Context(), m); err == nil || !strings.Contains(err.Error(), tt.start) {
			t.Errorf("%s: Install() = %v, want the error of %s", tt.manager, err, tt.start)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: after a new service failed, Stat(%s) = %v, want ErrNotExist", tt.manager, path, err)
		}

		fails = false
		if err := s.Install(t.Context(), m); err != nil {
			t.Fatalf("%s: Install() = %v", tt.manager, err)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c.take()
		s.Args = []string{"hive", "serve", "--changed"}
		c.fail = func(line string) bool { // the new service does not start, and the previous one does not stop
			now, _ := os.ReadFile(path)
			return strings.HasPrefix(line, tt.stop) || strings.HasPrefix(line, tt.start) && string(now) != string(before)
		}
		err = s.Install(t.Context(), m)
		for _, want := range []string{tt.start, tt.stop} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: Install() over a service = %v, want the error of %s", tt.manager, err, want)
			}
		}
		if now, err := os.ReadFile(path); string(now) != string(before) {
			t.Errorf("%s: after Install() failed, the service file contains %s, %v, want %s", tt.manager, now, err, before)
		}
		ran := c.take()
		if last := slices.IndexFunc(ran, func(line string) bool { return strings.Contains(line, "daemon-reload") }); tt.manager == Systemd && last < 0 {
			t.Errorf("%s: Install() ran %q, want a daemon-reload", tt.manager, ran)
		}
		if !slices.ContainsFunc(ran[len(ran)/2:], func(line string) bool { return strings.HasPrefix(line, tt.start) }) {
			t.Errorf("%s: Install() ran %q, want the start of the previous service last", tt.manager, ran)
		}
	}
}

// TestInstallCanceled checks that a canceled Install does not replace the service.
func TestInstallCanceled(t *testing.T) {
	t.Parallel()
	s, c := newHiveService(t)
	m := s.Manager(t.Context(), Systemd)
	if err := s.Install(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	c.take()
	ctx, cancel := context.WithCancel(t.Context())
	c.fail = func(string) bool { cancel(); return true }
	s.Args = nil
	if err := s.Install(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("Install() = %v, want context.Canceled", err)
	}
	if got, want := c.take(), "systemctl --user stop rbee-hive.service"; len(got) != 1 || got[0] != want {
		t.Errorf("Install() ran %q, want only %s", got, want)
	}
}

// TestLaunchdBootstrapRetries checks that Start retries bootstrap for StopTimeout only while
// launchd unloads a previous service.
func TestLaunchdBootstrapRetries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		loaded bool
		want   bool // Start succeeds
	}{{"unloading", true, true}, {"not loaded", false, false}} {
		s, cmds := newHiveService(t)
		s.StopTimeout, s.limits.load = 30*time.Second, time.Millisecond
		failures := 4
		cmds.fail = func(line string) bool {
			if strings.HasPrefix(line, "launchctl print") {
				return !c.loaded
			}
			if strings.HasPrefix(line, "launchctl bootstrap") {
				failures--
				return failures >= 0
			}
			return false
		}
		_, err := s.Manager(t.Context(), Launchd).Start(t.Context(), true)
		if (err == nil) != c.want {
			t.Errorf("%s: Start() = %v, want success: %t", c.name, err, c.want)
		}
	}
}

// TestCommandTimeLimit checks the error of a command that exceeds its time limit.
func TestCommandTimeLimit(t *testing.T) {
	t.Parallel()
	s := &Service{limits: limits{command: 50 * time.Millisecond}}
	_, err := s.run(t.Context(), "sleep", "60")
	if want := "sleep 60: no response within 50ms"; err == nil || err.Error() != want {
		t.Errorf("run() = %v, want %s", err, want)
	}
}
