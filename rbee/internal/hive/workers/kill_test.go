package workers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// testHive runs a hive in a separate process. It spawns one worker and prints the states
// of the worker until it is killed.
func testHive() {
	o := testOptions(os.Getenv("TEST_HIVE"))
	o.Timing.StallTimeout = time.Hour
	if os.Getenv("TEST_BACKOFF") != "" {
		o.Timing.Backoff = []time.Duration{time.Hour}
	}
	if file := os.Getenv("TEST_GPU"); file != "" {
		(&fakeGPU{file: file}).options(&o)
		o.Timing.MemoryTimeout = time.Hour
	}
	m := New(o)
	m.testHook = func(point string) { fmt.Println(point); blockAt(point) }
	if err := m.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() { // every line on stdin is a request to stop the worker
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			w := m.all()[0]
			if in.Text() == "drain" { // adds an active request that does not end
				w.mu.Lock()
				w.requests = 1
				w.mu.Unlock()
			}
			go func() {
				_, _ = m.Stop(context.Background(), operations.WorkerRef{ID: w.record().ID}, StopOptions{Grace: time.Hour})
			}()
		}
	}()
	go func() {
		_, _ = m.Spawn(context.Background(), operations.WorkerSpawn{Worker: "fake", Model: os.Getenv("TEST_ENGINE")}, nil)
	}()
	var printed operations.WorkerState
	for range time.Tick(time.Millisecond) {
		for _, p := range m.List(true) {
			if p.State != printed {
				printed = p.State
				fmt.Println(printed)
			}
		}
	}
}

// blockAt blocks forever if point is the one at which the test kills this process.
func blockAt(point string) {
	if point == os.Getenv("TEST_BLOCK") {
		select {}
	}
}

// TestKillInEveryState kills a hive at every point of a worker's life and checks that the
// next hive adopts the processes that run, cleans up after the others, and leaves no
// orphans.
func TestKillInEveryState(t *testing.T) {
	t.Parallel()
	if !proc.CanWait {
		t.Skip("needs /proc")
	}
	for _, c := range []struct {
		name, engine, at, block string
		gpu                     bool
		act                     func(t *testing.T, h *hiveProcess)           // called before the hive is killed
		after                   func(t *testing.T, m *Manager, gpu *fakeGPU) // called after the next hive has started
		want                    operations.WorkerState
		adopted                 bool
	}{
		{name: "starting, before process", engine: "serve", at: "before process", block: "before process", want: operations.WorkerReady},
		{name: "starting, after process", engine: "serve", at: "before loading", block: "before loading", want: operations.WorkerReady},
		{name: "loading", engine: "tree-loading", at: "loading", want: operations.WorkerLoading, adopted: true},
		{name: "ready", engine: "tree", at: "ready", want: operations.WorkerReady, adopted: true},
		{
			name: "ready, leader killed", engine: "tree", at: "ready", want: operations.WorkerReady,
			act: func(t *testing.T, h *hiveProcess) {
				h.killWithLeader(t)
			},
		},
		{
			name: "loading, unmarked leader killed", engine: "tree-unmarked", at: "loading", want: operations.WorkerLoading,
			act: func(t *testing.T, h *hiveProcess) { h.killWithLeader(t) },
		},
		{
			name: "draining", engine: "tree", at: "ready", want: operations.WorkerStopped,
			act: func(t *testing.T, h *hiveProcess) {
				fmt.Fprintln(h.stdin, "drain")
				h.awaitRecord(t, operations.WorkerDraining)
			},
		},
		{
			name: "draining, process exited, memory not released", engine: "serve", at: "ready", want: operations.WorkerStopped, gpu: true,
			act: func(t *testing.T, h *hiveProcess) {
				writeFree(t, h.dir, 14e9)
				leader := h.record(t).Process.PID
				fmt.Fprintln(h.stdin, "stop")
				h.awaitRecord(t, operations.WorkerDraining)
				waittest.Until(t, "the leader to exit", func() bool { return hasExited(leader) })
			},
			after: func(t *testing.T, m *Manager, gpu *fakeGPU) {
				waittest.Until(t, "three queries of the memory", func() bool { return gpu.queries() >= 3 })
				if p := m.List(true)[0]; p.State != operations.WorkerDraining {
					t.Errorf("state before the memory is released = %s, want draining", p.State)
				}
				writeFree(t, filepath.Dir(gpu.file), 24e9)
			},
		},
		{
			name: "stopped", engine: "serve", at: "ready", want: operations.WorkerStopped,
			act: func(t *testing.T, h *hiveProcess) {
				fmt.Fprintln(h.stdin, "stop")
				h.awaitRecord(t, operations.WorkerStopped)
			},
		},
		{
			name: "failed, final", engine: "crash", at: "failed", want: operations.WorkerFailed,
		},
		{
			name: "failed, waiting for restart", engine: "serve", at: "ready", want: operations.WorkerFailed,
			act: func(t *testing.T, h *hiveProcess) {
				_, _ = httpGet(h.record(t).Port, "/exit")
				h.awaitRecord(t, operations.WorkerFailed)
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			gpu := ""
			if c.gpu {
				gpu = writeFree(t, dir, 24e9)
			}
			h := startHive(t, dir, c.engine, c.block, "TEST_GPU="+gpu)
			h.await(t, c.at)
			if c.block == "" {
				h.awaitRecord(t, operations.WorkerState(c.at))
			}
			if c.act != nil {
				c.act(t, h)
			}
			h.kill(t)
			before := h.record(t)
			pids := pidsOf(&before)
			if ids, err := proc.FindByEnv(engine.MarkerEnv, before.Marker); err == nil {
				for _, id := range ids {
					pids = append(pids, id.PID)
				}
			}

			o := testOptions(dir)
			o.Timing.StallTimeout, o.Timing.GracePeriod = time.Hour, 100*time.Millisecond
			if c.want == operations.WorkerFailed {
				o.Timing.Backoff = []time.Duration{time.Hour}
			}
			fake := &fakeGPU{file: gpu}
			if c.gpu {
				fake.options(&o)
				o.Timing.MemoryTimeout = time.Hour
			}
			m := newManager(t, o)
			id := m.List(true)[0].ID
			if c.after != nil {
				c.after(t, m, fake)
			}
			waittest.Until(t, "the worker to be "+string(c.want), func() bool {
				p, err := m.Get(operations.WorkerRef{ID: id})
				return err == nil && p.State == c.want && (c.adopted || p.PID != before.Process.PID || p.PID == 0) && (c.adopted || !slices.ContainsFunc(pids, func(pid int) bool { return !hasExited(pid) }))
			})
			p, err := m.Get(operations.WorkerRef{ID: id})
			if err != nil || p.Adopted != c.adopted && c.want != operations.WorkerStopped {
				t.Fatalf("Get(%q) = %+v, %v, want adopted %t", id, p, err, c.adopted)
			}
			now := memberPIDs(t, m, id)
			for _, pid := range pids {
				if c.adopted == hasExited(pid) {
					t.Errorf("process %d of %v: exited = %t, want %t", pid, pids, hasExited(pid), !c.adopted)
				}
				if !c.adopted && slices.Contains(now, pid) {
					t.Errorf("process %d is still a member of the worker, want it removed", pid)
				}
			}
			if c.adopted && p.PID != before.Process.PID {
				t.Errorf("PID of the adopted worker = %d, want %d", p.PID, before.Process.PID)
			}
			if p.State == operations.WorkerReady && get(t, p.Port, "/pid") != fmt.Sprint(p.PID) {
				t.Errorf("the process on port %d has another PID, want the PID %d of the worker", p.Port, p.PID)
			}
			r, err := m.Stop(t.Context(), operations.WorkerRef{ID: id}, StopOptions{Force: true})
			if err != nil || r.Worker.State != operations.WorkerStopped {
				t.Errorf("Stop(%q) = %+v, %v, want a stopped worker", id, r, err)
			}
			if left := memberPIDs(t, m, id); len(left) > 0 {
				t.Errorf("processes left after Stop: %v, want none", left)
			}
		})
	}
}

// hiveProcess is a process that runs testHive.
type hiveProcess struct {
	cmd    *exec.Cmd
	dir    string
	stdin  interface{ Write([]byte) (int, error) }
	lines  chan string
	killed bool
}

func startHive(t *testing.T, dir, engine, blockAt string, env ...string) *hiveProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &hiveProcess{cmd: exec.Command(exe), dir: dir, lines: make(chan string, 1000)}
	h.cmd.Env = append(os.Environ(), "TEST_HIVE="+dir, "TEST_ENGINE="+engine, "TEST_BLOCK="+blockAt, "TEST_BACKOFF=1")
	h.cmd.Env = append(h.cmd.Env, env...)
	stdin, err1 := h.cmd.StdinPipe()
	stdout, err2 := h.cmd.StdoutPipe()
	if err1 != nil || err2 != nil || h.cmd.Start() != nil {
		t.Fatal("cannot start the hive process")
	}
	h.stdin = stdin
	t.Cleanup(func() { h.kill(t) })
	go func() {
		defer close(h.lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			h.lines <- s.Text()
		}
	}()
	return h
}

func (h *hiveProcess) await(t *testing.T, line string) {
	t.Helper()
	limit := time.After(15 * time.Second)
	for {
		select {
		case got, ok := <-h.lines:
			if got == line {
				return
			}
			if !ok {
				t.Fatalf("the hive process exited before it printed %q", line)
			}
		case <-limit:
			t.Fatalf("timed out waiting for the hive process to print %q", line)
		}
	}
}

// awaitRecord waits until the record on disk has the state.
func (h *hiveProcess) awaitRecord(t *testing.T, state operations.WorkerState) {
	t.Helper()
	waittest.Until(t, "the record to have state "+string(state), func() bool { return h.record(t).State == state })
}

func (h *hiveProcess) kill(t *testing.T) {
	if h.killed {
		return
	}
	h.killed = true
	if err := h.cmd.Process.Kill(); err != nil {
		t.Errorf("cannot kill the hive process: %v", err)
	}
	_ = h.cmd.Wait()
}

// killWithLeader waits until the hive has recorded both children of the leader, and kills
// the hive and then the leader.
func (h *hiveProcess) killWithLeader(t *testing.T) {
	t.Helper()
	waittest.Until(t, "the hive to record the children", func() bool { return len(h.record(t).Members) == 2 })
	leader, err := os.FindProcess(h.record(t).Process.PID)
	h.kill(t)
	if err != nil || leader.Kill() != nil {
		t.Fatal("cannot kill the leader")
	}
	waittest.Until(t, "the leader to exit", func() bool { return hasExited(leader.Pid) })
}

// pidsOf returns the PIDs in a record.
func pidsOf(r *record) (pids []int) {
	for _, id := range append([]proc.ID{r.Process}, r.Members...) {
		if id.PID != 0 {
			pids = append(pids, id.PID)
		}
	}
	return pids
}

func (h *hiveProcess) record(t *testing.T) record {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "run", "workers", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("records = %v, %v, want one", files, err)
	}
	data, err := os.ReadFile(files[0])
	var r record
	if err != nil || json.Unmarshal(data, &r) != nil {
		t.Fatalf("cannot read record %s: %v", files[0], err)
	}
	return r
}

// TestReboot checks that processes are not adopted from records of another boot, even if
// their PIDs are in use.
func TestReboot(t *testing.T) {
	t.Parallel()
	if !proc.CanWait {
		t.Skip("needs /proc")
	}
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	id, err := proc.Identify(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	id.BootID = "another boot"
	for state, want := range map[operations.WorkerState]operations.WorkerState{
		operations.WorkerStarting: operations.WorkerReady, operations.WorkerLoading: operations.WorkerReady,
		operations.WorkerReady: operations.WorkerReady, operations.WorkerDraining: operations.WorkerStopped,
		operations.WorkerStopped: operations.WorkerStopped,
	} {
		t.Run(string(state), func(t *testing.T) {
			o := testOptions(t.TempDir())
			first := New(o)
			w := first.add(&record{
				ID: "fake-1", Worker: "fake", Model: "serve", State: state, Marker: "m-" + string(state), Boot: "another boot",
				Process: id, Members: []proc.ID{id}, EverReady: true,
			})
			if err := w.save(); err != nil {
				t.Fatal(err)
			}
			m := newManager(t, o)
			waittest.Until(t, "the worker to be "+string(want), func() bool {
				p, err := m.Get(operations.WorkerRef{ID: "fake-1"})
				return err == nil && p.State == want && !p.Adopted && p.PID != id.PID
			})
			if hasExited(id.PID) {
				t.Fatalf("process %d was killed, want it left running: it does not belong to the worker", id.PID)
			}
		})
	}
}

// TestBrokenRecord checks that an invalid record is renamed and does not prevent the start.
func TestBrokenRecord(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"fake-1.json": "{", "fake-2.json": `{"id":"fake-9"}`, ".fake-3.json123": "{", ".note1": "", ".fake-3.json": ""} {
		if err := os.WriteFile(filepath.Join(o.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := newManager(t, o)
	if list := m.List(true); len(list) != 0 {
		t.Errorf("List() = %+v, want none", list)
	}
	entries, _ := os.ReadDir(o.Dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != ".fake-3.json .note1 fake-1.json.broken fake-2.json.broken" {
		t.Errorf("files after Start() = %s, want the renamed records and all files except temporary files of records", got)
	}
}

func httpGet(port int, path string) (*http.Response, error) {
	return http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
}

// serveOnPort serves on a port as a process that is not the worker, until the test ends.
func serveOnPort(t *testing.T, port int) error {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "not the worker") })}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return nil
}

// TestStopOffline checks that StopOffline stops the workers of a type if no hive runs, and
// starts none.
func TestStopOffline(t *testing.T) {
	t.Parallel()
	if !proc.CanWait {
		t.Skip("needs /proc")
	}
	dir := t.TempDir()
	h := startHive(t, dir, "tree", "")
	h.await(t, "ready")
	h.awaitRecord(t, operations.WorkerReady)
	h.kill(t)
	leader := h.record(t).Process.PID
	o := testOptions(dir)
	o.Timing.GracePeriod = 50 * time.Millisecond
	w := New(o).add(&record{
		ID: "fake-2", Worker: "fake", Model: "serve", State: operations.WorkerFailed, Marker: "m-2", Boot: h.record(t).Boot,
		EverReady: true, RestartAt: time.Now().Add(-time.Hour),
	})
	if programs, err := Programs(o.Dir, "fake"); err != nil || !slices.Equal(programs, h.record(t).Argv[:1]) {
		t.Errorf("Programs() = %v, %v, want %v", programs, err, h.record(t).Argv[:1])
	}
	if err := w.save(); err != nil {
		t.Fatal(err)
	}
	if err := StopOffline(t.Context(), o, "other"); err != nil || hasExited(leader) {
		t.Fatalf("StopOffline() of another type = %v, leader exited = %t, want nil and false", err, hasExited(leader))
	}
	if err := StopOffline(t.Context(), o, "fake"); err != nil || !hasExited(leader) {
		t.Fatalf("StopOffline() = %v, leader exited = %t, want nil and true", err, hasExited(leader))
	}
	files, _ := filepath.Glob(filepath.Join(o.Dir, "*.json"))
	for _, f := range files {
		if data, err := os.ReadFile(f); err != nil || !strings.Contains(string(data), `"state": "stopped"`) {
			t.Errorf("record %s = %s, %v, want state stopped", f, data, err)
		}
	}
}
