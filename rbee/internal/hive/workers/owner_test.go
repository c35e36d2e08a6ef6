package workers

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

func TestWhose(t *testing.T) {
	t.Parallel()
	id := func(pid int) proc.ID { return proc.ID{PID: pid, StartTime: "1", BootID: "b"} }
	at := func(pid, parent, group int) proc.Process {
		return proc.Process{ID: id(pid), Parent: parent, Group: group}
	}
	again := at(100, 1, 100)
	again.StartTime = "2" // somebody else with the pid
	one := &record{ID: "one", Process: id(100), Members: []proc.ID{id(101), id(200)}}
	two := &record{ID: "two", Process: id(300)}
	unborn := &record{ID: "unborn"}
	for _, tt := range []struct {
		name    string
		running []proc.Process
		want    map[int]string
	}{
		{"nothing runs", nil, nil},
		{"leaders and a stranger", []proc.Process{at(1, 0, 1), at(100, 1, 100), at(300, 1, 300), at(9, 1, 9)}, map[int]string{100: "one", 300: "two"}},
		{"the pid was given again", []proc.Process{again, at(102, 100, 100)}, nil},
		{"in the leader's group", []proc.Process{at(100, 1, 100), at(102, 1, 100)}, map[int]string{100: "one", 102: "one"}},
		{"a member in the group of an ended leader", []proc.Process{at(101, 1, 100), at(102, 1, 100)}, map[int]string{101: "one", 102: "one"}},
		{"a member that left the group", []proc.Process{at(200, 1, 200), at(201, 1, 200)}, map[int]string{200: "one"}},
		{"descendants", []proc.Process{at(300, 1, 300), at(301, 300, 301), at(302, 301, 302)}, map[int]string{300: "two", 301: "two", 302: "two"}},
		{"the nearest ancestor", []proc.Process{at(100, 300, 100), at(300, 1, 300), at(103, 100, 103)}, map[int]string{100: "one", 300: "two", 103: "one"}},
		{"a circle", []proc.Process{at(7, 8, 7), at(8, 7, 8)}, nil},
		{"the system's", []proc.Process{at(2, 0, 0), at(3, 2, 0)}, nil},
	} {
		if got := whose([]*record{one, two, unborn}, tt.running); !maps.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A manager's own records tell of an engine with all its processes, after the manager
// has gone too.
func TestWhoseAreAnEngines(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	m := manager(t, o)
	p := spawn(t, m, "crowd")
	w, err := m.find(operations.WorkerRef{ID: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, member := range w.members(true) {
		pids = append(pids, member.PID)
	}
	if len(pids) != 3 {
		t.Fatalf("the crowd is %v", pids)
	}
	for _, when := range []string{"with a manager", "without"} {
		got, err := Whose(o.Dir)
		if err != nil || len(got) != 3 {
			t.Errorf("%s: %v, %v, want %v", when, got, err, pids)
		}
		for _, pid := range pids {
			if got[pid] != p.ID {
				t.Errorf("%s: %d is of %q", when, pid, got[pid])
			}
		}
		m.Close()
	}
	next := manager(t, o) // ends them
	eventually(t, "the next manager to adopt it", func() bool { return next.List(false)[0].State == operations.WorkerReady })
}

// What cannot be read, or is being written, is left as it is: another process keeps
// the records.
func TestOthersReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteJSON(filepath.Join(dir, "me.json"), record{ID: "me", Worker: "fake", Mark: "m", State: operations.WorkerReady, Argv: []string{"/engine"}, Process: self}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bad.json", "gone.json.broken", ".gone.json1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Whose(dir)
	if err != nil || got[os.Getpid()] != "me" {
		t.Errorf("%v, %v", got, err)
	}
	if programs, err := Programs(dir, "fake"); err != nil || !slices.Equal(programs, []string{"/engine"}) {
		t.Errorf("%v, %v", programs, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 4 {
		t.Errorf("left %v, %v", left, err)
	}
	for _, name := range []string{"bad.json", "gone.json.broken", ".gone.json1"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if got, err := Whose(filepath.Join(dir, "none")); err != nil || len(got) != 0 {
		t.Errorf("without records: %v, %v", got, err)
	}
}

// TestProgramsBesideAHive holds that whoever asks for the programs keeps no hive from
// writing its records, and always finds them.
func TestProgramsBesideAHive(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	w := New(o).add(&record{ID: "fake-1", Worker: "fake", Mark: "m", State: operations.WorkerReady, Argv: []string{"/engine"}})
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
			t.Errorf("%v, %v", programs, err)
		}
		select {
		case err := <-written:
			if err != nil {
				t.Errorf("the hive's record: %v", err)
			}
			return
		default:
		}
	}
}
