package queen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
)

// quick are times in which a test sees somebody cut.
func quick() timeouts {
	return timeouts{header: 2 * time.Second, read: 300 * time.Millisecond, write: time.Second, heartbeat: 50 * time.Millisecond}
}

// playing is a queen who serves, with an empty fleet unless there is a config in dir.
type playing struct {
	addr         string
	infer, admin string // secrets; empty without keys
}

func serve(t *testing.T, dir string, keyed bool, o Options) playing {
	t.Helper()
	c := controller.Options{Version: "1.2.3", Paths: pkgmgr.Paths{Home: dir, ConfigDir: dir, StateDir: filepath.Join(dir, "state"), CacheDir: filepath.Join(dir, "cache")}}
	var s playing
	var err error
	if keyed {
		o.Keys = access.OpenKeys(filepath.Join(dir, "keys.json"))
		for scope, secret := range map[access.Scope]*string{access.ScopeInfer: &s.infer, access.ScopeAdmin: &s.admin} {
			if _, *secret, err = o.Keys.Add(string(scope), scope); err != nil {
				t.Fatal(err)
			}
		}
	}
	listens := make(chan string, 1)
	o.Addr, o.Config, o.Log = "127.0.0.1:0", filepath.Join(dir, "hives.conf"), slog.New(slog.DiscardHandler)
	o.Ready = func(addr net.Addr) { listens <- addr.String() }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, c, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case s.addr = <-listens:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	return s
}

// dial is a connection that gives up after a while.
func (s playing) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// A client that announces a body and sends none is answered, and cut, wherever it asks.
func TestBodiesThatNeverCome(t *testing.T) {
	t.Parallel()
	open := serve(t, t.TempDir(), false, Options{times: quick()})
	keyed := serve(t, t.TempDir(), true, Options{times: quick()})
	for _, test := range []struct {
		server playing
		line   string
		status int
	}{
		{keyed, "GET /v1/fleet", 401}, {keyed, "POST /v1/chat/completions", 401}, {keyed, "POST /v1/jobs", 401}, {keyed, "POST /login", 400},
		{open, "GET /health", 200}, {open, "GET /v1/models", 200}, {open, "GET /metrics", 200}, {open, "GET /", 200}, {open, "GET /v1/fleet", 200},
	} {
		t.Run(test.line, func(t *testing.T) {
			t.Parallel()
			conn := test.server.dial(t)
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n", test.line)
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(answer), fmt.Sprintf("HTTP/1.1 %d ", test.status)) {
				t.Errorf("%.200q, %v", answer, err)
			}
		})
	}
}

// A client that asks and does not read the answers is cut.
func TestAnswersThatNobodyReads(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), false, Options{times: quick()})
	conn := s.dial(t)
	if err := conn.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	asking := []byte(strings.Repeat("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 100))
	for {
		if _, err := conn.Write(asking); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("it is not cut")
		} else if err != nil {
			return
		}
	}
}

// Streams go on for longer than any limit.
func TestStreamsLast(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // what connects there waits
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dir := t.TempDir()
	conf := fmt.Sprintf("[[hive]]\nalias = \"mute\"\nhostname = \"127.0.0.1\"\nssh_user = \"me\"\nssh_port = %d\n", silent.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile(filepath.Join(dir, "hives.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dir, false, Options{times: quick()})
	ask := func(method, path, body string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "text/event-stream")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	var job struct {
		ID string `json:"job_id"`
	}
	if err := json.NewDecoder(ask("POST", "/v1/jobs", `{"operation":"hive_capabilities","alias":"mute"}`).Body).Decode(&job); err != nil || job.ID == "" {
		t.Fatal(job, err)
	}
	stream := ask("GET", "/v1/jobs/"+job.ID+"/stream", "")
	begun, fleet := time.Now(), bufio.NewReader(ask("GET", "/v1/fleet", "").Body)
	for time.Since(begun) < 3*quick().read {
		if _, err := fleet.ReadString('\n'); err != nil {
			t.Fatalf("the fleet's stream ended after %s: %v", time.Since(begun), err)
		}
	}
	ask("DELETE", "/v1/jobs/"+job.ID, "")
	if text, err := io.ReadAll(stream.Body); err != nil || !strings.Contains(string(text), "[CANCELLED]") {
		t.Errorf("the job's stream: %q, %v", text, err)
	}
}

// A body of 100 MB is refused so that a client who sends all of it first reads why, and
// takes no memory. Not parallel: it counts what the process allocates.
func TestHundredMegabytes(t *testing.T) {
	s := serve(t, t.TempDir(), true, Options{})
	for name, test := range map[string]struct {
		key, path, type_ string
		status           int
	}{
		"too large":    {s.infer, "/v1/chat/completions", "invalid_request_error", 413},
		"an operation": {s.admin, "/v1/jobs", "", 413},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		conn := s.dial(t)
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n", test.path, test.key, 100_000_000)
		piece := bytes.Repeat([]byte("x"), 100_000)
		for range 1000 {
			if _, err := conn.Write(piece); err != nil {
				t.Fatalf("%s: sending: %v", name, err)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var told struct {
			Error struct{ Message, Type, Code string }
		}
		if err := json.NewDecoder(resp.Body).Decode(&told); err != nil || resp.StatusCode != test.status || told.Error.Message == "" || told.Error.Type != test.type_ {
			t.Errorf("%s: %s %+v, %v", name, resp.Status, told, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("%s: %d MiB were allocated", name, n>>20)
		}
	}
}

// Whoever is not let in yet has little to say.
func TestLoginBody(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), true, Options{})
	for name, test := range map[string]struct {
		body   string
		status int
	}{
		"the key":      {`{"key":"` + s.admin + `"}`, 204},
		"another":      {`{"key":"` + s.infer + `"}`, 401},
		"behind words": {`{"x":"` + strings.Repeat("x", 5000) + `","key":"` + s.admin + `"}`, 400},
	} {
		resp, err := http.Post("http://"+s.addr+"/login", "application/json", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.status {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

// What others reach demands keys, by whatever way.
func TestServeDemandsKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := controller.Options{Paths: pkgmgr.Paths{Home: dir, ConfigDir: dir, StateDir: dir, CacheDir: dir}}
	for _, o := range []Options{{Addr: "0.0.0.0:0"}, {Addr: "127.0.0.1:0", Hosts: []string{"queen.example.com"}}} {
		o.Log = slog.New(slog.DiscardHandler)
		if err := Serve(t.Context(), c, o); err == nil || !strings.Contains(err.Error(), "demands keys") {
			t.Errorf("%+v: %v", o.Hosts, err)
		}
	}
}

// TestConfine holds that operations from elsewhere name files of the queen's
// directory alone, however they spell them.
func TestConfine(t *testing.T) {
	t.Parallel()
	paths := testPaths(t)
	r := &remoteRunner{paths: paths} // it has no runner: nothing is run
	dir := paths.ConfigDir
	outside := filepath.Join(paths.Home, "outside")
	for _, d := range []string{dir, outside} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                       "",
		dir + "/a/../hives.conf": filepath.Join(dir, "hives.conf"),
		dir + "/new/":            filepath.Join(dir, "new") + "/",
		filepath.Join(dir, "x"):  filepath.Join(dir, "x"),
		"~/config/x":             filepath.Join(dir, "x"),
		"/etc/passwd":            "outside",
		dir + "/link/x":          "outside",
		dir + "/link":            "outside",
		"~/x":                    "outside",
		dir + "-too":             "outside",
		"hives.conf":             "no absolute path", // the sender's directory is not known here
		"../outside/x":           "no absolute path",
	} {
		op, err := client.WithPaths(operations.PackageMigrate{OutputPath: path}, r.inConfigDir)
		if refused := want != "" && !filepath.IsAbs(want); refused {
			if operations.CodeOf(err) != operations.CodeBadOperation || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, %v", path, op, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if m, ok := op.(operations.PackageMigrate); !ok || m.OutputPath != want {
			t.Errorf("%q: %+v, want %q", path, op, want)
		}
	}
	for _, op := range []operations.Operation{
		operations.PackageStatus{Scope: operations.Scope{ConfigPath: "/etc/hives.conf"}},
		operations.PackageSync{Change: operations.Change{BundlePath: "/tmp/x"}},
		operations.HiveGet{Alias: "a", ConfigPath: "x"},
		operations.WorkerProcessList{Target: operations.Target{ConfigPath: "x"}},
	} {
		if _, err := r.Run(t.Context(), op, nil); operations.CodeOf(err) != operations.CodeBadOperation {
			t.Errorf("%+v: %v", op, err)
		}
	}
}

func testPaths(t testing.TB) pkgmgr.Paths {
	t.Helper()
	dir := t.TempDir()
	return pkgmgr.Paths{Home: dir, ConfigDir: filepath.Join(dir, "config"), StateDir: dir, CacheDir: dir}
}

// TestServePortInUse checks that the error of an address that is taken is about the queen.
func TestServePortInUse(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	addr := ln.Addr().String()
	for addr, reason := range map[string]operations.Reason{addr: operations.ReasonPortInUse, "127.0.0.1:-1": operations.ReasonFailed} {
		err := Serve(t.Context(), controller.Options{}, Options{Addr: addr, Log: slog.New(slog.DiscardHandler)})
		var e *operations.Error
		if want := operations.SubjectQueen.Named(addr); !errors.As(err, &e) || e.Reason != reason || e.Subject != want {
			t.Errorf("Serve(%s) = %#v, want reason %s and subject %v", addr, err, reason, want)
		}
	}
}
