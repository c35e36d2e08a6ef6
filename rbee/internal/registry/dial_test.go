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

// TestDaemonScript checks that the script prints the record only while the daemon's own
// process is running.
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
	exited := exec.Command("true")
	if err := exited.Run(); err != nil {
		t.Fatal(err)
	}
	exitedID, olderID, rebootedID := self, self, self
	exitedID.PID, olderID.StartTime, rebootedID.BootID = exited.Process.Pid, self.StartTime+"1", "another boot"
	for name, c := range map[string]struct {
		record any
		alive  bool
	}{
		"running": {record{self, 8600}, true}, "exited": {record{exitedID, 8600}, false}, "no record": {nil, false},
		"PID reused": {record{olderID, 8600}, false}, "host rebooted": {record{rebootedID, 8600}, false},
		"invalid record": {json.RawMessage(`"$(exit 3)"`), false}, "no PID": {map[string]int{"port": 8600}, false},
	} {
		if _, err := os.Stat("/proc/self/stat"); err != nil && (name == "PID reused" || name == "host rebooted") {
			continue // without /proc only the PID is compared
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
			t.Fatalf("%s: cannot run the script: %v: %s", name, err, out)
		}
		got, token, port, err := parseDaemon(string(out))
		if c.alive != (err == nil) || c.alive && (got != home || token != "abc" || port != 8600) {
			t.Errorf("%s: parseDaemon(%q) = %q, %q, %d, %v, want running: %t", name, out, got, string(token), port, err, c.alive)
		}
	}
}

func TestParseDaemon(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, out string
		token     operations.Secret
		port      int
		code      operations.Code
		reason    operations.Reason
	}{
		{name: "complete", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\n \"pid\": 1,\n \"port\": 8600\n}\n\x1eend\n", token: "abc", port: 8600},
		{name: "after noise", out: "Welcome!\n\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\":1}\x1eend\n", token: "abc", port: 1},
		{name: "no rbee", out: "\x1eabsent\n", code: operations.CodeNotFound, reason: operations.ReasonNotInstalled},
		{name: "no daemon", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord \x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "no token", out: "\x1ehome /h\n\x1etoken \n\x1erecord {\"port\":1}\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "truncated record", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\"po\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "no port", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {}\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "login disabled", out: "This account is not available.\n", code: operations.CodeFailed, reason: operations.ReasonNotRbee},
		{name: "empty", code: operations.CodeFailed, reason: operations.ReasonNotRbee},
		{name: "no end marker", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\":1}", code: operations.CodeFailed, reason: operations.ReasonNotRbee},
	} {
		home, token, port, err := parseDaemon(c.out)
		if (home == "/h") != (err == nil) || token != c.token || port != c.port || operations.CodeOf(err) != c.code {
			t.Errorf("%s: parseDaemon() = %q, %q, %d, %v, want token %q, port %d, code %s", c.name, home, string(token), port, err, string(c.token), c.port, c.code)
		}
		if e, ok := err.(*operations.Error); ok && e.Reason != c.reason { //nolint:errorlint // not wrapped
			t.Errorf("%s: parseDaemon() error has reason %q, want %q", c.name, e.Reason, c.reason)
		}
		if err != nil && strings.Contains(err.Error(), "abc") {
			t.Errorf("%s: parseDaemon() error = %v, want no token in it", c.name, err)
		}
	}
}

func FuzzParseDaemon(f *testing.F) {
	f.Add("\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\": 8600}\n\x1eend\n")
	f.Add("\x1eabsent")
	f.Fuzz(func(t *testing.T, out string) {
		home, token, port, err := parseDaemon(out)
		if (err == nil) != (home != "" && token != "" && port > 0) {
			t.Errorf("parseDaemon(%q) = %q, %q, %d, %v, want all values or an error", out, home, string(token), port, err)
		}
	})
}
