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
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// testHive is a hive in a process of its own: it spawns one worker and tells of
// its states, until it is killed.
func testHive() {
	o := options(os.Getenv("TEST_HIVE"))
	o.Times.Stall = time.Hour
	if os.Getenv("TEST_BACKOFF") != "" {
		o.Times.Backoff = []time.Duration{time.Hour}
	}
	if file := os.Getenv("TEST_GPU"); file != "" {
		(&fakeGPU{file: file}).options(&o)
		o.Times.Memory = time.Hour
	}
	m := New(o)
	m.reached = func(point string) { fmt.Println(point); block(point) }
	if err := m.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() { // what is written to stdin is a request to stop the worker
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			w := m.all()[0]
			if in.Text() == "drain" { // for as long as it takes
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
	told := operations.WorkerState("")
	for {
		for _, p := range m.List(true) {
			if p.State != told {
				told = p.State
				fmt.Println(told)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// block stays at the point where the test kills this process.
func block(point string) {
	if point == os.Getenv("TEST_BLOCK") {
		select {}
	}
}

// TestKillInEveryState kills a hive at every point of a worker's life and holds
// that the next one goes on from there: what runs is adopted, what does not is
// cleaned up, and nothing is orphaned.
func TestKillInEveryState(t *testing.T) {
	t.Parallel()
	if !proc.Holds {
		t.Skip("needs /proc")
	}
	for _, c := range []struct {
		name, engine, at, block string
		gpu                     bool
		act                     func(t *testing.T, h *hiveProcess)           // before it is killed
		after                   func(t *testing.T, m *Manager, gpu *fakeGPU) // before the next hive is looked at
		want                    operations.WorkerState
		adopted                 bool
	}{
		{name: "starting, before the process", engine: "serve", at: "before process", block: "before process", want: operations.WorkerReady},
		{name: "starting, after the process", engine: "serve", at: "before loading", block: "before loading", want: operations.WorkerReady},
		{name: "loading", engine: "crowdloading", at: "loading", want: operations.WorkerLoading, adopted: true},
		{name: "ready", engine: "crowd", at: "ready", want: operations.WorkerReady, adopted: true},
		{
			name: "ready, and the engine's leader dies with it", engine: "crowd", at: "ready", want: operations.WorkerReady,
			act: func(t *testing.T, h *hiveProcess) {
				h.killWithLeader(t)
			},
		},
		{
			name: "loading, and the leader of a crowd without marks dies with it", engine: "nameless", at: "loading", want: operations.WorkerLoading,
			act: func(t *testing.T, h *hiveProcess) { h.killWithLeader(t) },
		},
		{
			name: "draining", engine: "crowd", at: "ready", want: operations.WorkerStopped,
			act: func(t *testing.T, h *hiveProcess) {
				fmt.Fprintln(h.stdin, "drain")
				h.awaitRecord(t, operations.WorkerDraining)
			},
		},
		{
			name: "draining, with the process gone and its memory not back", engine: "serve", at: "ready", want: operations.WorkerStopped, gpu: true,
			act: func(t *testing.T, h *hiveProcess) {
				writeFree(t, h.dir, 14e9)
				leader := h.record(t).Process.PID
				fmt.Fprintln(h.stdin, "stop")
				h.awaitRecord(t, operations.WorkerDraining)
				eventually(t, "the leader to be gone", func() bool { return gone(leader) })
			},
			after: func(t *testing.T, m *Manager, gpu *fakeGPU) {
				eventually(t, "the memory to be looked at", func() bool { return gpu.looks() >= 3 })
				if p := m.List(true)[0]; p.State != operations.WorkerDraining {
					t.Errorf("%s before the memory was back", p.State)
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
			name: "failed for good", engine: "dies", at: "failed", want: operations.WorkerFailed,
		},
		{
			name: "failed, waiting to be tried again", engine: "serve", at: "ready", want: operations.WorkerFailed,
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
			if ids, err := proc.Marked(engine.MarkName, before.Mark); err == nil {
				for _, id := range ids {
					pids = append(pids, id.PID)
				}
			}

			o := options(dir)
			o.Times.Stall, o.Times.Grace = time.Hour, 100*time.Millisecond
			if c.want == operations.WorkerFailed {
				o.Times.Backoff = []time.Duration{time.Hour}
			}
			fake := &fakeGPU{file: gpu}
			if c.gpu {
				fake.options(&o)
				o.Times.Memory = time.Hour
			}
			m := manager(t, o)
			id := m.List(true)[0].ID
			if c.after != nil {
				c.after(t, m, fake)
			}
			eventually(t, "the worker to be "+string(c.want), func() bool {
				p, err := m.Get(operations.WorkerRef{ID: id})
				return err == nil && p.State == c.want && (c.adopted || p.PID != before.Process.PID || p.PID == 0) && (c.adopted || !slices.ContainsFunc(pids, func(pid int) bool { return !gone(pid) }))
			})
			p, err := m.Get(operations.WorkerRef{ID: id})
			if err != nil || p.Adopted != c.adopted && c.want != operations.WorkerStopped {
				t.Fatalf("worker %+v, %v", p, err)
			}
			now := marked(t, m, id)
			for _, pid := range pids {
				if c.adopted == gone(pid) {
					t.Errorf("process %d of %v: gone is %t, adopted is %t", pid, pids, gone(pid), c.adopted)
				}
				if !c.adopted && slices.Contains(now, pid) {
					t.Errorf("process %d is still a member", pid)
				}
			}
			if c.adopted && p.PID != before.Process.PID {
				t.Errorf("adopted process %d, not %d", p.PID, before.Process.PID)
			}
			if p.State == operations.WorkerReady && get(t, p.Port, "/pid") != fmt.Sprint(p.PID) {
				t.Error("another process serves")
			}
			r, err := m.Stop(t.Context(), operations.WorkerRef{ID: id}, StopOptions{Force: true})
			if err != nil || r.Worker.State != operations.WorkerStopped {
				t.Errorf("stopped: %+v, %v", r, err)
			}
			if left := marked(t, m, id); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// hiveProcess is a testHive.
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
		t.Fatal("the hive's process cannot be made")
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
				t.Fatalf("the hive ended before it said %q", line)
			}
		case <-limit:
			t.Fatalf("the hive did not say %q", line)
		}
	}
}

// awaitRecord waits until the state is on disk.
func (h *hiveProcess) awaitRecord(t *testing.T, state operations.WorkerState) {
	t.Helper()
	eventually(t, "the record to say "+string(state), func() bool { return h.record(t).State == state })
}

func (h *hiveProcess) kill(t *testing.T) {
	if h.killed {
		return
	}
	h.killed = true
	if err := h.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = h.cmd.Wait()
}

// killWithLeader kills the hive, once it knows the two others of a crowd, and then
// the crowd's leader.
func (h *hiveProcess) killWithLeader(t *testing.T) {
	t.Helper()
	eventually(t, "the hive to know the crowd", func() bool { return len(h.record(t).Members) == 2 })
	leader, err := os.FindProcess(h.record(t).Process.PID)
	h.kill(t)
	if err != nil || leader.Kill() != nil {
		t.Fatal("the leader cannot be killed")
	}
	eventually(t, "the leader to be gone", func() bool { return gone(leader.Pid) })
}

// pidsOf are those of the processes on record.
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
		t.Fatalf("records: %v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	var r record
	if err != nil || json.Unmarshal(data, &r) != nil {
		t.Fatalf("record: %v", err)
	}
	return r
}

// TestReboot holds that records of another boot adopt nobody, even if their pid is
// somebody's now.
func TestReboot(t *testing.T) {
	t.Parallel()
	if !proc.Holds {
		t.Skip("needs /proc")
	}
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	id, err := proc.Identify(stranger.Process.Pid)
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
			o := options(t.TempDir())
			first := New(o)
			w := first.add(&record{
				ID: "fake-1", Worker: "fake", Model: "serve", State: state, Mark: "m-" + string(state), Boot: "another boot",
				Process: id, Members: []proc.ID{id}, EverReady: true,
			})
			if err := w.save(); err != nil {
				t.Fatal(err)
			}
			m := manager(t, o)
			eventually(t, "the worker to be "+string(want), func() bool {
				p, err := m.Get(operations.WorkerRef{ID: "fake-1"})
				return err == nil && p.State == want && !p.Adopted && p.PID != id.PID
			})
			if gone(id.PID) {
				t.Fatal("a stranger was ended")
			}
		})
	}
}

// TestBrokenRecord holds that a record which cannot be read keeps nobody else from
// being taken over.
func TestBrokenRecord(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"fake-1.json": "{", "fake-2.json": `{"id":"fake-9"}`, ".fake-3.json123": "{", ".note1": "", ".fake-3.json": ""} {
		if err := os.WriteFile(filepath.Join(o.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := manager(t, o)
	if list := m.List(true); len(list) != 0 {
		t.Errorf("listed %+v", list)
	}
	entries, _ := os.ReadDir(o.Dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != ".fake-3.json .note1 fake-1.json.broken fake-2.json.broken" {
		t.Errorf("left %s, want the broken records and files that are not the temporary files of records", got)
	}
}

func httpGet(port int, path string) (*http.Response, error) {
	return http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
}

// steal answers on a port as a stranger, until the test ends.
func steal(t *testing.T, port int) error {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "stranger") })}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return nil
}

// TestClear holds that workers of a hive that does not run can be ended, one type
// of them or all, and that none is begun for it.
func TestClear(t *testing.T) {
	t.Parallel()
	if !proc.Holds {
		t.Skip("needs /proc")
	}
	dir := t.TempDir()
	h := startHive(t, dir, "crowd", "")
	h.await(t, "ready")
	h.awaitRecord(t, operations.WorkerReady)
	h.kill(t)
	leader := h.record(t).Process.PID
	o := options(dir)
	o.Times.Grace = 50 * time.Millisecond
	w := New(o).add(&record{
		ID: "fake-2", Worker: "fake", Model: "serve", State: operations.WorkerFailed, Mark: "m-2", Boot: h.record(t).Boot,
		EverReady: true, RestartAt: time.Now().Add(-time.Hour),
	})
	if programs, err := Programs(o.Dir, "fake"); err != nil || !slices.Equal(programs, h.record(t).Argv[:1]) {
		t.Errorf("programs %v, %v", programs, err)
	}
	if err := w.save(); err != nil {
		t.Fatal(err)
	}
	if err := Clear(t.Context(), o, "other"); err != nil || gone(leader) {
		t.Fatalf("another type: %v, gone is %t", err, gone(leader))
	}
	if err := Clear(t.Context(), o, "fake"); err != nil || !gone(leader) {
		t.Fatalf("%v, gone is %t", err, gone(leader))
	}
	files, _ := filepath.Glob(filepath.Join(o.Dir, "*.json"))
	for _, f := range files {
		if data, err := os.ReadFile(f); err != nil || !strings.Contains(string(data), `"state": "stopped"`) {
			t.Errorf("%s: %s", f, data)
		}
	}
}
