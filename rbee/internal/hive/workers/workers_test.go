package workers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
)

func TestSpawnServeStop(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	var states []operations.WorkerState
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{
		Worker: "fake", Model: "serve", Env: map[string]string{"SECRET": "hush hush"}, Args: []string{"--flag", "two words; $(echo)"},
	}, func(e operations.Event) {
		if e.Type == operations.EventWorker {
			states = append(states, e.Worker.State)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p := r.Worker
	if p.State != operations.WorkerReady || p.PID == 0 || p.Port == 0 || p.Version != "1.0" || !strings.HasPrefix(p.ID, "fake-") {
		t.Fatalf("Spawn() = %+v, want a ready worker", p)
	}
	if last := states[len(states)-1]; last != operations.WorkerReady || states[0] != operations.WorkerStarting {
		t.Errorf("reported states = %v, want starting first and ready last", states)
	}
	if want := []string{"--flag", "two words; $(echo)"}; !slices.Equal(p.Argv[len(p.Argv)-2:], want) {
		t.Errorf("argv = %q, want %q at the end", p.Argv, want)
	}
	if strings.Contains(fmt.Sprintf("%+v", p), "hush") || !slices.Equal(p.EnvNames, []string{"SECRET"}) {
		t.Errorf("Spawn() = %+v, want only the names of environment variables", p)
	}
	env := get(t, p.Port, "/environ")
	for _, want := range []string{`"SECRET=hush hush"`, `"SPT_NOENV=1"`, fmt.Sprintf(`"FROM_RECIPE=port=%d"`, p.Port), `"RBEE_WORKER=`} {
		if !strings.Contains(env, want) {
			t.Errorf("environment = %s, want %s in it", env, want)
		}
	}
	if got := get(t, p.Port, "/pid"); got != fmt.Sprint(p.PID) {
		t.Errorf("serving process = %s, want %d", got, p.PID)
	}
	if mode := fileMode(t, m.path(p.ID)); mode != 0o600 {
		t.Errorf("mode of the record = %o, want 600", mode)
	}
	for _, ref := range []operations.WorkerRef{{ID: p.ID}, {ID: p.ID[:7]}, {PID: p.PID}} {
		if got, err := m.Get(ref); err != nil || got.ID != p.ID {
			t.Errorf("Get(%+v) = %+v, %v, want worker %s", ref, got, err, p.ID)
		}
	}
	stopped, err := m.Stop(t.Context(), operations.WorkerRef{PID: p.PID}, StopOptions{})
	if err != nil || stopped.Worker.State != operations.WorkerStopped || stopped.Killed || stopped.Outcome() != operations.OutcomeOK {
		t.Fatalf("Stop() = %+v, %v, want a stopped worker that was not killed", stopped, err)
	}
	if !hasExited(p.PID) {
		t.Errorf("process %d still runs after Stop(), want it exited", p.PID)
	}
	if list := m.List(false); len(list) != 0 {
		t.Errorf("List(false) after Stop = %+v, want none", list)
	}
	if list := m.List(true); len(list) != 1 || list[0].PID != 0 {
		t.Errorf("List(true) after Stop = %+v, want one worker without process", list)
	}
	if second, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{}); err != nil || second.Worker.State != operations.WorkerStopped {
		t.Errorf("second Stop() = %+v, %v, want a stopped worker", second, err)
	}
}

func fileMode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestEngineCrashesAtStart(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	p := trySpawn(t, m, "crash")
	if p.State != operations.WorkerFailed || p.ExitStatus == nil || *p.ExitStatus != 3 || !p.RestartAt.IsZero() {
		t.Fatalf("Spawn() = %+v, want a failed worker with exit status 3 and no restart", p)
	}
	if !strings.Contains(p.Problem, "exit status 3") || !slices.Contains(p.LogTail, "CUDA error: out of memory") {
		t.Errorf("problem = %q, log = %q, want exit status 3 and the engine's error", p.Problem, p.LogTail)
	}
	stopped, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
	if err != nil || stopped.Worker.State != operations.WorkerStopped {
		t.Errorf("Stop() of the failed worker = %+v, %v, want it stopped", stopped, err)
	}
}

// TestConcurrentStopOfFailedWorker checks that concurrent stops of a failed worker all
// succeed, and that it enters the state stopped once.
func TestConcurrentStopOfFailedWorker(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	o := testOptions(t.TempDir())
	o.Log = slog.New(slog.NewTextHandler(&log, nil)) // the handler serializes writes
	m := newManager(t, o)
	p := trySpawn(t, m, "crash")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
			if err != nil || r.Worker.State != operations.WorkerStopped {
				t.Errorf("Stop() = %+v, %v, want a stopped worker", r, err)
			}
		})
	}
	all.Wait()
	if strings.Contains(log.String(), "level=ERROR") || strings.Count(log.String(), "state=stopped") != 1 {
		t.Errorf("log = %s, want no error and one transition to stopped", log.String())
	}
}

func TestStalledLoadFails(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Timing.StallTimeout = stall
	m := newManager(t, o)
	p := trySpawn(t, m, "hang")
	if p.State != operations.WorkerFailed || !strings.Contains(p.Problem, "no change in its log or memory") {
		t.Fatalf("Spawn() = %+v, want a failed worker without progress", p)
	}
	if len(memberPIDs(t, m, p.ID)) > 0 {
		t.Errorf("processes of the failed worker = %v, want none", memberPIDs(t, m, p.ID))
	}
}

// TestSlowLoad checks that loading may take longer than the stall timeout while the log grows.
func TestSlowLoad(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Timing.StallTimeout = stall
	m := newManager(t, o)
	if p := spawn(t, m, "slow-load"); p.ReadyAt.Sub(p.StartedAt) < stall {
		t.Fatalf("Spawn() = %+v, want it to take at least %s", p, stall)
	}
}

func TestSpawnErrors(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Devices = func(context.Context) ([]gpu.Device, error) { return nil, nil }
	m := newManager(t, o)
	busy, port := listenAnyPort(t)
	defer busy.Close()
	for _, c := range []struct {
		name string
		op   operations.WorkerSpawn
		want string
	}{
		{"worker not installed", operations.WorkerSpawn{Worker: "other", Model: "serve"}, "not installed"},
		{"port in use", operations.WorkerSpawn{Worker: "fake", Model: "serve", Port: port}, fmt.Sprintf("cannot use port %d", port)},
		{"unknown device", operations.WorkerSpawn{Worker: "fake", Model: "serve", Device: "3"}, "3"},
	} {
		_, err := m.Spawn(t.Context(), c.op, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Spawn() = %v, want an error with %q", c.name, err, c.want)
		}
	}
	if list := m.List(true); len(list) != 0 {
		t.Errorf("List(true) after failed starts = %+v, want none", list)
	}
	if entries, _ := os.ReadDir(m.o.Dir); len(entries) != 0 {
		t.Errorf("files after failed starts = %v, want none", entries)
	}
	first := spawn(t, m, "serve")
	if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "serve", Port: first.Port}, nil); err == nil || !strings.Contains(err.Error(), first.ID) {
		t.Errorf("Spawn() with the port of worker %s = %v, want an error with its ID", first.ID, err)
	}
}

// TestMissingProgram checks that the error for a missing program contains its path.
func TestMissingProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := testOptions(dir)
	o.Engine = func(context.Context, string) (engine.Engine, error) {
		return engine.Engine{Entry: filepath.Join(dir, "nothing")}, nil
	}
	m := newManager(t, o)
	if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "m"}, nil); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("Spawn() = %v, want an error with the path of the program", err)
	}
}

func TestStopKillsAfterGracePeriod(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	p := spawn(t, m, "ignore-sigterm")
	r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{Grace: 50 * time.Millisecond})
	if err != nil || !r.Killed || !hasExited(p.PID) {
		t.Errorf("Stop() = %+v, %v, want the process killed", r, err)
	}
}

// TestForceWhileDraining checks that a second stop with force does not wait for the grace
// period of the first.
func TestForceWhileDraining(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	p := spawn(t, m, "ignore-sigterm")
	gentle := make(chan *operations.WorkerDeleteReport, 1)
	go func() {
		r, err := m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{Grace: time.Hour})
		if err != nil {
			t.Errorf("first Stop() = %v, want nil", err)
		}
		gentle <- r
	}()
	waittest.Until(t, "the worker to drain", func() bool {
		got, err := m.Get(operations.WorkerRef{ID: p.ID})
		return err == nil && got.State == operations.WorkerDraining
	})
	r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{Force: true})
	if err != nil || !r.Killed || r.Worker.State != operations.WorkerStopped || !hasExited(p.PID) {
		t.Errorf("Stop() with force = %+v, %v, want a stopped worker that was killed", r, err)
	}
	if r := <-gentle; r.Worker.State != operations.WorkerStopped {
		t.Errorf("first Stop() = %+v, want a stopped worker", r)
	}
}

// TestAllProcessesAreStopped checks that all processes of a worker exit when it is stopped
// and when its leader is killed.
func TestAllProcessesAreStopped(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(m *Manager, p operations.WorkerProcess){
		"stopped": func(m *Manager, p operations.WorkerProcess) {
			_, _ = m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{Grace: 50 * time.Millisecond})
		},
		"forced": func(m *Manager, p operations.WorkerProcess) {
			_, _ = m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{Force: true})
		},
		"leader killed": func(_ *Manager, p operations.WorkerProcess) {
			if proc, err := os.FindProcess(p.PID); err == nil {
				_ = proc.Kill()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t.TempDir())
			o.Timing.KillTimeout, o.Timing.Backoff = 300*time.Millisecond, []time.Duration{time.Hour}
			m := newManager(t, o)
			p := spawn(t, m, "tree")
			pids := memberPIDs(t, m, p.ID)
			if len(pids) != 3 {
				t.Fatalf("member pids = %v, want 3", pids)
			}
			end(m, p)
			waittest.Until(t, "all processes to exit", func() bool {
				return !slices.ContainsFunc(pids, func(pid int) bool { return !hasExited(pid) })
			})
			if name == "leader killed" {
				waittest.Until(t, "the worker to fail", func() bool {
					got, err := m.Get(operations.WorkerRef{ID: p.ID})
					return err == nil && got.State == operations.WorkerFailed && strings.Contains(got.Problem, "signal 9") && !got.RestartAt.IsZero()
				})
			}
		})
	}
}

func TestRestartWithBackoff(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	p := spawn(t, m, "once")
	_, _ = httpGet(p.Port, "/exit")
	waittest.Until(t, "three restarts", func() bool {
		got, err := m.Get(operations.WorkerRef{ID: p.ID})
		return err == nil && got.Restarts >= 3 && got.ExitStatus != nil && *got.ExitStatus == 9
	})
	r := mustFind(t, m, p.ID).record()
	if r.Failures < 3 {
		t.Errorf("failures = %d, want at least 3", r.Failures)
	}
	if _, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{}); err != nil {
		t.Errorf("Stop() = %v, want nil", err)
	}
}

func TestRestartServesAgain(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	p := spawn(t, m, "serve")
	_, _ = httpGet(p.Port, "/exit")
	waittest.Until(t, "the worker to serve again", func() bool {
		got, err := m.Get(operations.WorkerRef{ID: p.ID})
		return err == nil && got.State == operations.WorkerReady && got.PID != p.PID && got.Restarts == 1
	})
}

func mustFind(t *testing.T, m *Manager, id string) *worker {
	t.Helper()
	w, err := m.find(operations.WorkerRef{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestPortUsedByOtherProcess checks that a worker whose port another process uses is
// restarted with another port, and that the other process is not mistaken for the worker.
func TestPortUsedByOtherProcess(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	m := newManager(t, o)
	var once sync.Once
	m.testHook = func(point string) {
		if point != "before process" {
			return
		}
		once.Do(func() {
			list := m.List(false)
			if err := serveOnPort(t, mustFind(t, m, list[0].ID).record().Port); err != nil {
				t.Errorf("cannot listen on the worker's port: %v", err)
			}
		})
	}
	p := spawn(t, m, "serve")
	if p.Restarts != 1 || get(t, p.Port, "/pid") != fmt.Sprint(p.PID) {
		t.Errorf("Spawn() = %+v, want one restart and the worker on its port", p)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	p := spawn(t, m, "serve")
	port, end, err := m.BeginRequest(p.ID)
	if err != nil || port != p.Port {
		t.Fatalf("BeginRequest(%q) = %d, %v, want %d", p.ID, port, err, p.Port)
	}
	if got, _ := m.Get(operations.WorkerRef{ID: p.ID}); got.Requests != 1 {
		t.Errorf("requests = %d, want 1", got.Requests)
	}
	done := make(chan error, 1)
	go func() {
		_, err := m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{})
		done <- err
	}()
	waittest.Until(t, "the worker to drain", func() bool {
		got, _ := m.Get(operations.WorkerRef{ID: p.ID})
		return got.State == operations.WorkerDraining
	})
	if _, _, err := m.BeginRequest(p.ID); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("BeginRequest() while draining = %v, want an error", err)
	}
	if hasExited(p.PID) {
		t.Error("the process exited during a request, want it to finish the request")
	}
	end()
	if err := <-done; err != nil {
		t.Errorf("Stop() = %v, want nil", err)
	}
}

func TestCanceledSpawn(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Timing.StallTimeout = time.Hour
	m := newManager(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	var pids []int
	_, err := m.Spawn(ctx, operations.WorkerSpawn{Worker: "fake", Model: "tree-loading"}, func(e operations.Event) {
		if e.Type == operations.EventWorker && e.Worker.State == operations.WorkerLoading {
			go func() {
				waittest.Until(t, "a second process", func() bool { pids = memberPIDs(t, m, e.Worker.ID); return len(pids) == 2 })
				cancel()
			}()
		}
	})
	if operations.CodeOf(err) != operations.CodeCanceled {
		t.Errorf("Spawn() = %v, want code %s", err, operations.CodeCanceled)
	}
	if len(pids) != 2 || slices.ContainsFunc(pids, func(pid int) bool { return !hasExited(pid) }) {
		t.Errorf("processes %v after a canceled Spawn(), want 2 that have exited", pids)
	}
}

func TestDetach(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Timing.StallTimeout = time.Hour
	m := newManager(t, o)
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "hang", Detach: true}, nil)
	if err != nil || r.Worker.State != operations.WorkerLoading || r.Outcome() != operations.OutcomeOK {
		t.Errorf("Spawn() with Detach = %+v, %v, want a loading worker", r, err)
	}
}

// TestTransitions checks that every state is in the table and can lead to draining.
func TestTransitions(t *testing.T) {
	t.Parallel()
	for from, to := range transitions {
		if from != operations.WorkerStopped && from != operations.WorkerDraining && !slices.Contains(to, operations.WorkerDraining) {
			t.Errorf("transitions[%s] = %v, want draining in it", from, to)
		}
		for _, next := range to {
			if _, ok := transitions[next]; !ok {
				t.Errorf("transitions[%s] has state %s, want a state of the table", from, next)
			}
		}
	}
	if len(transitions) != 6 {
		t.Errorf("transitions has %d states, want 6", len(transitions))
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	for _, ref := range []operations.WorkerRef{{ID: "x"}, {PID: os.Getpid()}, {PID: 1}} {
		_, err := m.Stop(t.Context(), ref, StopOptions{})
		if operations.CodeOf(err) != operations.CodeNotFound {
			t.Errorf("Stop(%+v) = %v, want code %s", ref, err, operations.CodeNotFound)
		}
	}
	if _, err := m.Logs(t.Context(), operations.WorkerProcessLogs{WorkerRef: operations.WorkerRef{ID: "x"}}, nil); operations.CodeOf(err) != operations.CodeNotFound {
		t.Errorf("Logs(x) = %v, want code %s", err, operations.CodeNotFound)
	}
	if _, _, err := m.BeginRequest("x"); operations.CodeOf(err) != operations.CodeNotFound {
		t.Errorf("BeginRequest(x) = %v, want code %s", err, operations.CodeNotFound)
	}
}

// TestPruneRecords checks that the number of records of stopped workers is limited.
func TestPruneRecords(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	for i := range maxTerminalRecords + 5 {
		r := &record{
			ID: fmt.Sprintf("old-%d", i), Marker: "m", Boot: m.boot, State: operations.WorkerStopped,
			CreatedAt: time.Now().Add(time.Duration(i) * time.Second),
		}
		w := m.add(r)
		close(w.done)
		if err := w.save(); err != nil {
			t.Fatal(err)
		}
	}
	spawn(t, m, "serve")
	if _, err := m.Get(operations.WorkerRef{ID: "old-0"}); err == nil {
		t.Error("Get(old-0) = nil, want an error: the oldest worker must be removed")
	}
	if list := m.List(true); len(list) != maxTerminalRecords+1 {
		t.Errorf("len(List(true)) = %d, want %d", len(list), maxTerminalRecords+1)
	}
	if entries, _ := filepath.Glob(filepath.Join(m.o.Dir, "*.json")); len(entries) != maxTerminalRecords+1 {
		t.Errorf("record files = %d, want %d", len(entries), maxTerminalRecords+1)
	}
}

// TestModelPath checks that an engine whose recipe uses the model's path gets it, and that
// the start fails without the model.
func TestModelPath(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	inner := o.Engine
	o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
		e, err := inner(ctx, typ)
		e.Launch.Args = []string{"engine", "{port}", "serve", "{model_path}", "{context}"}
		return e, err
	}
	o.Model = func(_ context.Context, model string, _ int) (engine.Model, error) {
		if model != "org/repo" {
			return engine.Model{}, notFound(operations.ReasonModelNotFound, model, "model %s is not on this hive", model)
		}
		return engine.Model{ID: "org/repo:main", Path: "/models/a b"}, nil
	}
	m := newManager(t, o)
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "org/repo", ContextLength: 4096}, nil)
	if err != nil || !slices.Equal(r.Worker.Argv[4:], []string{"/models/a b", "4096"}) || r.Worker.ModelID != "org/repo:main" {
		t.Errorf("Spawn() = %+v, %v, want the model path and context in argv", r, err)
	}
	if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "org/other"}, nil); operations.CodeOf(err) != operations.CodeNotFound {
		t.Errorf("Spawn() with an unknown model = %v, want code %s", err, operations.CodeNotFound)
	}
}

// TestEngineMovesDuringStart checks that the program is recorded before the start waits for
// the model, and that the worker runs the program that Engine returned last.
func TestEngineMovesDuringStart(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	inner := o.Engine
	var found, recorded []string // program of each call of Engine, and recorded program at each call
	programs := func() string {
		list, err := Programs(o.Dir, "fake")
		if err != nil {
			t.Errorf("Programs() = %v, want nil", err)
		}
		return strings.Join(list, ",")
	}
	o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
		recorded = append(recorded, programs())
		e, err := inner(ctx, typ)
		if len(found) > 0 { // as if an installation ran since the last call
			moved := filepath.Join(filepath.Dir(o.Dir), "moved")
			if err := os.Symlink(e.Entry, moved); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Errorf("Symlink(%s) = %v, want nil", moved, err)
			}
			e.Entry, e.Version = moved, "2.0"
		}
		found = append(found, e.Entry)
		e.Launch.Args = append(e.Launch.Args, "{model_path}")
		return e, err
	}
	o.Model = func(context.Context, string, int) (engine.Model, error) {
		recorded = append(recorded, programs())
		return engine.Model{Path: "/m"}, nil
	}
	p := spawn(t, newManager(t, o), "serve")
	if len(found) != 3 || p.Argv[0] != found[2] || p.Version != "2.0" {
		t.Fatalf("found programs = %q, worker = %+v, want the third program", found, p)
	}
	if want := []string{"", found[0], found[1], found[2]}; !slices.Equal(recorded, want) {
		t.Errorf("recorded programs = %q, want %q", recorded, want)
	}
}
