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
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

// supervisor starts the daemon and keeps it running.
type supervisor interface {
	name() string
	// start begins the daemon; exited, if not nil, is closed when it ends.
	start(ctx context.Context, auto bool) (exited <-chan struct{}, err error)
	// enable says whether the daemon starts with the machine.
	enable(ctx context.Context, auto bool) error
	// stop ends the daemon where this supervisor has it.
	stop(ctx context.Context) error
	// remove takes away what start left outside rbee's directory.
	remove(ctx context.Context) error
}

// supervisor is what is to keep the daemon running on this machine.
func (h *Hive) supervisor(ctx context.Context) supervisor {
	pick := h.Supervisor
	if pick == "" {
		pick = h.bestSupervisor(ctx, runtime.GOOS)
	}
	switch pick {
	case SupervisorSystemd:
		return systemd{h}
	case SupervisorLaunchd:
		return launchd{h}
	default:
		return detached{h}
	}
}

// bestSupervisor finds out whether the user's own service manager answers.
func (h *Hive) bestSupervisor(ctx context.Context, goos string) string {
	home, err := h.userHome()
	u, userErr := user.Current()
	if err != nil || userErr != nil || filepath.Clean(u.HomeDir) != filepath.Clean(home) {
		return SupervisorNone // the manager reads another home than this one
	}
	switch goos {
	case "linux":
		if _, err := h.run(ctx, "systemctl", "--user", "show-environment"); err == nil {
			return SupervisorSystemd
		}
	case "darwin":
		if _, err := h.run(ctx, "launchctl", "print", guiDomain()); err == nil {
			return SupervisorLaunchd
		}
	}
	return SupervisorNone
}

// stopUnits stops the daemon where a service manager has it.
func (h *Hive) stopUnits(ctx context.Context) error {
	return errors.Join(systemd{h}.stop(ctx), launchd{h}.stop(ctx))
}

// removeUnits removes what start left with a service manager.
func (h *Hive) removeUnits(ctx context.Context) error {
	return errors.Join(systemd{h}.remove(ctx), launchd{h}.remove(ctx))
}

// serviceName is base, or base with a mark for a home that is not the usual one,
// which has a service of its own.
func (h *Hive) serviceName(base, userHome string) string {
	if filepath.Clean(h.Home) == filepath.Join(userHome, ".local", "share", "rbee") {
		return base
	}
	return fmt.Sprintf("%s-%x", base, sha256.Sum256([]byte(h.Home)))[:len(base)+9]
}

// supervision is run/supervisor.json: what start changed outside rbee's directory.
type supervision struct {
	Linger   bool     `json:"linger_enabled,omitempty"` // by rbee, not by the user
	MadeDirs []string `json:"made_dirs,omitempty"`      // for the service's file
}

func (h *Hive) supervision() supervision {
	var s supervision
	_ = atomicfile.ReadJSON(h.path(supervisorFile), &s) // without it nothing is known to be rbee's
	return s
}

// writeService writes a service's file. The directories made for it, and those of
// others that the manager will make, are noted for removeService.
func (h *Hive) writeService(path, text string, others ...string) error {
	made := missingDirs(path)
	for _, dir := range others {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			made = append(made, dir)
		}
	}
	if len(made) > 0 {
		s := h.supervision()
		s.MadeDirs = slices.Compact(slices.Sorted(slices.Values(append(s.MadeDirs, made...))))
		if err := atomicfile.WriteJSON(h.path(supervisorFile), s); err != nil {
			return err
		}
	}
	return atomicfile.WriteData(path, []byte(text), 0o600)
}

// removeService removes a service's file and the directories made for it, as far
// as they are empty.
func (h *Hive) removeService(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	home, err := h.userHome()
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(h.supervision().MadeDirs) {
		if rel, err := filepath.Rel(home, dir); err == nil && rel != "." && filepath.IsLocal(rel) {
			_ = os.Remove(dir) // only if it is empty
		}
	}
	return nil
}

// passedOn is what the daemon gets, whoever supervises it, of the environment that
// rbee is run with on this machine: where models lie and come from, and proxies.
// Without it the daemon would look for models elsewhere than commands that need no
// daemon. Tokens are not in it: a daemon reads them from their file.
func passedOn() []string {
	return environ(
		"HF_HUB_CACHE", "HF_HOME", "HF_ENDPOINT", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	)
}

// environ is NAME=VALUE of those variables that are set.
func environ(names ...string) []string {
	var env []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// written is what of an environment a service's file may hold: no secret, and nothing
// that its lines cannot hold.
func written(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, value, _ := strings.Cut(v, "=")
		return strings.ContainsFunc(value, unicode.IsControl) || !utf8.ValidString(value) || mayBeSecret(name, value)
	})
}

// mayBeSecret reports whether a variable is an address with somebody's name before an
// @: with a password after it or not, that may be all it takes to get in. Elsewhere
// an @ is part of a path, or of a language.
func mayBeSecret(name, value string) bool {
	switch strings.ToUpper(name) {
	case "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY":
		return strings.Contains(value, "@")
	default:
		return false
	}
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
