package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// systemd is the systemd instance of the user (systemctl --user).
type systemd struct{ s *Service }

// Name implements [Manager].
func (systemd) Name() string { return Systemd }

// unit returns the path and the name of the unit.
func (u systemd) unit() (path, name string, err error) {
	home, err := u.s.userHome()
	if err != nil {
		return "", "", err
	}
	name = u.s.Name + ".service"
	return filepath.Join(home, ".config", "systemd", "user", name), name, nil
}

// File returns the path of the unit.
func (u systemd) File() (string, error) {
	path, _, err := u.unit()
	return path, err
}

// Start implements [Manager].
func (u systemd) Start(ctx context.Context, auto bool) (<-chan struct{}, error) {
	return nil, u.start(ctx, u.s.Unit(), auto)
}

// start implements [fileManager].
func (u systemd) start(ctx context.Context, text string, auto bool) error {
	path, name, err := u.unit()
	if err != nil {
		return err
	}
	wants := filepath.Join(filepath.Dir(path), "default.target.wants") // created by systemctl enable
	if err := u.s.writeFile(path, text, wants); err != nil {
		return err
	}
	if _, err := u.s.run(ctx, "systemctl", "--user", "daemon-reload"); err != nil {
		return err
	}
	if err := u.Enable(ctx, auto); err != nil {
		return err
	}
	_, err = u.s.runStop(ctx, "systemctl", "--user", "restart", name)
	return err
}

// Unit returns the content of the unit file. Its quoting follows systemd.syntax(7) and
// systemd.service(5): a percent sign always starts a specifier, quotes and backslashes are
// special only in lists of words, and a dollar sign is special only in command arguments.
// KillMode=process keeps child processes running when the daemon stops.
func (s *Service) Unit() string {
	var b strings.Builder
	b.WriteString("[Unit]\nDescription=" + s.Description + "\n\n[Service]\nExecStart=" + execStart(s.Program, s.Args) + "\n")
	for _, v := range s.fileEnv(Systemd) {
		b.WriteString("Environment=" + quoteUnit(v) + "\n")
	}
	if s.Log != "" {
		b.WriteString("StandardOutput=append:" + strings.ReplaceAll(s.Log, "%", "%%") + "\nStandardError=inherit\n")
	}
	fmt.Fprintf(&b, "Restart=on-failure\nRestartSec=2\nTimeoutStopSec=%d\n", int(s.StopTimeout/time.Second))
	if s.KeepChildren {
		b.WriteString("KillMode=process\n")
	}
	b.WriteString("\n[Install]\nWantedBy=default.target\n")
	return b.String()
}

// quoteUnit quotes a word of a list in a unit file.
func quoteUnit(v string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "\n", `\n`).Replace(v) + `"`
}

// execStart returns the command line of a unit. systemd rejects a program path that
// contains quotes or backslashes; execStart starts such a program with exec in a shell.
func execStart(program string, args []string) string {
	argument := func(v string) string { return strings.ReplaceAll(quoteUnit(v), "$", "$$") }
	line := quoteUnit(program)
	if strings.ContainsAny(program, "\"'\\%$") {
		line = `/bin/sh -c "exec \"$$0\" \"$$@\"" ` + argument(program)
	}
	for _, arg := range args {
		line += " " + argument(arg)
	}
	return line
}

// Enable implements [Manager].
func (u systemd) Enable(ctx context.Context, auto bool) error {
	_, name, err := u.unit()
	if err != nil {
		return err
	}
	verb := "disable"
	if auto {
		verb = "enable"
		u.linger(ctx)
	}
	_, err = u.s.run(ctx, "systemctl", "--user", verb, name)
	return err
}

// linger enables lingering, if the policy of the machine allows it, and records the change.
func (u systemd) linger(ctx context.Context) {
	enabled, err := enableLinger(ctx, u.s.run, lingerDir)
	if err != nil && u.s.LingerFailed != nil {
		u.s.LingerFailed(err)
	}
	if err != nil || !enabled {
		return
	}
	c := u.s.changes()
	c.Linger = true
	_ = statefile.Write(u.s.Record, c) // on failure, lingering remains enabled after Remove
}

// Stop implements [Manager].
func (u systemd) Stop(ctx context.Context) error {
	path, name, err := u.unit()
	if err != nil {
		return nil // without a home directory, no unit exists
	}
	if _, err := os.Stat(path); err != nil {
		return nil // not installed
	}
	_, err = u.s.runStop(ctx, "systemctl", "--user", "stop", name)
	return err
}

// Remove implements [Manager].
func (u systemd) Remove(ctx context.Context) error {
	path, name, err := u.unit()
	if err != nil {
		return nil // without a home directory, no unit exists
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, _ = u.s.run(ctx, "systemctl", "--user", "disable", name) // fails if the unit is not enabled
	if err := u.s.removeFile(path); err != nil {
		return err
	}
	_, err = u.s.run(ctx, "systemctl", "--user", "daemon-reload")
	if u.s.changes().Linger {
		err = errors.Join(err, disableLinger(ctx, u.s.run, filepath.Dir(path)))
	}
	return err
}
