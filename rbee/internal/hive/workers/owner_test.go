package workers

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

func TestFindOwners(t *testing.T) {
	t.Parallel()
	id := func(pid int) proc.ID { return proc.ID{PID: pid, StartTime: "1", BootID: "b"} }
	at := func(pid, parent, group int) proc.Process {
		return proc.Process{ID: id(pid), Parent: parent, Group: group}
	}
	reused := at(100, 1, 100)
	reused.StartTime = "2" // a later process with the same PID
	one := &record{ID: "one", Process: id(100), Members: []proc.ID{id(101), id(200)}}
	two := &record{ID: "two", Process: id(300)}
	noProcess := &record{ID: "no-process"}
	for _, tt := range []struct {
		name    string
		running []proc.Process
		want    map[int]string
	}{
		{"no process", nil, nil},
		{"leaders and another process", []proc.Process{at(1, 0, 1), at(100, 1, 100), at(300, 1, 300), at(9, 1, 9)}, map[int]string{100: "one", 300: "two"}},
		{"reused PID", []proc.Process{reused, at(102, 100, 100)}, nil},
		{"leader's group", []proc.Process{at(100, 1, 100), at(102, 1, 100)}, map[int]string{100: "one", 102: "one"}},
		{"group of an exited leader", []proc.Process{at(101, 1, 100), at(102, 1, 100)}, map[int]string{101: "one", 102: "one"}},
		{"member outside the group", []proc.Process{at(200, 1, 200), at(201, 1, 200)}, map[int]string{200: "one"}},
		{"descendants", []proc.Process{at(300, 1, 300), at(301, 300, 301), at(302, 301, 302)}, map[int]string{300: "two", 301: "two", 302: "two"}},
		{"nearest ancestor", []proc.Process{at(100, 300, 100), at(300, 1, 300), at(103, 100, 103)}, map[int]string{100: "one", 300: "two", 103: "one"}},
		{"cycle of parents", []proc.Process{at(7, 8, 7), at(8, 7, 8)}, nil},
		{"kernel threads", []proc.Process{at(2, 0, 0), at(3, 2, 0)}, nil},
	} {
		if got := findOwners([]*record{one, two, noProcess}, tt.running); !maps.Equal(got, tt.want) {
			t.Errorf("%s: findOwners() = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestProcessOwners checks that ProcessOwners finds all processes of an engine, with a running
// manager and without.
func TestProcessOwners(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	m := newManager(t, o)
	p := spawn(t, m, "tree")
	w, err := m.find(operations.WorkerRef{ID: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, member := range w.members(true) {
		pids = append(pids, member.PID)
	}
	if len(pids) != 3 {
		t.Fatalf("members() = %v, want 3 processes", pids)
	}
	for _, when := range []string{"with manager", "without manager"} {
		got, err := ProcessOwners(o.Dir)
		if err != nil || len(got) != 3 {
			t.Errorf("%s: ProcessOwners() = %v, %v, want the processes %v", when, got, err, pids)
		}
		for _, pid := range pids {
			if got[pid] != p.ID {
				t.Errorf("%s: owner of process %d = %q, want %q", when, pid, got[pid], p.ID)
			}
		}
		m.Close()
	}
	next := newManager(t, o) // its cleanup stops the worker
	waittest.Until(t, "the next manager to adopt the worker", func() bool { return next.List(false)[0].State == operations.WorkerReady })
}

// TestProcessOwnersAndProgramsOnlyRead checks that ProcessOwners and Programs do not change
// invalid or temporary files.
func TestProcessOwnersAndProgramsOnlyRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteJSON(filepath.Join(dir, "me.json"), record{ID: "me", Worker: "fake", Marker: "m", State: operations.WorkerReady, Argv: []string{"/engine"}, Process: self}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bad.json", "old.json.broken", ".old.json1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ProcessOwners(dir)
	if err != nil || got[os.Getpid()] != "me" {
		t.Errorf("ProcessOwners() = %v, %v, want %d: me", got, err, os.Getpid())
	}
	if programs, err := Programs(dir, "fake"); err != nil || !slices.Equal(programs, []string{"/engine"}) {
		t.Errorf("Programs() = %v, %v, want /engine", programs, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 4 {
		t.Errorf("ReadDir() = %v, %v, want 4 files", left, err)
	}
	for _, name := range []string{"bad.json", "old.json.broken", ".old.json1"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("Stat(%q) = %v, want the file kept", name, err)
		}
	}
	if got, err := ProcessOwners(filepath.Join(dir, "none")); err != nil || len(got) != 0 {
		t.Errorf("ProcessOwners() without records = %v, %v, want none", got, err)
	}
}

// TestProgramsWhileRecordsAreWritten checks that Programs finds a program while a hive
// writes its record, and does not disturb the hive.
func TestProgramsWhileRecordsAreWritten(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	w := New(o).add(&record{ID: "fake-1", Worker: "fake", Marker: "m", State: operations.WorkerReady, Argv: []string{"/engine"}})
	if err := w.save(); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 50 && err == nil; i++ {
			err = w.save()
		}
		written <- err
	}()
	for {
		if programs, err := Programs(o.Dir, "fake"); err != nil || !slices.Equal(programs, []string{"/engine"}) {
			t.Errorf("Programs() = %v, %v, want /engine", programs, err)
		}
		select {
		case err := <-written:
			if err != nil {
				t.Errorf("save() = %v, want nil", err)
			}
			return
		default:
		}
	}
}
