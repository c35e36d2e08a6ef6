package hive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/linger"
)

// systemd is the user's own service manager.
type systemd struct{ h *Hive }

func (systemd) name() string { return SupervisorSystemd }

// unit is the service's file and name.
func (s systemd) unit() (path, name string, err error) {
	home, err := s.h.userHome()
	if err != nil {
		return "", "", err
	}
	name = s.h.serviceName("rbee-hive", home) + ".service"
	return filepath.Join(home, ".config", "systemd", "user", name), name, nil
}

func (s systemd) start(ctx context.Context, auto bool) (<-chan struct{}, error) {
	path, name, err := s.unit()
	if err != nil {
		return nil, err
	}
	wants := filepath.Join(filepath.Dir(path), "default.target.wants") // made by enable
	if err := s.h.writeService(path, unitText(s.h.Home, written(passedOn())), wants); err != nil {
		return nil, err
	}
	if _, err := s.h.run(ctx, "systemctl", "--user", "daemon-reload"); err != nil {
		return nil, err
	}
	if err := s.enable(ctx, auto); err != nil {
		return nil, err
	}
	_, err = s.h.run(ctx, "systemctl", "--user", "restart", name)
	return nil, err
}

// unitText is the service's file for a home, with an environment. KillMode leaves running workers
// alone. Quoting is after systemd.syntax(7) and systemd.service(5): a percent
// sign begins a specifier everywhere, quotes and backslashes count only where a
// value is a list of words, and a dollar only in a command's arguments. The shell
// is there because systemd refuses a program whose own path has quotes or
// backslashes; it makes way for the daemon at once.
func unitText(home string, env []string) string {
	literal := func(v string) string { return strings.ReplaceAll(v, "%", "%%") }
	home = literal(home)
	quote := func(v string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"` }
	program := strings.ReplaceAll(quote(home+"/"+wire.Binary), "$", "$$")
	var more strings.Builder
	for _, v := range env {
		more.WriteString("Environment=" + quote(literal(v)) + "\n")
	}
	return "[Unit]\nDescription=rbee hive daemon\n\n[Service]\n" +
		`ExecStart=/bin/sh -c "exec \"$$0\" hive serve" ` + program + "\n" +
		"Environment=" + quote("RBEE_HOME="+home) + " RBEE_SUPERVISOR=" + SupervisorSystemd + "\n" + more.String() +
		"StandardOutput=append:" + home + "/" + logFile + "\nStandardError=inherit\n" +
		"Restart=on-failure\nRestartSec=2\nTimeoutStopSec=10\nKillMode=process\n\n" +
		"[Install]\nWantedBy=default.target\n"
}

func (s systemd) enable(ctx context.Context, auto bool) error {
	_, name, err := s.unit()
	if err != nil {
		return err
	}
	verb := "disable"
	if auto {
		verb = "enable"
		s.linger(ctx)
	}
	_, err = s.h.run(ctx, "systemctl", "--user", verb, name)
	return err
}

// linger lets the user's services run without a login, where that is allowed.
func (s systemd) linger(ctx context.Context) {
	if on, err := linger.Enable(ctx, s.h.run); err != nil || !on {
		return
	}
	rec := s.h.supervision()
	rec.Linger = true
	_ = atomicfile.WriteJSON(s.h.path(supervisorFile), rec) // without it, linger only stays on
}

func (s systemd) stop(ctx context.Context) error {
	path, name, err := s.unit()
	if err != nil {
		return nil //nolint:nilerr // without a home directory there is no unit
	}
	if _, err := os.Stat(path); err != nil {
		return nil //nolint:nilerr // not there
	}
	_, err = s.h.run(ctx, "systemctl", "--user", "stop", name)
	return err
}

func (s systemd) remove(ctx context.Context) error {
	path, name, err := s.unit()
	if err != nil {
		return nil //nolint:nilerr // without a home directory there is no unit
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, _ = s.h.run(ctx, "systemctl", "--user", "disable", name) // it may not be enabled
	if err := s.h.removeService(path); err != nil {
		return err
	}
	_, err = s.h.run(ctx, "systemctl", "--user", "daemon-reload")
	if s.h.supervision().Linger {
		err = errors.Join(err, linger.Disable(ctx, s.h.run, filepath.Dir(path)))
	}
	return err
}
