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

// newDaemon returns the daemon of an empty rbee directory.
func newDaemon(t *testing.T) *Daemon {
	t.Helper()
	user := t.TempDir()
	return &Daemon{Home: &home.Dir{Root: filepath.Join(user, ".local/share/rbee"), User: user}, Supervisor: service.Detached}
}

// TestServiceEnvironment checks that a service file contains the variables that locate
// models, and no secrets.
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
		info, err := os.Stat(filepath.Join(h.Home.User, file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %s has mode %v, want 0600", supervisor, file, info.Mode())
		}
		text := string(data)
		for _, want := range []string{"HF_HOME", "/big disk/hf", "HF_HUB_CACHE", "HF_ENDPOINT", "https://mirror", "HF_TOKEN_PATH", "/secrets/token", "HTTPS_PROXY", "http://proxy:3128", "ca_ES.UTF-8@valencia"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %s =\n%s\nwant %q in it", supervisor, file, text, want)
			}
		}
		for _, forbidden := range []string{"me:secret", "HF_TOKEN=", "HF_TOKEN<", "NO_PROXY", "ExecStart=x"} {
			if strings.Contains(text, forbidden) {
				t.Errorf("%s: %s =\n%s\nwant no %q in it", supervisor, file, text, forbidden)
			}
		}
	}
}

func TestServiceName(t *testing.T) {
	t.Parallel()
	serviceName := func(root string) string {
		return (&Daemon{Home: &home.Dir{Root: root}}).serviceName("rbee-hive", "/home/a")
	}
	if got := serviceName("/home/a/.local/share/rbee"); got != "rbee-hive" {
		t.Errorf("serviceName() of the default rbee directory = %q, want rbee-hive", got)
	}
	a, b := serviceName("/srv/one"), serviceName("/srv/two")
	if a == b || !strings.HasPrefix(a, "rbee-hive-") || len(a) != len("rbee-hive-")+8 {
		t.Errorf("serviceName() of two other rbee directories = %q and %q, want rbee-hive- with different hashes of 8 digits", a, b)
	}
}

// TestOtherHomeIsDetached checks that the daemon is detached, without a query to the service
// manager, if Home.User is not the home directory of the user account.
func TestOtherHomeIsDetached(t *testing.T) {
	t.Parallel()
	h, commands := newDaemon(t), 0
	h.Supervisor, h.Command = "", func(context.Context, ...string) (string, error) { commands++; return "", nil }
	if got := h.supervisor(t.Context()).Name(); got != service.Detached || commands != 0 {
		t.Errorf("supervisor() = %q after %d commands, want %q after none", got, commands, service.Detached)
	}
}
