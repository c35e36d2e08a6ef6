package cli_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

// promptEnd matches the end of a prompt.
var promptEnd = regexp.MustCompile(`(?i)\[y/N\] |password.*: $`)

// onTerminal runs rbee on a new terminal, types answer at the first prompt, and returns
// the output and the exit code.
func onTerminal(t *testing.T, home, answer string, args ...string) (screen string, code int) {
	t.Helper()
	rbee, err := exec.LookPath("rbee")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, rbee, args...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TERM=xterm", "LC_ALL=C.UTF-8"}
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
	if err != nil {
		t.Skipf("cannot open a pseudo-terminal: %v", err)
	}
	defer terminal.Close()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := terminal.Read(buf)
		seen.Write(buf[:n])
		if err != nil { // the program has exited
			break
		}
		if answer != "" && promptEnd.Match(seen.Bytes()) {
			terminal.Write([]byte(answer + "\n"))
			answer = ""
		}
	}
	cmd.Wait()
	return seen.String(), cmd.ProcessState.ExitCode()
}

// TestSSHPrompts connects to a host with an unknown key and to one with a password.
func TestSSHPrompts(t *testing.T) {
	t.Parallel()
	host, err := sshtest.New(sshtest.Options{Password: "open sesame"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	home := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(home, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(".config/rbee/hives.conf", queentest.HiveConfig("gpu-1", host, 8600, ""))
	screen, code := onTerminal(t, home, "n", "status")
	if code != 4 || !strings.Contains(screen, "SHA256:") || !strings.Contains(screen, "❌ gpu-1: ") {
		t.Errorf("status with a rejected host key exits with %d, want 4; screen:\n%s", code, screen)
	}
	write(".ssh/known_hosts", host.KnownHostsLines())
	screen, code = onTerminal(t, home, "open sesame", "status")
	if code != 2 || !strings.Contains(screen, "gpu-1: Hive not installed") || strings.Contains(screen, "sesame") {
		t.Errorf("status with a password exits with %d, want 2 and no echo; screen:\n%s", code, screen)
	}
}

func TestUninstallPrompt(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".config/rbee"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := "[[hive]]\nalias = \"here\"\nhostname = \"localhost\"\nworkers = [{ type = \"echo\", version = \"latest\" }]\n"
	if err := os.WriteFile(filepath.Join(home, ".config/rbee/hives.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	screen, code := onTerminal(t, home, "n", "uninstall")
	if code != 1 || !strings.Contains(screen, "here (localhost)") || !strings.Contains(screen, "nothing was removed") {
		t.Errorf("uninstall with answer no exits with %d, want 1; screen:\n%s", code, screen)
	}
	screen, code = onTerminal(t, home, "y", "uninstall")
	if code != 0 || !strings.Contains(screen, "✅ Nothing to remove") {
		t.Errorf("uninstall with answer yes exits with %d, want 0; screen:\n%s", code, screen)
	}
	if screen, _ = onTerminal(t, home, "", "status", "--no-color"); strings.Contains(screen, "\x1b[3") {
		t.Errorf("status --no-color prints %q, want no colors", screen)
	}
}
