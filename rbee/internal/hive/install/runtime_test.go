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
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// installWithWorker installs rbee and a worker type, and starts the daemon.
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
		t.Fatalf("install and start = %q, daemon %+v, want it running", res.Errors, res.State.Daemon)
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

// workerProgram returns a script that runs this test binary as a worker; see TestMain.
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
		t.Fatalf("Run(%s) = %v, want no error", op.Kind(), err)
	}
	return r.(R)
}

// TestDaemonRuntime checks a daemon in a separate process over HTTP. It spawns a worker and
// sends requests to it through the daemon. It then kills and restarts the daemon, which must
// adopt the worker. Finally, it removes the worker type.
func TestDaemonRuntime(t *testing.T) {
	t.Parallel()
	h, c := installWithWorker(t)
	w := run[*operations.WorkerSpawnReport](t, c, operations.WorkerSpawn{Target: hiveTarget, Worker: "fake", Model: "m"}).Worker
	if w.State != operations.WorkerReady || w.Version != "1.0" {
		t.Fatalf("spawned worker = %+v, want version 1.0 ready", w)
	}
	post := func(id, path string) (int, string) {
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
	if code, body := post(w.ID, "/mirror/a%2Fb?x=1"); code != http.StatusOK || body != "POST /mirror/a%2Fb?x=1 auth= the body" {
		t.Errorf("request to the worker = %d %q, want 200 with the unchanged path and no token", code, body)
	}
	waittest.Until(t, "the request is in the log", func() bool {
		log, err := os.ReadFile(h.Path(home.LogFile))
		return err == nil && strings.Contains(string(log), "msg=request worker="+w.ID+" request=id-7 path=mirror/a/b status=200 complete=true duration=")
	})
	if code, body := post("fake-none", "/"); code != http.StatusNotFound || !strings.Contains(body, `"not_found"`) {
		t.Errorf("request to an unknown worker = %d %s, want 404 not_found", code, body)
	}
	noToken := *c
	noToken.Token = ""
	if r, err := noToken.Run(t.Context(), operations.WorkerProcessList{Target: hiveTarget}, nil); err == nil {
		t.Errorf("job without the token = %+v, want an error", r)
	}
	resp, err := http.Post(c.URL+"/v1/workers/"+w.ID+"/proxy/mirror", "", nil)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("request to the worker without the token = %v, %v, want 401", resp, err)
	}

	// Kill and restart the daemon.
	var rec control.Record
	if err := readRecord(h, &rec); err != nil || rec.Signal(9) != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "the daemon has exited", func() bool { return !rec.Alive() })
	if _, err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = newClient(t, h, rec.Port)
	list := run[*operations.WorkerListReport](t, c, operations.WorkerProcessList{Target: hiveTarget}).Workers
	if len(list) != 1 || list[0].PID != w.PID || !list[0].Adopted || list[0].State != operations.WorkerReady {
		t.Fatalf("workers after the restart = %+v, want the worker adopted and ready", list)
	}
	if code, body := post(w.ID, "/mirror"); code != http.StatusOK {
		t.Errorf("request to the adopted worker = %d %s, want 200", code, body)
	}

	// An install keeps a build in use. Removing the type stops its processes.
	other := workerStep(t)
	other.Worker.Version, other.Worker.Requested = "2.0", "2.0"
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{other}}, workerProgram(t)); res.Errors[0] != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	if _, err := os.Stat(h.BuildDir("fake", "1.0")); err != nil {
		t.Errorf("Stat() of the build in use = %v, want it kept", err)
	}
	res := apply(t, h, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveWorker, Worker: &wire.WorkerInstall{Type: "fake"}}}}, nil)
	if res.Errors[0] != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	if _, err := proc.Identify(w.PID); err == nil {
		t.Errorf("process %d of the removed type is still running, want it stopped", w.PID)
	}
	if _, err := os.Stat(h.BuildDir("fake", "1.0")); err == nil {
		t.Errorf("%s exists after the removal of its type, want it removed", h.BuildDir("fake", "1.0"))
	}
}

// TestReplaceRunningWorker checks that a running worker keeps its build when another build of
// its version is installed, that new workers use the new build, and that the next install
// removes the old build when no worker uses it.
func TestReplaceRunningWorker(t *testing.T) {
	t.Parallel()
	h, c := installWithWorker(t)
	ref := func(w operations.WorkerProcess) operations.WorkerRef { return operations.WorkerRef{ID: w.ID} }
	spawn := func() operations.WorkerProcess {
		t.Helper()
		return run[*operations.WorkerSpawnReport](t, c, operations.WorkerSpawn{Target: hiveTarget, Worker: "fake", Model: "m"}).Worker
	}
	installVersion := func(version, comment string, force bool) {
		t.Helper()
		data := append(workerProgram(t), "#"+comment...)
		step := worker(version, "", data)
		step.Worker.Type, step.Worker.Launch, step.Worker.Force = "fake", workerStep(t).Worker.Launch, force
		res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, data)
		if w := res.State.Workers[0]; res.Errors[0] != "" || w.Version != version || w.Corrupt != "" {
			t.Fatalf("install = %q, %+v, want version %s intact", res.Errors, w, version)
		}
	}
	checkBuildDirs := func(want ...string) {
		t.Helper()
		dirs, err := filepath.Glob(h.Path("workers/fake/[0-9]*"))
		for i := range dirs {
			dirs[i] = filepath.Base(dirs[i])
		}
		if err != nil || !slices.Equal(dirs, want) {
			t.Errorf("builds = %q, want %q (%v)", dirs, want, err)
		}
	}
	installVersion("0.9", "before", false)
	installVersion("1.0", "one", false) // while the build 1.0 exists as the previous version
	checkBuildDirs("0.9", "1.0@2")
	one := spawn()
	before, err := os.ReadFile(one.Argv[0])
	if err != nil {
		t.Fatal(err)
	}
	checkProgram := func(when string) {
		t.Helper()
		if now, err := os.ReadFile(one.Argv[0]); err != nil || !bytes.Equal(now, before) {
			t.Errorf("%s: the program of the running worker contains %q (%v), want %q", when, now, err, before)
		}
	}
	installVersion("1.0", "two", false)
	checkProgram("other content installed")
	checkBuildDirs("0.9", "1.0", "1.0@2")
	two := spawn()
	if two.Version != "1.0" || !strings.HasPrefix(two.Argv[0], h.BuildDir("fake", "1.0")+"/") {
		t.Errorf("the new worker = %+v, want a program of build 1.0", two)
	}
	installVersion("1.0", "two", true)
	checkProgram("same content installed again")
	checkBuildDirs("0.9", "1.0", "1.0@2", "1.0@3")
	installVersion("1.0", "one", false) // reuses the build 1.0@2
	checkProgram("first content installed again")
	checkBuildDirs("0.9", "1.0", "1.0@2")

	// A rollback restores another version, not another build of the same version.
	rollback := wire.Step{Action: wire.ActionRollback, Worker: &wire.WorkerInstall{Type: "fake"}}
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{rollback}}, nil); res.Errors[0] != "" || res.State.Workers[0].Version != "0.9" || res.State.Workers[0].Previous != "1.0" {
		t.Errorf("rollback = %q, %+v, want version 0.9, previous 1.0", res.Errors, res.State.Workers)
	}
	checkProgram("rolled back")
	installVersion("1.0", "two", false)
	checkBuildDirs("0.9", "1.0", "1.0@2")
	for _, w := range []operations.WorkerProcess{one, two} {
		run[*operations.WorkerDeleteReport](t, c, operations.WorkerProcessDelete{Target: hiveTarget, WorkerRef: ref(w)})
	}
	// No worker runs: only the installed build and the previous version are kept.
	installVersion("1.0", "three", false)
	checkBuildDirs("0.9", "1.0@2")
	installVersion("1.0", "four", false)
	checkBuildDirs("0.9", "1.0")
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

// TestUninstallStopsWorkers checks that an uninstall stops all worker processes.
func TestUninstallStopsWorkers(t *testing.T) {
	t.Parallel()
	h, c := installWithWorker(t)
	w := run[*operations.WorkerSpawnReport](t, c, operations.WorkerSpawn{Target: hiveTarget, Worker: "fake", Model: "m"}).Worker
	res := apply(t, h, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveSelf}}}, nil)
	if res.Errors[0] != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	if _, err := proc.Identify(w.PID); err == nil {
		t.Errorf("worker process %d is still running after the uninstall, want it stopped", w.PID)
	}
	if _, err := os.Stat(h.Root); err == nil {
		t.Errorf("files after the uninstall = %v, want none", h.leftovers())
	}
}

// TestStopDaemonCancelsJobs checks that the daemon stops while a client follows a log.
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
		t.Errorf("first log line = %q, want it to contain %s", line, w.ID)
	}
	start := time.Now()
	if _, err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > control.StopTimeout {
		t.Errorf("Stop() took %s, want less than %s: the daemon was killed", took, control.StopTimeout)
	}
	<-done
}

// TestStopDaemonKeepsLoadingWorker checks that stopping the daemon does not stop a loading
// worker, and that the next daemon adopts it.
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
		t.Error("Run(WorkerSpawn) = nil after the daemon stopped, want an error")
	}
	if _, err := proc.Identify(w.PID); err != nil {
		t.Fatalf("Identify() of the worker after Stop() = %v, want it running", err)
	}
	if _, err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := run[*operations.WorkerListReport](t, newClient(t, h, h.State(t.Context()).Port), operations.WorkerProcessList{Target: hiveTarget}).Workers
	if len(list) != 1 || list[0].PID != w.PID || !list[0].Adopted || list[0].State != operations.WorkerLoading {
		t.Errorf("workers after the restart = %+v, want the worker adopted and loading", list)
	}
}

// fakeEngine runs the engine of the workers of these tests.
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
