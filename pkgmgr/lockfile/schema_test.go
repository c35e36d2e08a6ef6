package lockfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSchemaZeroIsRewritten saves a lock of the format before there was a schema, of
// which nothing else has changed.
func TestSchemaZeroIsRewritten(t *testing.T) {
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
		t.Errorf("the file after Save() is %s, %v; want schema 1 and version 1.0", got, err)
	}
}

// TestNewerLockIsKept saves a change in a lock that a newer rbee has written: its fields
// and its schema stay.
func TestNewerLockIsKept(t *testing.T) {
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
	for _, want := range []string{`"schema": 4`, `"min_reader": 1`, `"signed": "x"`, `"channel": "stable"`, `"mirror": "m"`, `"2.0"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("the file after Save() is %s, want %s in it", data, want)
		}
	}
}
