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
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// TestLeaderDiesWhileLoading holds that a crowd is ended whose leader dies before
// it serves, also those of it that left the group and have no mark: under the hive
// that started it, and under one that adopted it.
func TestLeaderDiesWhileLoading(t *testing.T) {
	t.Parallel()
	if !proc.Holds {
		t.Skip("needs /proc")
	}
	for name, begin := range map[string]func(t *testing.T, o Options, dir string) *Manager{
		"started": func(t *testing.T, o Options, _ string) *Manager {
			t.Helper()
			m := manager(t, o)
			if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "nameless", Detach: true}, nil); err != nil {
				t.Fatal(err)
			}
			return m
		},
		"adopted": func(t *testing.T, o Options, dir string) *Manager {
			t.Helper()
			h := startHive(t, dir, "nameless", "")
			h.await(t, "loading")
			h.awaitRecord(t, operations.WorkerLoading)
			leader := h.record(t).Process.PID
			eventually(t, "the leader to have children", func() bool { return len(childrenOf(leader)) == 2 })
			h.kill(t)
			m := manager(t, o)
			// No look of the load is waited for: adopting is one.
			if r := m.all()[0].record(); len(r.Members) != 2 {
				t.Errorf("adopted without a look at who belongs to it: %+v", r.Members)
			}
			return m
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := options(dir)
			o.Times.Kill = 300 * time.Millisecond
			m := begin(t, o, dir)
			w := m.all()[0]
			eventually(t, "the crowd to be known", func() bool { r := w.record(); return len(r.Members) == 2 })
			r := w.record()
			if marked, err := proc.Marked(engine.MarkName, r.Mark); err != nil || len(marked) != 1 {
				t.Fatalf("the crowd has marks: %v, %v", marked, err)
			}
			if err := r.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the crowd to be gone", func() bool {
				return !slices.ContainsFunc(pidsOf(&r), func(pid int) bool { return !gone(pid) })
			})
			eventually(t, "the worker to have failed", func() bool { r := w.record(); return r.State == operations.WorkerFailed })
		})
	}
}

// childrenOf are the processes that a process made and that run.
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

// TestStrangersAreLeftAlone holds that processes which have pids of a record, and
// did not begin when and in the boot that it says, are neither adopted nor
// signaled; nor is their group or what descends from them.
func TestStrangersAreLeftAlone(t *testing.T) {
	t.Parallel()
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	stranger := exec.Command("sh", "-c", "sleep 60 & echo $!; wait")
	stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := stranger.StdoutPipe()
	if err != nil || stranger.Start() != nil {
		t.Fatal("no stranger", err)
	}
	leader := stranger.Process.Pid
	defer func() { _ = syscall.Kill(-leader, syscall.SIGKILL); _ = stranger.Wait() }()
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	id, err1 := proc.Identify(leader)
	childID, err2 := proc.Identify(child)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	started := func(id proc.ID) proc.ID { id.StartTime = "1"; return id }
	booted := func(id proc.ID) proc.ID { id.BootID = "another"; return id }
	o := options(t.TempDir())
	first := New(o)
	for i, r := range []record{
		{Process: started(id), Members: []proc.ID{started(childID)}},
		{Process: booted(id), Members: []proc.ID{booted(childID)}},
		{Process: started(id), Members: []proc.ID{booted(id), started(childID)}},
	} {
		for _, state := range []operations.WorkerState{operations.WorkerStarting, operations.WorkerReady, operations.WorkerDraining, operations.WorkerFailed} {
			r.ID, r.Worker, r.Model, r.State, r.EverReady = fmt.Sprintf("fake-%d-%s", i, state), "fake", "serve", state, true
			r.Mark, r.Boot = "nobody's "+r.ID, self.BootID
			if err := first.add(&r).save(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Clear(t.Context(), o, ""); err != nil {
		t.Fatal(err)
	}
	if gone(leader) || gone(child) {
		t.Fatal("strangers were ended")
	}
	w := mustFind(t, first, "fake-0-ready")
	if err := w.save(); err != nil { // as it was
		t.Fatal(err)
	}
	m := manager(t, o)
	eventually(t, "a new process", func() bool {
		p, err := m.Get(operations.WorkerRef{ID: "fake-0-ready"})
		return err == nil && p.State == operations.WorkerReady && p.PID != leader && !p.Adopted
	})
	if gone(leader) || gone(child) {
		t.Error("strangers were ended")
	}
}

// writeFree says how much memory of a fake device is free, for hives in dir.
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

// readFree reads what writeFree wrote; 0 if that cannot be read.
func readFree(file string) uint64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	free, _ := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return free
}
