package workers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
)

// TestMain runs the tests. The test binary is also the fake engine and a separate hive
// process that tests kill.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 3 && os.Args[1] == "engine":
		fakeEngine(os.Args[2], os.Args[3])
	case os.Getenv("TEST_HIVE") != "":
		testHive()
	default:
		os.Exit(m.Run())
	}
}

// fakeEngine runs an inference engine on a port, with the behavior that mode selects.
func fakeEngine(port, mode string) {
	health := http.NewServeMux()
	prepared := false // requests are sequential
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }
	serve := func() {
		fmt.Println("serving")
		if err := http.ListenAndServe("127.0.0.1:"+port, health); err != nil {
			fmt.Println(err)
			os.Exit(7)
		}
	}
	health.HandleFunc("/health", ok)
	health.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(5) })
	health.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	health.HandleFunc("/environ", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(os.Environ()) })
	health.HandleFunc("/prepare", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Printf("prepared with %s\n", body)
		prepared = true
		if strings.Contains(string(body), "refuse") {
			http.Error(w, "no such model", http.StatusNotFound)
		}
	})
	health.HandleFunc("/prepared", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, prepared) })
	health.HandleFunc("/args", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(os.Args) })
	health.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	switch mode {
	case "serve":
		serve()
	case "crash":
		fmt.Println("loading weights")
		fmt.Println("CUDA error: out of memory")
		os.Exit(3)
	case "hang":
		select {}
	case "slow-load": // loads for longer than the stall timeout, and logs its progress
		for i := range 8 {
			fmt.Println("shard", i)
			<-time.After(100 * time.Millisecond)
		}
		serve()
	case "ignore-sigterm":
		signal.Ignore(syscall.SIGTERM)
		serve()
	case "tree": // has a child in its group, and a detached child without the marker
		startChild("child")
		startChild("detached")
		serve()
	case "tree-loading":
		startChild("detached")
		select {}
	case "tree-unmarked": // removes the marker from its environment, as py-setproctitle does
		_ = os.Unsetenv(engine.MarkerEnv)
		startChild("child")
		startChild("detached")
		select {}
	case "log-flood": // writes continuously while it loads
		for range time.Tick(time.Millisecond) { // gives the hive time to check the log
			fmt.Println(strings.Repeat("loading ", 512))
		}
	case "crash-log": // writes much and crashes at every start except the first
		if _, err := os.Stat(os.Args[4]); err == nil {
			fmt.Println(strings.Repeat("failure ", 8<<10))
			os.Exit(9)
		}
		_ = os.WriteFile(os.Args[4], nil, 0o600)
		serve()
	case "child", "detached":
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "address": // fails like an engine whose port is in use
		fmt.Println("error: [Errno 98] address already in use")
		os.Exit(1)
	case "once": // fails at every start except the first
		if _, err := os.Stat(os.Args[4]); err == nil {
			os.Exit(9)
		}
		_ = os.WriteFile(os.Args[4], nil, 0o600)
		serve()
	}
}

func startChild(mode string) {
	cmd := exec.Command(os.Args[0], "engine", "0", mode)
	if mode == "detached" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		os.Exit(8)
	}
}

// testTiming returns short times for tests. The stall timeout stays long, because a busy
// machine may take long to start a process. Tests of stalling use [stall].
func testTiming() Timing {
	ms := time.Millisecond
	return Timing{
		StallTimeout: 10 * time.Second, DrainTimeout: 5 * time.Second, GracePeriod: 5 * time.Second, KillTimeout: 5 * time.Second, MemoryTimeout: 2 * time.Second, MemorySettle: 100 * ms,
		SteadyAfter: time.Hour, WatchInterval: 50 * ms, Backoff: []time.Duration{0, 30 * ms, 60 * ms},
	}
}

// stall is the stall timeout in tests of stalling.
const stall = 400 * time.Millisecond

// testOptions returns the options of a hive in dir. The model selects the mode of its engines.
func testOptions(dir string) Options {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Options{
		Dir: filepath.Join(dir, "run", "workers"), Logs: filepath.Join(dir, "logs", "workers"), Timing: testTiming(),
		Engine: func(_ context.Context, typ string) (engine.Engine, error) {
			if typ != "fake" {
				return engine.Engine{}, failure(operations.ReasonWorkerNotInstalled, typ, "worker type '%s' is not installed on the hive", typ)
			}
			return engine.Engine{Version: "1.0", Entry: exe, Launch: wire.Launch{
				Args: []string{"engine", "{port}", "{model}", filepath.Join(dir, "once")}, ReadyPath: "/health", ReadyStatus: 200,
				Env: map[string]string{"FROM_RECIPE": "port={port}"},
			}}, nil
		},
	}
}

// newManager starts a manager and stops its workers at the end of the test.
func newManager(t *testing.T, o Options) *Manager {
	t.Helper()
	m := New(o)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.ctx.Err() == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			for _, w := range m.all() {
				w.requestStop(StopOptions{Force: true})
			}
			if err := m.StopAll(ctx, ""); err != nil {
				t.Errorf("StopAll() = %v, want nil", err)
			}
		}
		m.Close()
	})
	return m
}

// spawn starts a worker, which must become ready.
func spawn(t *testing.T, m *Manager, mode string) operations.WorkerProcess {
	t.Helper()
	p := trySpawn(t, m, mode)
	if p.State != operations.WorkerReady {
		t.Fatalf("Spawn(%q) = %+v, want a ready worker", mode, p)
	}
	return p
}

// trySpawn starts a worker and waits until it is ready or has failed. It may be called from
// any goroutine.
func trySpawn(t *testing.T, m *Manager, mode string) operations.WorkerProcess {
	t.Helper()
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: mode}, nil)
	if err != nil {
		t.Errorf("Spawn(%q) = %v, want nil", mode, err)
		return operations.WorkerProcess{}
	}
	return r.Worker
}

// hasExited reports whether a process has exited; it may be a zombie.
func hasExited(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) != nil
	}
	after := string(data[strings.LastIndexByte(string(data), ')')+1:])
	return strings.HasPrefix(after, " Z")
}

// get returns the body of a response of a worker.
func get(t *testing.T, port int, path string) string {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := fmt.Fprint(&b, readAll(resp)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func readAll(resp *http.Response) string {
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

// memberPIDs returns the PIDs of a worker.
func memberPIDs(t *testing.T, m *Manager, id string) []int {
	t.Helper()
	w, err := m.find(operations.WorkerRef{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, p := range w.members(true) {
		pids = append(pids, p.PID)
	}
	return pids
}

// listenAnyPort listens on a free port.
func listenAnyPort(t *testing.T) (net.Listener, int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln, ln.Addr().(*net.TCPAddr).Port
}
