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

// The test binary is also the engine, which behaves as its first argument says,
// and a hive in a process of its own, to be killed.
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

// engine plays an inference engine on a port.
func fakeEngine(port, how string) {
	health := http.NewServeMux()
	prepared := false // one request after another
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
	switch how {
	case "serve":
		serve()
	case "dies":
		fmt.Println("loading weights")
		fmt.Println("CUDA error: out of luck")
		os.Exit(3)
	case "silent":
		select {}
	case "chatty": // loads for longer than the stall limit, and says so
		for i := range 8 {
			fmt.Println("shard", i)
			time.Sleep(100 * time.Millisecond)
		}
		serve()
	case "deaf": // does not hear SIGTERM
		signal.Ignore(syscall.SIGTERM)
		serve()
	case "crowd": // has a child in the group, and one that left it and cleared its name
		beget("child")
		beget("runaway")
		serve()
	case "crowdloading":
		beget("runaway")
		select {}
	case "nameless": // a crowd that wrote over its environment, as py-setproctitle does
		_ = os.Unsetenv(engine.MarkName)
		beget("child")
		beget("runaway")
		select {}
	case "babbles": // writes without a pause while it loads
		for {
			fmt.Println(strings.Repeat("loading ", 512))
			time.Sleep(time.Millisecond) // else it is too quick to be watched
		}
	case "rants": // writes much and dies, but for the first time
		if _, err := os.Stat(os.Args[4]); err == nil {
			fmt.Println(strings.Repeat("no luck ", 8<<10))
			os.Exit(9)
		}
		_ = os.WriteFile(os.Args[4], nil, 0o600)
		serve()
	case "child", "runaway":
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "address": // fails as engines do whose port is taken
		fmt.Println("error: [Errno 98] address already in use")
		os.Exit(1)
	case "once": // fails at every start but the first
		if _, err := os.Stat(os.Args[4]); err == nil {
			os.Exit(9)
		}
		_ = os.WriteFile(os.Args[4], nil, 0o600)
		serve()
	}
}

func beget(how string) {
	cmd := exec.Command(os.Args[0], "engine", "0", how)
	if how == "runaway" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		os.Exit(8)
	}
}

// fast are limits for tests. That of silence is no short one: a busy machine takes its
// time to make a process. Tests of stalling have [stall].
func fast() Times {
	ms := time.Millisecond
	return Times{
		Stall: 10 * time.Second, Drain: 5 * time.Second, Grace: 5 * time.Second, Kill: 5 * time.Second, Memory: 2 * time.Second, Settle: 100 * ms,
		Steady: time.Hour, Watch: 50 * ms, Backoff: []time.Duration{0, 30 * ms, 60 * ms},
	}
}

// stall is the limit of silence in tests of stalling.
const stall = 400 * time.Millisecond

// options are those of a hive in dir, whose engines behave as their model says.
func options(dir string) Options {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Options{
		Dir: filepath.Join(dir, "run", "workers"), Logs: filepath.Join(dir, "logs", "workers"), Times: fast(),
		Engine: func(_ context.Context, typ string) (engine.Engine, error) {
			if typ != "fake" {
				return engine.Engine{}, failure(operations.ReasonWorkerNotInstalled, typ, "worker type %q is not installed here", typ)
			}
			return engine.Engine{Version: "1.0", Entry: exe, Launch: wire.Launch{
				Args: []string{"engine", "{port}", "{model}", filepath.Join(dir, "once")}, ReadyPath: "/health", ReadyStatus: 200,
				Env: map[string]string{"FROM_RECIPE": "port={port}"},
			}}, nil
		},
	}
}

func manager(t *testing.T, o Options) *Manager {
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
				w.tellStop(StopOptions{Force: true})
			}
			if err := m.StopAll(ctx, ""); err != nil {
				t.Errorf("cleaning up: %v", err)
			}
		}
		m.Close()
	})
	return m
}

// spawn makes a worker that must become ready.
func spawn(t *testing.T, m *Manager, how string) operations.WorkerProcess {
	t.Helper()
	p := try(t, m, how)
	if p.State != operations.WorkerReady {
		t.Fatalf("worker %+v", p)
	}
	return p
}

// try makes a worker and waits until it is ready or has failed. It may be called from
// any goroutine.
func try(t *testing.T, m *Manager, how string) operations.WorkerProcess {
	t.Helper()
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: how}, nil)
	if err != nil {
		t.Error(err)
		return operations.WorkerProcess{}
	}
	return r.Worker
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func gone(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) != nil
	}
	after := string(data[strings.LastIndexByte(string(data), ')')+1:])
	return strings.HasPrefix(after, " Z")
}

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

// marked are the processes of a worker.
func marked(t *testing.T, m *Manager, id string) []int {
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

func freePort(t *testing.T) (net.Listener, int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln, ln.Addr().(*net.TCPAddr).Port
}
