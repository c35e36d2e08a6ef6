package lockfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// TestSaveRewritesSchemaZero checks that Save rewrites an unchanged lockfile in the format
// without a schema.
func TestSaveRewritesSchemaZero(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hives.lock")
	old := `{"lock":1,"workers":[{"type":"e","requested":"latest","version":"1.0","resolved_at":"2026-01-02T03:04:05Z"}]}`
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if w, ok := l.Worker("e", "latest"); !ok || w.Version != "1.0" {
			t.Errorf("Worker(e, latest) = %+v, %t; want 1.0", w, ok)
		}
		if err := l.Save(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(got), `"lock"`) || !strings.Contains(string(got), `"schema": 1,`) || !strings.Contains(string(got), `"1.0"`) {
		t.Errorf("the file after Save() = %s, %v; want schema 1 and version 1.0", got, err)
	}
}

// TestSaveKeepsNewerFields checks that Save keeps the schema and unknown fields of a lockfile
// that a newer rbee wrote.
func TestSaveKeepsNewerFields(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hives.lock")
	newer := `{"schema":4,"min_reader":1,"signed":"x","workers":[
		{"type":"e","requested":"latest","version":"1.0","resolved_at":"2026-01-02T03:04:05Z","channel":"stable"},
		{"type":"f","requested":"latest","version":"1.0","resolved_at":"2026-01-02T03:04:05Z","channel":"nightly"}],
		"sources":[{"type":"e","version":"1.0","source":"any","platform":"any","recipe":"steps:1","steps":[{"kind":"file","mirror":"m"}]}]}`
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	l.SetWorker("f", "latest", "2.0", time.Now())
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"schema": 4`, `"min_reader": 1`, `"signed": "x"`, `"channel": "stable"`, `"channel": "nightly"`, `"mirror": "m"`, `"2.0"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("the file after Save() = %s, want %s in it", data, want)
		}
	}
}

// TestLoadErrors checks the errors for lockfiles that this rbee cannot read. Only a damaged lockfile
// may be removed, so its reason differs.
func TestLoadErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, content string
		code          operations.Code
		reason        operations.Reason
	}{
		{"damaged", `{"schema":`, operations.CodeConfigInvalid, operations.ReasonLockfileInvalid},
		{"without a schema", `{}`, operations.CodeConfigInvalid, operations.ReasonLockfileInvalid},
		{"newer", `{"schema":9,"min_reader":9}`, operations.CodeConfigInvalid, operations.ReasonNewerFile},
		{"directory", "", operations.CodeFailed, operations.ReasonFailed},
	} {
		path := filepath.Join(t.TempDir(), "hives.lock")
		err := os.WriteFile(path, []byte(test.content), 0o600)
		if test.content == "" {
			err = errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = Load(path)
		code, reason, subject := operations.CodeOf(err), operations.ReasonOf(err), operations.SubjectOf(err)
		if code != test.code || reason != test.reason || subject != operations.SubjectFile.WithName(path) {
			t.Errorf("%s: Load() = %v, code %q, reason %q, subject %+v; want %q, %q and the file", test.name, err, code, reason, subject, test.code, test.reason)
		}
	}
}

// TestSaveKeepsUnreadableLock checks that Save does not overwrite a lockfile that a newer rbee
// wrote since it was loaded.
func TestSaveKeepsUnreadableLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hives.lock")
	l, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	l.SetWorker("e", "latest", "1.0", time.Now())
	const newer = `{"schema":9,"min_reader":9}`
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	err = l.Save()
	if reason, subject := operations.ReasonOf(err), operations.SubjectOf(err); reason != operations.ReasonNewerFile || subject != operations.SubjectFile.WithName(path) {
		t.Errorf("Save() = %v, reason %q and subject %+v; want %q and the file", err, reason, subject, operations.ReasonNewerFile)
	}
	if data, _ := os.ReadFile(path); string(data) != newer {
		t.Errorf("the file after Save() = %s, want %s", data, newer)
	}
}
