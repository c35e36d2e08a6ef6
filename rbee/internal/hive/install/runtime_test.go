package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// installWithWorker puts rbee and a worker of shell into a home and starts the
// daemon.
func installWithWorker(t *testing.T) (h *Hive, c *client.Client) {
	t.Helper()
	h = newHive(t)
	port := unusedPort(t)
	t.Cleanup(func() {
		ctx := context.Background()
		_ = h.stopWorkers(ctx, "")
		_, _ = h.Stop(ctx)
	})
	res := apply(t, h, &wire.Request{
		Settings: &wire.Settings{Alias: "a", HivePort: port}, Steps: []wire.Step{self(t, h), workerStep(t), {Action: wire.ActionStart}},
	}, workerProgram(t))
	if strings.Join(res.Errors, "") != "" || !res.State.Daemon.Running {
		t.Fatalf("%q, %+v", res.Errors, res.State.Daemon)
	}
	h.Exe = h.Path(wire.Binary)
	return h, newClient(t, h, port)
}

func newClient(t *testing.T, h *Hive, port int) *client.Client {
	t.Helper()
	token, err := h.Token()
	if err != nil {
		t.Fatal(err)
	}
	return &client.Client{URL: "http://" + control.Loopback(port), Token: operations.Secret(token)}
}

// workerProgram is this test binary, which as "engine" is a worker (TestMain).
func workerProgram(t *testing.T) []byte {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []byte("#!/bin/sh\nexec '" + exe + "' engine \"$@\"\n")
}

func workerStep(t *testing.T) wire.Step {
	t.Helper()
	program := workerProgram(t)
	step := worker("1.0", "", program)
	step.Worker.Type, step.Worker.Requested = "fake", "1.0"
	step.Worker.Launch = &wire.Launch{Args: []string{"{port}", "{model}"}, ReadyPath: "/health", ReadyStatus: 200, GraceSeconds: 5}
	return step
}

var hiveTarget = operations.Target{HiveID: "a"}

func run[R operations.Report](t *testing.T, c *client.Client, op operations.Operation) R {
	t.Helper()
	r, err := c.Run(t.Context(), op, nil)
	if err != nil {
		t.Fatalf("%s: %v", op.Kind(), err)
	}
	return r.(R)
}

// TestDaemonRuntime drives a daemon in a process of its own over HTTP:
// a worker is spawned, asked through the hive, survives the daemon's violent end,
// is taken over, and ends with the hive's removal.
func TestDaemonRuntime(t *testing.T) {
	t.Parallel()
	h, c := installWithWorker(t)
	w := run[*operations.WorkerSpawnReport](t, c, operations.WorkerSpawn{Target: hiveTarget, Worker: "fake", Model: "m"}).Worker
	if w.State != operations.WorkerReady || w.Version != "1.0" {
		t.Fatalf("worker %+v", w)
	}
	ask := func(id, path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL+"/v1/workers/"+id+"/proxy"+path, strings.NewReader("the body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+string(c.Token))
		req.Header.Set("X-Request-Id", "id-7")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if code, body := ask(w.ID, "/mirror/a%2Fb?x=1"); code != http.StatusOK || body != "POST /mirror/a%2Fb?x=1 auth= the body" {
		t.Errorf("through the hive: %d %q", code, body)
	}
	waitUntil(t, "the request in the log", func() bool {
		log, err := os.ReadFile(h.Path(home.LogFile))
		return err == nil && strings.Contains(string(log), "msg=request worker="+w.ID+" request=id-7 path=mirror/a/b status=200 complete=true took=")
	})
	if code, body := ask("fake-none", "/"); code != http.StatusNotFound || !strings.Contains(body, `"not_found"`) {
		t.Errorf("no such worker: %d %s", code, body)
	}
	bare := *c
	bare.Token = ""
	if _, err := bare.Run(t.Context(), operations.WorkerProcessList{Target: hiveTarget}, nil); err == nil {
		t.Error("a job without the token")
	}
	resp, err := http.Post(c.URL+"/v1/workers/"+w.ID+"/proxy/mirror", "", nil)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a worker without the token: %v, %v", resp, err)
	}

	// The daemon dies by force and comes again.
	var rec control.Record
	if err := readRecord(h, &rec); err != nil || rec.Signal(9) != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the daemon to be gone", func() bool { return !rec.Alive() })
	if _, err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = newClient(t, h, rec.Port)
	list := run[*operations.WorkerListReport](t, c, operations.WorkerProcessList{Target: hiveTarget}).Workers
	if len(list) != 1 || list[0].PID != w.PID || !list[0].Adopted || list[0].State != operations.WorkerReady {
		t.Fatalf("taken over: %+v", list)
	}
	if code, body := ask(w.ID, "/mirror"); code != http.StatusOK {
		t.Errorf("after it was taken over: %d %s", code, body)
	}

	// What is used cannot be cleaned away; removing the type ends its processes.
	other := workerStep(t)
	other.Worker.Version, other.Worker.Requested = "2.0", "2.0"
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{other}}, workerProgram(t)); res.Errors[0] != "" {
		t.Fatal(res.Errors)
	}
	if _, err := os.Stat(h.BuildDir("fake", "1.0")); err != nil {
		t.Errorf("the running version went: %v", err)
	}
	res := apply(t, h, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveWorker, Worker: &wire.WorkerInstall{Type: "fake"}}}}, nil)
	if res.Errors[0] != "" {
		t.Fatal(res.Errors)
	}
	if _, err := proc.Identify(w.PID); err == nil {
		t.Error("a process of a removed type lives on")
	}
	if _, err := os.Stat(h.BuildDir("fake", "1.0")); err == nil {
		t.Error("the files of a removed type stay")
	}
}

// TestReplaceRunningWorker holds that a worker goes on with the files that
// it was started from when its version is installed with other content, that new
// ones get the new content, and that the old goes with the last that needs it.
func TestReplaceRunningWorker(t *testing.T) {
	t.Parallel()
	h, c := installWithWorker(t)
	ref := func(w operations.WorkerProcess) operations.WorkerRef { return operations.WorkerRef{ID: w.ID} }
	spawn := func() operations.WorkerProcess {
		t.Helper()
		return run[*operations.WorkerSpawnReport](t, c, operations.WorkerSpawn{Target: hiveTarget, Worker: "fake", Model: "m"}).Worker
	}
	put := func(version, comment string, force bool) {
		t.Helper()
		data := append(workerProgram(t), "#"+comment...)
		step := worker(version, "", data)
		step.Worker.Type, step.Worker.Launch, step.Worker.Force = "fake", workerStep(t).Worker.Launch, force
		res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, data)
		if w := res.State.Workers[0]; res.Errors[0] != "" || w.Version != version || w.Corrupt != "" {
			t.Fatalf("%q, %+v", res.Errors, w)
		}
	}
	builds := func(want ...string) {
		t.Helper()
		dirs, err := filepath.Glob(h.Path("workers/fake/[0-9]*"))
		for i := range dirs {
			dirs[i] = filepath.Base(dirs[i])
		}
		if err != nil || !slices.Equal(dirs, want) {
			t.Errorf("there are %q, want %q", dirs, want)
		}
	}
	put("0.9", "before", false)
	put("1.0", "one", false) // while the usual name was that of the version before
	builds("0.9", "1.0@2")
	one := spawn()
	before, err := os.ReadFile(one.Argv[0])
	if err != nil {
		t.Fatal(err)
	}
	same := func(when string) {
		t.Helper()
		if now, err := os.ReadFile(one.Argv[0]); err != nil || !bytes.Equal(now, before) {
			t.Errorf("%s: the running worker's file is %q, %v", when, now, err)
		}
	}
	put("1.0", "two", false)
	same("another content")
	builds("0.9", "1.0", "1.0@2")
	two := spawn()
	if two.Version != "1.0" || !strings.HasPrefix(two.Argv[0], h.BuildDir("fake", "1.0")+"/") {
		t.Errorf("the new worker: %+v", two)
	}
	put("1.0", "two", true)
	same("installed again")
	builds("0.9", "1.0", "1.0@2", "1.0@3")
	put("1.0", "one", false) // that lies there still
	same("back again")
	builds("0.9", "1.0", "1.0@2")

	// A rollback is to another version, not to another content.
	rollback := wire.Step{Action: wire.ActionRollback, Worker: &wire.WorkerInstall{Type: "fake"}}
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{rollback}}, nil); res.Errors[0] != "" || res.State.Workers[0].Version != "0.9" || res.State.Workers[0].Previous != "1.0" {
		t.Errorf("%q, %+v", res.Errors, res.State.Workers)
	}
	same("rolled back")
	put("1.0", "two", false)
	builds("0.9", "1.0", "1.0@2")
	for _, w := range []operations.WorkerProcess{one, two} {
		run[*operations.WorkerDeleteReport](t, c, operations.WorkerProcessDelete{Target: hiveTarget, WorkerRef: ref(w)})
	}
	// Nothing runs: everything goes but what is installed and the version before.
	put("1.0", "three", false)
	builds("0.9", "1.0@2")
	put("1.0", "four", false)
	builds("0.9", "1.0")
}

func readRecord(h *Hive, rec *control.Record) error {
	if d := h.State(context.Background()); !d.Running {
		return errors.New(d.Problem)
	}
	data, err := os.ReadFile(h.Path(home.DaemonFile))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, rec)
}

// TestUninstallStopsWorkers holds that an uninstall leaves no process behind, whether
// the daemon runs or not.
func TestUninstallStopsWorkers(t *testing.T) {
	t.Parallel()
	h, c := installWithWorker(t)
	w := run[*operations.WorkerSpawnReport](t, c, operations.WorkerSpawn{Target: hiveTarget, Worker: "fake", Model: "m"}).Worker
	res := apply(t, h, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveSelf}}}, nil)
	if res.Errors[0] != "" {
		t.Fatal(res.Errors)
	}
	if _, err := proc.Identify(w.PID); err == nil {
		t.Error("a worker lives on")
	}
	if _, err := os.Stat(h.Root); err == nil {
		t.Errorf("left: %v", h.leftovers())
	}
}

// TestStopDaemonCancelsJobs holds that a daemon which is told to stop does so
// although somebody follows a log.
func TestStopDaemonCancelsJobs(t *testing.T) {
	t.Parallel()
	h, c := installWithWorker(t)
	w := run[*operations.WorkerSpawnReport](t, c, operations.WorkerSpawn{Target: hiveTarget, Worker: "fake", Model: "m"}).Worker
	c.Retry = -1
	lines, done := make(chan string, 10), make(chan error, 1)
	go func() {
		_, err := c.Run(context.Background(), operations.WorkerProcessLogs{
			Target: hiveTarget, WorkerRef: operations.WorkerRef{ID: w.ID}, Follow: true,
		}, func(e operations.Event) { lines <- e.Text })
		done <- err
	}()
	if line := <-lines; !strings.Contains(line, w.ID) {
		t.Errorf("line %q", line)
	}
	start := time.Now()
	if _, err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > control.StopTimeout {
		t.Errorf("stopping took %s: it was killed", took)
	}
	<-done
}

// TestStopDaemonKeepsLoadingWorker holds that a worker which loads is no part of the
// daemon that started it: the next one goes on waiting for it.
func TestStopDaemonKeepsLoadingWorker(t *testing.T) {
	t.Parallel()
	h, c := installWithWorker(t)
	c.Retry = -1
	loading, done := make(chan operations.WorkerProcess, 1), make(chan error, 1)
	go func() {
		_, err := c.Run(context.Background(), operations.WorkerSpawn{Target: hiveTarget, Worker: "fake", Model: "endless"}, func(e operations.Event) {
			if e.Worker != nil && e.Worker.State == operations.WorkerLoading {
				loading <- *e.Worker
			}
		})
		done <- err
	}()
	w := <-loading
	if _, err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the one who waited was told that all is well")
	}
	if _, err := proc.Identify(w.PID); err != nil {
		t.Fatalf("the worker ended with the daemon: %v", err)
	}
	if _, err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := run[*operations.WorkerListReport](t, newClient(t, h, h.State(t.Context()).Port), operations.WorkerProcessList{Target: hiveTarget}).Workers
	if len(list) != 1 || list[0].PID != w.PID || !list[0].Adopted || list[0].State != operations.WorkerLoading {
		t.Errorf("taken over: %+v", list)
	}
}

// fakeEngine is the worker of these tests.
func fakeEngine(port, model string) {
	if model == "endless" {
		select {}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/mirror/", mirror)
	mux.HandleFunc("/mirror", mirror)
	fmt.Println(http.ListenAndServe("127.0.0.1:"+port, mux))
	os.Exit(1)
}

func mirror(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s auth=%s %s", r.Method, r.RequestURI, r.Header.Get("Authorization"), bytes.TrimSpace(body))
}
