package control

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// newDaemon returns the daemon of a new home.
func newDaemon(t *testing.T) *Daemon {
	t.Helper()
	user := t.TempDir()
	return &Daemon{Home: &home.Dir{Root: filepath.Join(user, ".local/share/rbee"), User: user}, Supervisor: service.Detached}
}

// The daemon of a service manager looks for models where commands do that need no
// daemon, and no secret is in the service's file.
func TestServiceEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"HF_HOME": "/big disk/hf", "HF_HUB_CACHE": "/hub", "HF_ENDPOINT": "https://mirror", "HF_TOKEN_PATH": "/secrets/token",
		"HTTPS_PROXY": "http://proxy:3128", "http_proxy": "http://me:secret@proxy:3128", "LC_ALL": "ca_ES.UTF-8@valencia", "NO_PROXY": "a\nExecStart=x", "HF_TOKEN": "secret",
	} {
		t.Setenv(name, value)
	}
	for supervisor, file := range map[string]string{
		service.Systemd: ".config/systemd/user/rbee-hive.service", service.Launchd: "Library/LaunchAgents/rbee.hive.plist",
	} {
		h := newDaemon(t)
		h.Supervisor, h.Command = supervisor, func(context.Context, ...string) (string, error) { return "", nil }
		if _, err := h.supervisor(t.Context()).Start(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(h.Home.User, file))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(h.Home.User, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the file is %v, %v", supervisor, info, err)
		}
		text := string(data)
		for _, want := range []string{"HF_HOME", "/big disk/hf", "HF_HUB_CACHE", "HF_ENDPOINT", "https://mirror", "HF_TOKEN_PATH", "/secrets/token", "HTTPS_PROXY", "http://proxy:3128", "ca_ES.UTF-8@valencia"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s in\n%s", supervisor, want, text)
			}
		}
		for _, never := range []string{"me:secret", "HF_TOKEN=", "HF_TOKEN<", "NO_PROXY", "ExecStart=x"} {
			if strings.Contains(text, never) {
				t.Errorf("%s: %s in\n%s", supervisor, never, text)
			}
		}
	}
}

func TestServiceName(t *testing.T) {
	t.Parallel()
	usual := &Daemon{Home: &home.Dir{Root: "/home/a/.local/share/rbee"}}
	one, two := &Daemon{Home: &home.Dir{Root: "/srv/one"}}, &Daemon{Home: &home.Dir{Root: "/srv/two"}}
	if got := usual.serviceName("rbee-hive", "/home/a"); got != "rbee-hive" {
		t.Errorf("usual home: %q", got)
	}
	a, b := one.serviceName("rbee-hive", "/home/a"), two.serviceName("rbee-hive", "/home/a")
	if a == b || !strings.HasPrefix(a, "rbee-hive-") || len(a) != len("rbee-hive-")+8 {
		t.Errorf("other homes: %q, %q", a, b)
	}
}

// A home directory that is not the account's own is none of the manager's.
func TestOtherHomeIsDetached(t *testing.T) {
	t.Parallel()
	h, ran := newDaemon(t), 0
	h.Supervisor, h.Command = "", func(context.Context, ...string) (string, error) { ran++; return "", nil }
	if got := h.supervisor(t.Context()).Name(); got != service.Detached || ran != 0 {
		t.Errorf("picked %q after %d commands", got, ran)
	}
}
