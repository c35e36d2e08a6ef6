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
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
)

func TestSpawnServeStop(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
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
		t.Fatalf("spawned %+v", p)
	}
	if last := states[len(states)-1]; last != operations.WorkerReady || states[0] != operations.WorkerStarting {
		t.Errorf("states told: %v", states)
	}
	if want := []string{"--flag", "two words; $(echo)"}; !slices.Equal(p.Argv[len(p.Argv)-2:], want) {
		t.Errorf("argv %q", p.Argv)
	}
	if strings.Contains(fmt.Sprintf("%+v", p), "hush") || !slices.Equal(p.EnvNames, []string{"SECRET"}) {
		t.Errorf("the environment is told: %+v", p)
	}
	env := get(t, p.Port, "/environ")
	for _, want := range []string{`"SECRET=hush hush"`, `"SPT_NOENV=1"`, fmt.Sprintf(`"FROM_RECIPE=port=%d"`, p.Port), `"RBEE_WORKER=`} {
		if !strings.Contains(env, want) {
			t.Errorf("the environment %s has no %s", env, want)
		}
	}
	if got := get(t, p.Port, "/pid"); got != fmt.Sprint(p.PID) {
		t.Errorf("the worker is process %s, not %d", got, p.PID)
	}
	if mode := fileMode(t, m.path(p.ID)); mode != 0o600 {
		t.Errorf("the record has mode %o", mode)
	}
	for _, ref := range []operations.WorkerRef{{ID: p.ID}, {ID: p.ID[:7]}, {PID: p.PID}} {
		if got, err := m.Get(ref); err != nil || got.ID != p.ID {
			t.Errorf("%+v: %+v, %v", ref, got, err)
		}
	}
	stopped, err := m.Stop(t.Context(), operations.WorkerRef{PID: p.PID}, StopOptions{})
	if err != nil || stopped.Worker.State != operations.WorkerStopped || stopped.Killed || stopped.Outcome() != operations.OutcomeOK {
		t.Fatalf("stopped %+v, %v", stopped, err)
	}
	if !gone(p.PID) {
		t.Error("the process lives on")
	}
	if list := m.List(false); len(list) != 0 {
		t.Errorf("still listed: %+v", list)
	}
	if list := m.List(true); len(list) != 1 || list[0].PID != 0 {
		t.Errorf("remembered: %+v", list)
	}
	if again, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{}); err != nil || again.Worker.State != operations.WorkerStopped {
		t.Errorf("stopped again: %+v, %v", again, err)
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

func TestEngineThatDiesAtOnce(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
	p := try(t, m, "dies")
	if p.State != operations.WorkerFailed || p.ExitStatus == nil || *p.ExitStatus != 3 || !p.RestartAt.IsZero() {
		t.Fatalf("worker %+v", p)
	}
	if !strings.Contains(p.Problem, "exit status 3") || !slices.Contains(p.LogTail, "CUDA error: out of luck") {
		t.Errorf("problem %q, log %q", p.Problem, p.LogTail)
	}
	stopped, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
	if err != nil || stopped.Worker.State != operations.WorkerStopped {
		t.Errorf("put away: %+v, %v", stopped, err)
	}
}

// TestManyPutItAway holds that several who stop a worker that has failed for good
// at once are all told that it is stopped, and that it takes each step once.
func TestManyPutItAway(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	o := options(t.TempDir())
	o.Log = slog.New(slog.NewTextHandler(&log, nil)) // which locks
	m := manager(t, o)
	p := try(t, m, "dies")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
			if err != nil || r.Worker.State != operations.WorkerStopped {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	all.Wait()
	if strings.Contains(log.String(), "level=ERROR") || strings.Count(log.String(), "state=stopped") != 1 {
		t.Errorf("%s", log.String())
	}
}

func TestEngineThatNeverBecomesReady(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.Times.Stall = stall
	m := manager(t, o)
	p := try(t, m, "silent")
	if p.State != operations.WorkerFailed || !strings.Contains(p.Problem, "neither its log nor its memory moved") {
		t.Fatalf("worker %+v", p)
	}
	if len(marked(t, m, p.ID)) > 0 {
		t.Error("its process lives on")
	}
}

// TestSlowLoad holds that a load may take longer than the limit of silence, as
// long as it says something.
func TestSlowLoad(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.Times.Stall = stall
	m := manager(t, o)
	if p := spawn(t, m, "chatty"); p.ReadyAt.Sub(p.StartedAt) < stall {
		t.Fatalf("worker %+v", p)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.Devices = func(context.Context) ([]gpu.Device, error) { return nil, nil }
	m := manager(t, o)
	busy, port := freePort(t)
	defer busy.Close()
	for _, c := range []struct {
		op   operations.WorkerSpawn
		want string
	}{
		{operations.WorkerSpawn{Worker: "other", Model: "serve"}, "not installed"},
		{operations.WorkerSpawn{Worker: "fake", Model: "serve", Port: port}, fmt.Sprintf("port %d cannot be had", port)},
		{operations.WorkerSpawn{Worker: "fake", Model: "serve", Device: "3"}, "3"},
	} {
		_, err := m.Spawn(t.Context(), c.op, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.op, err)
		}
	}
	if list := m.List(true); len(list) != 0 {
		t.Errorf("refusals left %+v", list)
	}
	if entries, _ := os.ReadDir(m.o.Dir); len(entries) != 0 {
		t.Errorf("refusals left files: %v", entries)
	}
	first := spawn(t, m, "serve")
	if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "serve", Port: first.Port}, nil); err == nil || !strings.Contains(err.Error(), first.ID) {
		t.Errorf("the port of another worker: %v", err)
	}
}

// TestEntryThatCannotRun holds that a program which the system does not run is a
// refusal with its path.
func TestEntryThatCannotRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options(dir)
	o.Engine = func(context.Context, string) (engine.Engine, error) {
		return engine.Engine{Entry: filepath.Join(dir, "nothing")}, nil
	}
	m := manager(t, o)
	if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "m"}, nil); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("error %v", err)
	}
}

func TestStopKillsTheDeaf(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
	p := spawn(t, m, "deaf")
	r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{Grace: 50 * time.Millisecond})
	if err != nil || !r.Killed || !gone(p.PID) {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestForceWhileItDrains holds that somebody who has no more patience is heard.
func TestForceWhileItDrains(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
	p := spawn(t, m, "deaf")
	gentle := make(chan *operations.WorkerDeleteReport, 1)
	go func() {
		r, err := m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{Grace: time.Hour})
		if err != nil {
			t.Error(err)
		}
		gentle <- r
	}()
	eventually(t, "the worker to drain", func() bool {
		got, err := m.Get(operations.WorkerRef{ID: p.ID})
		return err == nil && got.State == operations.WorkerDraining
	})
	r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{Force: true})
	if err != nil || !r.Killed || r.Worker.State != operations.WorkerStopped || !gone(p.PID) {
		t.Errorf("%+v, %v", r, err)
	}
	if r := <-gentle; r.Worker.State != operations.WorkerStopped {
		t.Errorf("%+v", r)
	}
}

// TestNobodyIsLeft holds that the whole crowd of an engine ends with it: stopped,
// crashed, or killed.
func TestNobodyIsLeft(t *testing.T) {
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
			o := options(t.TempDir())
			o.Times.Kill, o.Times.Backoff = 300*time.Millisecond, []time.Duration{time.Hour}
			m := manager(t, o)
			p := spawn(t, m, "crowd")
			pids := marked(t, m, p.ID)
			if len(pids) != 3 {
				t.Fatalf("the crowd is %v", pids)
			}
			end(m, p)
			eventually(t, "the crowd to be gone", func() bool {
				return !slices.ContainsFunc(pids, func(pid int) bool { return !gone(pid) })
			})
			if name == "leader killed" {
				eventually(t, "the worker to have failed", func() bool {
					got, err := m.Get(operations.WorkerRef{ID: p.ID})
					return err == nil && got.State == operations.WorkerFailed && strings.Contains(got.Problem, "signal 9") && !got.RestartAt.IsZero()
				})
			}
		})
	}
}

func TestRestartWithBackoff(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
	p := spawn(t, m, "once")
	_, _ = httpGet(p.Port, "/exit")
	eventually(t, "three tries", func() bool {
		got, err := m.Get(operations.WorkerRef{ID: p.ID})
		return err == nil && got.Restarts >= 3 && got.ExitStatus != nil && *got.ExitStatus == 9
	})
	r := mustFind(t, m, p.ID).record()
	if r.Failures < 3 {
		t.Errorf("failures counted: %d", r.Failures)
	}
	if _, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{}); err != nil {
		t.Error(err)
	}
}

func TestRestartServesAgain(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
	p := spawn(t, m, "serve")
	_, _ = httpGet(p.Port, "/exit")
	eventually(t, "the worker to serve again", func() bool {
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

// TestPortStolen holds that a stranger who answers on the worker's port is not
// taken for the worker, and that another port is tried.
func TestPortStolen(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	m := manager(t, o)
	var once sync.Once
	m.reached = func(point string) {
		if point != "before process" {
			return
		}
		once.Do(func() {
			list := m.List(false)
			if err := steal(t, mustFind(t, m, list[0].ID).record().Port); err != nil {
				t.Error(err)
			}
		})
	}
	p := spawn(t, m, "serve")
	if p.Restarts != 1 || get(t, p.Port, "/pid") != fmt.Sprint(p.PID) {
		t.Errorf("worker %+v", p)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
	p := spawn(t, m, "serve")
	port, end, err := m.Begin(p.ID)
	if err != nil || port != p.Port {
		t.Fatal(port, err)
	}
	if got, _ := m.Get(operations.WorkerRef{ID: p.ID}); got.Requests != 1 {
		t.Errorf("requests: %d", got.Requests)
	}
	done := make(chan error, 1)
	go func() {
		_, err := m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{})
		done <- err
	}()
	eventually(t, "the worker to drain", func() bool {
		got, _ := m.Get(operations.WorkerRef{ID: p.ID})
		return got.State == operations.WorkerDraining
	})
	if _, _, err := m.Begin(p.ID); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("a new request: %v", err)
	}
	if gone(p.PID) {
		t.Error("ended under a request")
	}
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCanceledSpawn(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.Times.Stall = time.Hour
	m := manager(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	var pids []int
	_, err := m.Spawn(ctx, operations.WorkerSpawn{Worker: "fake", Model: "crowdloading"}, func(e operations.Event) {
		if e.Type == operations.EventWorker && e.Worker.State == operations.WorkerLoading {
			go func() {
				eventually(t, "a runaway", func() bool { pids = marked(t, m, e.Worker.ID); return len(pids) == 2 })
				cancel()
			}()
		}
	})
	if operations.CodeOf(err) != operations.CodeCanceled {
		t.Errorf("error %v", err)
	}
	if len(pids) != 2 || slices.ContainsFunc(pids, func(pid int) bool { return !gone(pid) }) {
		t.Errorf("processes %v", pids)
	}
}

func TestDetach(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.Times.Stall = time.Hour
	m := manager(t, o)
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "silent", Detach: true}, nil)
	if err != nil || r.Worker.State != operations.WorkerLoading || r.Outcome() != operations.OutcomeOK {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestFollowsIsWhole holds that every state is in the table and leads to its end.
func TestFollowsIsWhole(t *testing.T) {
	t.Parallel()
	for from, to := range follows {
		if from != operations.WorkerStopped && from != operations.WorkerDraining && !slices.Contains(to, operations.WorkerDraining) {
			t.Errorf("a worker that is %s cannot be stopped", from)
		}
		for _, next := range to {
			if _, ok := follows[next]; !ok {
				t.Errorf("%s leads to %s, which is not in the table", from, next)
			}
		}
	}
	if len(follows) != 6 {
		t.Errorf("%d states", len(follows))
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
	for _, ref := range []operations.WorkerRef{{ID: "x"}, {PID: os.Getpid()}, {PID: 1}} {
		_, err := m.Stop(t.Context(), ref, StopOptions{})
		if operations.CodeOf(err) != operations.CodeNotFound {
			t.Errorf("%+v: %v", ref, err)
		}
	}
	if _, err := m.Logs(t.Context(), operations.WorkerProcessLogs{WorkerRef: operations.WorkerRef{ID: "x"}}, nil); operations.CodeOf(err) != operations.CodeNotFound {
		t.Error(err)
	}
	if _, _, err := m.Begin("x"); operations.CodeOf(err) != operations.CodeNotFound {
		t.Error(err)
	}
}

// TestEndedAreForgotten holds that memory of workers that have ended is bounded.
func TestEndedAreForgotten(t *testing.T) {
	t.Parallel()
	m := manager(t, options(t.TempDir()))
	for i := range maxEnded + 5 {
		r := &record{
			ID: fmt.Sprintf("old-%d", i), Mark: "m", Boot: m.boot, State: operations.WorkerStopped,
			CreatedAt: time.Now().Add(time.Duration(i) * time.Second),
		}
		w := m.add(r)
		close(w.settled)
		if err := w.save(); err != nil {
			t.Fatal(err)
		}
	}
	p := spawn(t, m, "serve")
	if _, err := m.Get(operations.WorkerRef{ID: "old-0"}); err == nil {
		t.Error("the oldest is remembered")
	}
	if list := m.List(true); len(list) != maxEnded+1 {
		t.Errorf("%d are remembered", len(list))
	}
	if entries, _ := filepath.Glob(filepath.Join(m.o.Dir, "*.json")); len(entries) != maxEnded+1 {
		t.Errorf("%d records", len(entries))
	}
	_ = p
}

// TestModelPath holds that an engine whose recipe asks for a model's path gets it,
// and that without the model nothing is tried.
func TestModelPath(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
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
	m := manager(t, o)
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "org/repo", ContextLength: 4096}, nil)
	if err != nil || !slices.Equal(r.Worker.Argv[4:], []string{"/models/a b", "4096"}) || r.Worker.ModelID != "org/repo:main" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "org/other"}, nil); operations.CodeOf(err) != operations.CodeNotFound {
		t.Error(err)
	}
}

// TestEngineThatMovesWhileItStarts holds that a worker has its program on record
// before anything is waited for, and is started from where the program was found
// after that.
func TestEngineThatMovesWhileItStarts(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	inner := o.Engine
	var asked, onRecord []string // programs, by each time that the engine was looked for
	programs := func() string {
		list, err := Programs(o.Dir, "fake")
		if err != nil {
			t.Error(err)
		}
		return strings.Join(list, ",")
	}
	o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
		onRecord = append(onRecord, programs())
		e, err := inner(ctx, typ)
		if len(asked) > 0 { // an install came in between
			moved := filepath.Join(filepath.Dir(o.Dir), "moved")
			if err := os.Symlink(e.Entry, moved); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
			e.Entry, e.Version = moved, "2.0"
		}
		asked = append(asked, e.Entry)
		e.Launch.Args = append(e.Launch.Args, "{model_path}")
		return e, err
	}
	o.Model = func(context.Context, string, int) (engine.Model, error) {
		onRecord = append(onRecord, programs())
		return engine.Model{Path: "/m"}, nil
	}
	p := spawn(t, manager(t, o), "serve")
	if len(asked) != 3 || p.Argv[0] != asked[2] || p.Version != "2.0" {
		t.Fatalf("looked for at %q: %+v", asked, p)
	}
	if want := []string{"", asked[0], asked[1], asked[2]}; !slices.Equal(onRecord, want) {
		t.Errorf("on record were %q, want %q", onRecord, want)
	}
}
