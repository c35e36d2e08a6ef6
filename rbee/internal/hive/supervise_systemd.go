package hive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// systemd is the user's own service manager.
type systemd struct{ h *Hive }

func (systemd) name() string { return SupervisorSystemd }

// supervisor picks what keeps the daemon running on this machine.
func (h *Hive) supervisor(ctx context.Context) supervisor {
	if h.Supervisor == SupervisorSystemd || (h.Supervisor == "" && runtime.GOOS == "linux" && h.systemdWorks(ctx)) {
		return systemd{h}
	}
	return detached{h}
}

// systemdWorks reports whether the user's manager answers and reads units from
// this home directory.
func (h *Hive) systemdWorks(ctx context.Context) bool {
	home, err := h.userHome()
	u, userErr := user.Current()
	if err != nil || userErr != nil || filepath.Clean(u.HomeDir) != filepath.Clean(home) {
		return false
	}
	_, err = h.run(ctx, "systemctl", "--user", "show-environment")
	return err == nil
}

// unit is the service's file and name. A home other than the usual one has a
// service of its own.
func (h *Hive) unit() (path, name string, err error) {
	home, err := h.userHome()
	if err != nil {
		return "", "", err
	}
	name = "rbee-hive.service"
	if filepath.Clean(h.Home) != filepath.Join(home, ".local", "share", "rbee") {
		name = fmt.Sprintf("rbee-hive-%x.service", sha256.Sum256([]byte(h.Home)))[:len("rbee-hive-")+8] + ".service"
	}
	return filepath.Join(home, ".config", "systemd", "user", name), name, nil
}

func (s systemd) start(ctx context.Context, auto bool) (<-chan struct{}, error) {
	path, name, err := s.h.unit()
	if err != nil {
		return nil, err
	}
	if err := writeFile(path, []byte(s.text()), 0o644); err != nil {
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

// text is the unit. KillMode leaves running workers alone.
func (s systemd) text() string {
	home := strings.ReplaceAll(s.h.Home, "%", "%%")
	quote := func(v string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"` }
	return "[Unit]\nDescription=rbee hive daemon\n\n[Service]\n" +
		"ExecStart=" + strings.ReplaceAll(quote(home+"/"+wire.Binary), "$", "$$") + " hive serve\n" +
		"Environment=" + quote("RBEE_HOME="+home) + " RBEE_SUPERVISOR=" + SupervisorSystemd + "\n" +
		"StandardOutput=append:" + home + "/" + logFile + "\nStandardError=inherit\n" +
		"Restart=on-failure\nRestartSec=2\nTimeoutStopSec=10\nKillMode=process\n\n" +
		"[Install]\nWantedBy=default.target\n"
}

// lingering is run/supervisor.json.
type lingering struct {
	Enabled bool `json:"linger_enabled"` // by rbee, not by the user
}

func (s systemd) enable(ctx context.Context, auto bool) error {
	_, name, err := s.h.unit()
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
	u, err := user.Current()
	if err != nil {
		return
	}
	if _, err := os.Stat("/var/lib/systemd/linger/" + u.Username); err == nil {
		return
	}
	if _, err := s.h.run(ctx, "loginctl", "enable-linger"); err == nil {
		_ = writeJSON(s.h.path(supervisorFile), lingering{true}) // without it, linger only stays on
	}
}

// stopUnits stops the daemon where systemd has it.
func (h *Hive) stopUnits(ctx context.Context) error {
	path, name, err := h.unit()
	if err != nil {
		return nil //nolint:nilerr // without a home directory there is no unit
	}
	if _, err := os.Stat(path); err != nil {
		return nil //nolint:nilerr // not there
	}
	_, err = h.run(ctx, "systemctl", "--user", "stop", name)
	return err
}

// removeUnits removes what start left with systemd.
func (h *Hive) removeUnits(ctx context.Context) error {
	path, name, err := h.unit()
	if err != nil {
		return nil //nolint:nilerr // without a home directory there is no unit
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, _ = h.run(ctx, "systemctl", "--user", "disable", name) // it may not be enabled
	if err := os.Remove(path); err != nil {
		return err
	}
	_, err = h.run(ctx, "systemctl", "--user", "daemon-reload")
	var l lingering
	if readJSON(h.path(supervisorFile), &l) == nil && l.Enabled {
		_, lingerErr := h.run(ctx, "loginctl", "disable-linger")
		err = errors.Join(err, lingerErr)
	}
	return err
}

func (h *Hive) run(ctx context.Context, argv ...string) (string, error) {
	if h.command != nil {
		return h.command(ctx, argv...)
	}
	return runCommand(ctx, argv...)
}

// runCommand runs a program of the system for at most 20 s.
func runCommand(ctx context.Context, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // fixed names
	cmd.WaitDelay = time.Second
	cmd.Env = os.Environ()
	if dir := fmt.Sprintf("/run/user/%d", os.Getuid()); os.Getenv("XDG_RUNTIME_DIR") == "" {
		if _, err := os.Stat(dir); err == nil {
			cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+dir)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}
