package registry

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// TestDaemonScript holds that the token is told only while the daemon's own process lives.
func TestDaemonScript(t *testing.T) {
	t.Parallel()
	type record struct {
		proc.ID
		Port int `json:"port"`
	}
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	gone, older, elsewhere := self, self, self
	gone.PID, older.StartTime, elsewhere.BootID = ended.Process.Pid, self.StartTime+"1", "another boot"
	for name, c := range map[string]struct {
		record any
		alive  bool
	}{
		"it lives": {record{self, 8600}, true}, "its process is gone": {record{gone, 8600}, false}, "no record": {nil, false},
		"another process has its id": {record{older, 8600}, false}, "the machine was started anew": {record{elsewhere, 8600}, false},
		"nonsense": {json.RawMessage(`"$(exit 3)"`), false}, "no process": {map[string]int{"port": 8600}, false},
	} {
		if _, err := os.Stat("/proc/self/stat"); err != nil && (name == "another process has its id" || name == "the machine was started anew") {
			continue // nothing else can be told there
		}
		home := t.TempDir()
		for file, text := range map[string]string{"bin/rbee": "", "run/token": "abc\n"} {
			path := filepath.Join(home, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.record != nil {
			if err := atomicfile.WriteJSON(filepath.Join(home, "run/hive.json"), c.record); err != nil {
				t.Fatal(err)
			}
		}
		sh := exec.Command("sh", "-s")
		sh.Stdin, sh.Env = strings.NewReader(daemonScript), append(os.Environ(), "RBEE_HOME="+home)
		out, err := sh.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		got, token, port, err := parseDaemon(string(out))
		if c.alive != (err == nil) || c.alive && (got != home || token != "abc" || port != 8600) {
			t.Errorf("%s: %q, %q, %d, %v, of %q", name, got, string(token), port, err, out)
		}
	}
}

func TestReadDaemon(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, out string
		token     operations.Secret
		port      int
		code      operations.Code
		reason    operations.Reason
	}{
		{name: "whole", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\n \"pid\": 1,\n \"port\": 8600\n}\n\x1eend\n", token: "abc", port: 8600},
		{name: "after noise", out: "Welcome!\n\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\":1}\x1eend\n", token: "abc", port: 1},
		{name: "no rbee", out: "\x1eabsent\n", code: operations.CodeNotFound, reason: operations.ReasonNotInstalled},
		{name: "no daemon", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord \x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "no token", out: "\x1ehome /h\n\x1etoken \n\x1erecord {\"port\":1}\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "half a record", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\"po\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "no port", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {}\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "a shell that refuses", out: "This account is not available.\n", code: operations.CodeFailed, reason: operations.ReasonOtherProgram},
		{name: "nothing", code: operations.CodeFailed, reason: operations.ReasonOtherProgram},
		{name: "cut", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\":1}", code: operations.CodeFailed, reason: operations.ReasonOtherProgram},
	} {
		home, token, port, err := parseDaemon(c.out)
		if (home == "/h") != (err == nil) || token != c.token || port != c.port || operations.CodeOf(err) != c.code {
			t.Errorf("%s: %q, %d, %v", c.name, string(token), port, err)
		}
		if e, ok := err.(*operations.Error); ok && e.Reason != c.reason { //nolint:errorlint // it is made here
			t.Errorf("%s: reason %q", c.name, e.Reason)
		}
		if err != nil && strings.Contains(err.Error(), "abc") {
			t.Errorf("%s: the token is told: %v", c.name, err)
		}
	}
}

func FuzzReadDaemon(f *testing.F) {
	f.Add("\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\": 8600}\n\x1eend\n")
	f.Add("\x1eabsent")
	f.Fuzz(func(t *testing.T, out string) {
		home, token, port, err := parseDaemon(out)
		if (err == nil) != (home != "" && token != "" && port > 0) {
			t.Errorf("%q, %d, %v", string(token), port, err)
		}
	})
}
