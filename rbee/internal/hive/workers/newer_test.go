package workers

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// spawnAndClose starts a worker and closes its manager, so that the worker keeps running
// without one. It returns the worker, and the path and content of its record.
func spawnAndClose(t *testing.T, o Options) (p operations.WorkerProcess, path string, record []byte) {
	t.Helper()
	m := New(o)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	p = spawn(t, m, "serve")
	path = m.path(p.ID)
	m.Close()
	record, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p, path, record
}

// TestNewerRecordIsNotChanged restarts a hive as an rbee that cannot read the record of a
// running worker. The hive must report the worker and change neither record nor process.
func TestNewerRecordIsNotChanged(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	p, path, readable := spawnAndClose(t, o)
	newer := strings.Replace(string(readable), `"min_reader": 0`, `"min_reader": 9`, 1)
	if newer == string(readable) {
		t.Fatalf("record = %s, want min_reader in it", readable)
	}
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}

	second := New(o)
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	list := second.List(false)
	if len(list) != 1 || list[0].ID != p.ID || list[0].Worker != "fake" || list[0].State != operations.WorkerFailed || !strings.Contains(list[0].Problem, "newer rbee") {
		t.Errorf("List() = %+v, want %s with a problem", list, p.ID)
	}
	if _, err := second.Get(operations.WorkerRef{ID: p.ID}); operations.ReasonOf(err) != operations.ReasonNewerFile {
		t.Errorf("Get() = %v, want reason %s", err, operations.ReasonNewerFile)
	}
	_, programsErr := Programs(o.Dir, "fake")
	for name, err := range map[string]error{"Programs": programsErr, "StopOffline": StopOffline(t.Context(), o, "fake")} {
		if newer := (*wire.NewerSchemaError)(nil); !errors.As(err, &newer) {
			t.Errorf("%s() = %v, want a NewerSchemaError", name, err)
		}
	}
	second.Close()
	if text, err := os.ReadFile(path); string(text) != newer {
		t.Errorf("record = %s, %v, want it unchanged", text, err)
	}
	if hasExited(p.PID) {
		t.Errorf("process %d of the worker exited, want it left running", p.PID)
	}

	// An rbee that can read the record continues the worker.
	if err := os.WriteFile(path, readable, 0o600); err != nil {
		t.Fatal(err)
	}
	third := newManager(t, o)
	if list := third.List(false); len(list) != 1 || list[0].PID != p.PID || list[0].State != operations.WorkerReady {
		t.Errorf("List() = %+v, want %s ready", list, p.ID)
	}
}

// TestRecordKeepsUnknownFields checks that fields of a newer rbee survive an update.
func TestRecordKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	p, path, text := spawnAndClose(t, o)
	with := strings.Replace(string(text), `"id":`, `"lease": {"term": 7}, "id":`, 1)
	if err := os.WriteFile(path, []byte(with), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, o)
	if _, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if joined := strings.Join(strings.Fields(string(text)), ""); err != nil || !strings.Contains(joined, `"lease":{"term":7}`) || !strings.Contains(joined, `"state":"stopped"`) {
		t.Errorf("record = %s, %v, want state stopped and the unknown field lease", text, err)
	}
}
