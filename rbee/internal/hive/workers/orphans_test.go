package workers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// TestLeaderExitsWhileLoading checks that all processes of a worker are stopped if its
// leader exits before it is ready, including detached processes without the marker, both in
// the hive that started the worker and in a hive that adopted it.
func TestLeaderExitsWhileLoading(t *testing.T) {
	t.Parallel()
	if !proc.CanWait {
		t.Skip("needs /proc")
	}
	for name, start := range map[string]func(t *testing.T, o Options, dir string) *Manager{
		"started": func(t *testing.T, o Options, _ string) *Manager {
			t.Helper()
			m := newManager(t, o)
			if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "tree-unmarked", Detach: true}, nil); err != nil {
				t.Fatal(err)
			}
			return m
		},
		"adopted": func(t *testing.T, o Options, dir string) *Manager {
			t.Helper()
			h := startHive(t, dir, "tree-unmarked", "")
			h.await(t, "loading")
			h.awaitRecord(t, operations.WorkerLoading)
			leader := h.record(t).Process.PID
			waittest.Until(t, "the leader to have children", func() bool { return len(childrenOf(leader)) == 2 })
			h.kill(t)
			m := newManager(t, o)
			// Adopting records the members, without waiting for the load monitor.
			if r := m.all()[0].record(); len(r.Members) != 2 {
				t.Errorf("members after adopting = %+v, want 2", r.Members)
			}
			return m
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := testOptions(dir)
			o.Timing.KillTimeout = 300 * time.Millisecond
			m := start(t, o, dir)
			w := m.all()[0]
			waittest.Until(t, "two recorded members", func() bool { r := w.record(); return len(r.Members) == 2 })
			r := w.record()
			if marked, err := proc.FindByEnv(engine.MarkerEnv, r.Marker); err != nil || len(marked) != 1 {
				t.Fatalf("FindByEnv() = %v, %v, want only the process started with the marker", marked, err)
			}
			if err := r.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waittest.Until(t, "all processes to exit", func() bool {
				return !slices.ContainsFunc(pidsOf(&r), func(pid int) bool { return !hasExited(pid) })
			})
			waittest.Until(t, "the worker to fail", func() bool { r := w.record(); return r.State == operations.WorkerFailed })
		})
	}
}

// childrenOf returns the running children of a process.
func childrenOf(pid int) (pids []int) {
	all, err := proc.List()
	if err != nil {
		return nil
	}
	for _, p := range all {
		if p.Parent == pid {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// TestOtherProcessesAreNotSignaled checks that processes with the PID of a record but
// another start time or boot are neither adopted nor signaled, nor are their groups and
// descendants.
func TestOtherProcessesAreNotSignaled(t *testing.T) {
	t.Parallel()
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	other := exec.Command("sh", "-c", "sleep 60 & echo $!; wait")
	other.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := other.StdoutPipe()
	if err != nil || other.Start() != nil {
		t.Fatal("cannot start a process:", err)
	}
	leader := other.Process.Pid
	defer func() { _ = syscall.Kill(-leader, syscall.SIGKILL); _ = other.Wait() }()
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	id, err1 := proc.Identify(leader)
	childID, err2 := proc.Identify(child)
	if err1 != nil || err2 != nil {
		t.Fatalf("Identify() = %v, %v, want nil", err1, err2)
	}
	withStartTime := func(id proc.ID) proc.ID { id.StartTime = "1"; return id }
	withBoot := func(id proc.ID) proc.ID { id.BootID = "another"; return id }
	o := testOptions(t.TempDir())
	first := New(o)
	for i, r := range []record{
		{Process: withStartTime(id), Members: []proc.ID{withStartTime(childID)}},
		{Process: withBoot(id), Members: []proc.ID{withBoot(childID)}},
		{Process: withStartTime(id), Members: []proc.ID{withBoot(id), withStartTime(childID)}},
	} {
		for _, state := range []operations.WorkerState{operations.WorkerStarting, operations.WorkerReady, operations.WorkerDraining, operations.WorkerFailed} {
			r.ID, r.Worker, r.Model, r.State, r.EverReady = fmt.Sprintf("fake-%d-%s", i, state), "fake", "serve", state, true
			r.Marker, r.Boot = "unused "+r.ID, self.BootID
			if err := first.add(&r).save(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := StopOffline(t.Context(), o, ""); err != nil {
		t.Fatal(err)
	}
	if hasExited(leader) || hasExited(child) {
		t.Fatalf("process %d or %d was killed, want them left running: they do not belong to a worker", leader, child)
	}
	w := mustFind(t, first, "fake-0-ready")
	if err := w.save(); err != nil { // restores the record
		t.Fatal(err)
	}
	m := newManager(t, o)
	waittest.Until(t, "a new process", func() bool {
		p, err := m.Get(operations.WorkerRef{ID: "fake-0-ready"})
		return err == nil && p.State == operations.WorkerReady && p.PID != leader && !p.Adopted
	})
	if hasExited(leader) || hasExited(child) {
		t.Errorf("process %d or %d was killed, want them left running: they do not belong to a worker", leader, child)
	}
}

// writeFree sets the free memory of the fake device, for hives in dir.
func writeFree(t *testing.T, dir string, free uint64) (file string) {
	t.Helper()
	file = filepath.Join(dir, "free")
	if err := os.WriteFile(file+".new", []byte(strconv.FormatUint(free, 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	return file
}

// readFree reads the value that writeFree wrote; 0 on error.
func readFree(file string) uint64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	free, _ := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return free
}
