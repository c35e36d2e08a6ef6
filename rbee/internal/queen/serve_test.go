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

// shortTimeouts returns timeouts that a test can wait for.
func shortTimeouts() timeouts {
	return timeouts{header: 2 * time.Second, read: 300 * time.Millisecond, write: time.Second, heartbeat: 50 * time.Millisecond}
}

// testServer is a running queen. It has no hives unless the test writes a config.
type testServer struct {
	addr         string
	infer, admin string // API keys; empty without authentication
}

func serve(t *testing.T, dir string, keyed bool, o Options) testServer {
	t.Helper()
	c := controller.Options{Version: "1.2.3", Paths: pkgmgr.Paths{Home: dir, ConfigDir: dir, StateDir: filepath.Join(dir, "state"), CacheDir: filepath.Join(dir, "cache")}}
	var s testServer
	var err error
	if keyed {
		o.Keys = access.OpenKeys(filepath.Join(dir, "keys.json"))
		for scope, secret := range map[access.Scope]*string{access.ScopeInfer: &s.infer, access.ScopeAdmin: &s.admin} {
			if _, *secret, err = o.Keys.Add(string(scope), scope); err != nil {
				t.Fatal(err)
			}
		}
	}
	ready := make(chan string, 1)
	o.Addr, o.Config, o.Log = "127.0.0.1:0", filepath.Join(dir, "hives.conf"), slog.New(slog.DiscardHandler)
	o.Ready = func(addr net.Addr) { ready <- addr.String() }
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- Serve(ctx, c, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-result; err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
	})
	select {
	case s.addr = <-ready:
	case err := <-result:
		result <- err
		t.Fatal(err)
	}
	return s
}

// dial connects to the server. The connection has a deadline of a minute.
func (s testServer) dial(t *testing.T) *net.TCPConn {
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

// TestMissingBody checks for every path that a client that does not send its body receives a
// response and is disconnected.
func TestMissingBody(t *testing.T) {
	t.Parallel()
	open := serve(t, t.TempDir(), false, Options{timeouts: shortTimeouts()})
	keyed := serve(t, t.TempDir(), true, Options{timeouts: shortTimeouts()})
	for _, test := range []struct {
		server testServer
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
			response, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(response), fmt.Sprintf("HTTP/1.1 %d ", test.status)) {
				t.Errorf("response = %.200q, %v, want status %d and EOF", response, err, test.status)
			}
		})
	}
}

// TestClientDoesNotRead checks that a client that does not read responses is disconnected.
func TestClientDoesNotRead(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), false, Options{timeouts: shortTimeouts()})
	conn := s.dial(t)
	if err := conn.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	requests := []byte(strings.Repeat("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 100))
	for {
		if _, err := conn.Write(requests); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the client was not disconnected within a minute")
		} else if err != nil {
			return
		}
	}
}

// TestStreamsOutliveTimeouts checks that streams continue beyond the timeouts.
func TestStreamsOutliveTimeouts(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and sends nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dir := t.TempDir()
	conf := fmt.Sprintf("[[hive]]\nalias = \"mute\"\nhostname = \"127.0.0.1\"\nssh_user = \"me\"\nssh_port = %d\n", silent.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile(filepath.Join(dir, "hives.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dir, false, Options{timeouts: shortTimeouts()})
	do := func(method, path, body string) *http.Response {
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
	if err := json.NewDecoder(do("POST", "/v1/jobs", `{"operation":"hive_capabilities","alias":"mute"}`).Body).Decode(&job); err != nil || job.ID == "" {
		t.Fatalf("POST /v1/jobs = %+v, %v, want a job", job, err)
	}
	stream := do("GET", "/v1/jobs/"+job.ID+"/stream", "")
	start, fleet := time.Now(), bufio.NewReader(do("GET", "/v1/fleet", "").Body)
	for time.Since(start) < 3*shortTimeouts().read {
		if _, err := fleet.ReadString('\n'); err != nil {
			t.Fatalf("the stream of the fleet ended after %s: %v", time.Since(start), err)
		}
	}
	do("DELETE", "/v1/jobs/"+job.ID, "")
	if text, err := io.ReadAll(stream.Body); err != nil || !strings.Contains(string(text), "[CANCELLED]") {
		t.Errorf("stream of the job = %q, %v, want [CANCELLED]", text, err)
	}
}

// TestLargeBody checks that a client that sends a large body before it reads receives the
// error, and that the server does not allocate memory for the body. It is not parallel because it
// measures the memory of the process.
func TestLargeBody(t *testing.T) {
	s := serve(t, t.TempDir(), true, Options{})
	for name, test := range map[string]struct {
		key, path, typ string
		status         int
	}{
		"API request": {s.infer, "/v1/chat/completions", "invalid_request_error", 413},
		"operation":   {s.admin, "/v1/jobs", "", 413},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		conn := s.dial(t)
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n", test.path, test.key, 100_000_000)
		piece := bytes.Repeat([]byte("x"), 100_000)
		for range 1000 {
			if _, err := conn.Write(piece); err != nil {
				t.Fatalf("%s: cannot send the body: %v", name, err)
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: cannot read the response: %v", name, err)
		}
		var body struct {
			Error struct{ Message, Type, Code string }
		}
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != test.status || body.Error.Message == "" || body.Error.Type != test.typ {
			t.Errorf("%s: response = %s %+v, %v, want status %d, type %q", name, resp.Status, body, err, test.status, test.typ)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("%s: %d MiB were allocated, want at most 8", name, n>>20)
		}
	}
}

// TestLoginBody checks the responses to logins, including a body that is too large.
func TestLoginBody(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), true, Options{})
	for name, test := range map[string]struct {
		body   string
		status int
	}{
		"admin key":  {`{"key":"` + s.admin + `"}`, 204},
		"infer key":  {`{"key":"` + s.infer + `"}`, 401},
		"large body": {`{"x":"` + strings.Repeat("x", 5000) + `","key":"` + s.admin + `"}`, 400},
	} {
		resp, err := http.Post("http://"+s.addr+"/login", "application/json", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.status {
			t.Errorf("%s: POST /login = %s, want %d", name, resp.Status, test.status)
		}
	}
}

// TestServeRequiresKeys checks that a server that is reachable from other machines requires
// API keys.
func TestServeRequiresKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := controller.Options{Paths: pkgmgr.Paths{Home: dir, ConfigDir: dir, StateDir: dir, CacheDir: dir}}
	for _, o := range []Options{{Addr: "0.0.0.0:0"}, {Addr: "127.0.0.1:0", Hosts: []string{"queen.example.com"}}} {
		o.Log = slog.New(slog.DiscardHandler)
		if err := Serve(t.Context(), c, o); err == nil || !strings.Contains(err.Error(), "without API keys") {
			t.Errorf("Serve() with address %s, hosts %v = %v, want an error about API keys", o.Addr, o.Hosts, err)
		}
	}
}

// TestRemotePaths checks that remote operations may only use files in the queen's config
// directory.
func TestRemotePaths(t *testing.T) {
	t.Parallel()
	paths := testPaths(t)
	r := &remoteRunner{paths: paths} // without a runner: the test runs no operation
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
		"/etc/passwd":            "want a path inside",
		dir + "/link/x":          "want a path inside",
		dir + "/link":            "want a path inside",
		"~/x":                    "want a path inside",
		dir + "-too":             "want a path inside",
		"hives.conf":             "want an absolute path", // relative to an unknown directory
		"../outside/x":           "want an absolute path",
	} {
		op, err := client.MapPaths(operations.PackageMigrate{OutputPath: path}, r.inConfigDir)
		if isError := want != "" && !filepath.IsAbs(want); isError {
			if operations.CodeOf(err) != operations.CodeBadOperation || !strings.Contains(err.Error(), want) {
				t.Errorf("MapPaths(%q) = %v, %v, want an error with %q", path, op, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("MapPaths(%q) = %v, want %q", path, err, want)
			continue
		}
		if m, ok := op.(operations.PackageMigrate); !ok || m.OutputPath != want {
			t.Errorf("MapPaths(%q) = %+v, want %q", path, op, want)
		}
	}
	for _, op := range []operations.Operation{
		operations.PackageStatus{Scope: operations.Scope{ConfigPath: "/etc/hives.conf"}},
		operations.PackageSync{Change: operations.Change{BundlePath: "/tmp/x"}},
		operations.HiveGet{Alias: "a", ConfigPath: "x"},
		operations.WorkerProcessList{Target: operations.Target{ConfigPath: "x"}},
	} {
		if _, err := r.Run(t.Context(), op, nil); operations.CodeOf(err) != operations.CodeBadOperation {
			t.Errorf("Run(%+v) = %v, want code bad_operation", op, err)
		}
	}
}

func testPaths(t testing.TB) pkgmgr.Paths {
	t.Helper()
	dir := t.TempDir()
	return pkgmgr.Paths{Home: dir, ConfigDir: filepath.Join(dir, "config"), StateDir: dir, CacheDir: dir}
}

// TestServePortInUse checks the reason and the subject of the error for an address that cannot
// be used.
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
		if want := operations.SubjectQueen.WithName(addr); !errors.As(err, &e) || e.Reason != reason || e.Subject != want {
			t.Errorf("Serve(%s) = %#v, want reason %s and subject %v", addr, err, reason, want)
		}
	}
}
