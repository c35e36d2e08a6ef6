package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// fleetQueen is a fake queen. Its nth stream is written by streams[n], later ones by
// the last function.
type fleetQueen struct {
	*httptest.Server
	streams []func(w io.Writer, r *http.Request)

	mu      sync.Mutex
	started int      // number of streams
	keys    []string // Authorization headers
}

func newFleetQueen(t *testing.T, streams ...func(w io.Writer, r *http.Request)) *fleetQueen {
	q := &fleetQueen{streams: streams}
	q.Server = httptest.NewServer(http.HandlerFunc(q.serveHTTP))
	t.Cleanup(q.Server.Close)
	return q
}

func (q *fleetQueen) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != operations.FleetPath {
		http.NotFound(w, r)
		return
	}
	q.mu.Lock()
	q.keys = append(q.keys, r.Header.Get("Authorization"))
	n := min(q.started, len(q.streams)-1)
	if r.Header.Get("Accept") != sse.ContentType {
		q.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(snapshotOf("once"))
		return
	}
	q.started++
	q.mu.Unlock()
	w.Header().Set("Content-Type", sse.ContentType)
	w.(http.Flusher).Flush()
	q.streams[n](flushWriter{w}, r)
}

// flushWriter is a response writer that flushes after every write.
type flushWriter struct{ http.ResponseWriter }

func (f flushWriter) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	f.ResponseWriter.(http.Flusher).Flush()
	return n, err
}

func snapshotOf(version string) operations.FleetSnapshot {
	return operations.FleetSnapshot{
		Version: version, Time: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC),
		Hives: []operations.HiveView{{Alias: "gpu-1", Link: operations.LinkOnline}, {Alias: "gpu-2", Link: operations.LinkOffline, Problem: "no route\x1b[2J to host"}},
	}
}

// writeSnapshot writes a snapshot to a stream.
func writeSnapshot(w io.Writer, version string) {
	data, _ := json.Marshal(snapshotOf(version))
	_, _ = w.Write(sse.Append(sse.Append(nil, sse.Event{Comment: true, Data: []byte("hello")}), sse.Event{Data: data}))
}

// openStream returns a stream with one snapshot that stays open.
func openStream(version string) func(w io.Writer, r *http.Request) {
	return func(w io.Writer, r *http.Request) {
		writeSnapshot(w, version)
		<-r.Context().Done()
	}
}

// topApp returns an app for rbee top with the given standard streams.
func topApp(url string, in io.Reader, out, errOut io.Writer) *app {
	a := newApp(Process{Stdin: in, Stdout: out, Stderr: errOut, Env: []string{"TERM=xterm", "RBEE_QUEEN=" + url, "RBEE_API_KEY=s3cret"}})
	a.progress = ui.Silent{}
	return a
}

func TestTopOnce(t *testing.T) {
	t.Parallel()
	q := newFleetQueen(t, openStream("1"))
	for name, c := range map[string]topCmd{"--once": {Once: true, Interval: time.Second}, "no terminal": {Interval: time.Second}} {
		var out, errOut strings.Builder
		if err := c.Run(t.Context(), topApp(q.URL, strings.NewReader(""), &out, &errOut)); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); strings.Contains(got, "\x1b") || errOut.Len() > 0 ||
			!strings.HasPrefix(got, "2 hives: 1 online 1 offline  ") || !strings.Contains(got, "\n! gpu-2 is offline: no route [2J to host\n") || !strings.Contains(got, "rbee once at "+q.URL) {
			t.Errorf("%s: top prints %q to stderr, want nothing, and to stdout:\n%s", name, errOut.String(), got)
		}
	}
	var out strings.Builder
	a := topApp(q.URL, strings.NewReader(""), &out, io.Discard)
	a.json = true
	if err := (&topCmd{Interval: time.Second}).Run(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var got operations.FleetSnapshot
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || !reflect.DeepEqual(got, snapshotOf("once")) {
		t.Errorf("top --json prints (%v)\n%s\nwant the snapshot", err, out.String())
	}
	if len(q.keys) != 3 || q.keys[0] != "Bearer s3cret" {
		t.Errorf("requests have keys %q, want 3 times %q", q.keys, "Bearer s3cret")
	}
}

func TestTopErrors(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(nil)
	closed.Close()
	response := func(status int, kind, text string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			io.WriteString(w, text)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	for name, c := range map[string]struct {
		url      string
		interval time.Duration
		code     int
		want     []string
	}{
		"closed":   {url: closed.URL, code: 4, want: []string{"cannot reach the queen", "connection refused", "run `rbee serve` to start a queen"}},
		"key":      {url: response(401, "application/json", `{}`), code: 1, want: []string{"rejected the API key", "RBEE_API_KEY"}},
		"scope":    {url: response(403, "application/json", `{"error":{"code":"failed","message":"it takes an admin key"}}`), code: 1, want: []string{"it takes an admin key"}},
		"no fleet": {url: response(404, "text/plain", "404 page not found"), code: 1, want: []string{"does not support fleet snapshots", "404 Not Found"}},
		"HTML":     {url: response(200, "text/html", "<p>"), code: 1, want: []string{"is not a queen"}},
		"JSON":     {url: response(200, "application/json", "{"), code: 1, want: []string{"cannot read the fleet snapshot"}},
		"address":  {url: "gpu-1", code: 64, want: []string{"want an http or https URL"}},
		"interval": {url: closed.URL, interval: time.Millisecond, code: 64, want: []string{"--interval"}},
	} {
		var errOut strings.Builder
		a := topApp(c.url, strings.NewReader(""), io.Discard, &errOut)
		if c.interval == 0 {
			c.interval = time.Second
		}
		err := (&topCmd{Interval: c.interval}).Run(t.Context(), a)
		if code := a.finish(t.Context(), err); code != c.code {
			t.Errorf("%s: exit code %d, want %d", name, code, c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(errOut.String(), want) {
				t.Errorf("%s: top prints\n%s\nwant %q in it", name, errOut.String(), want)
			}
		}
		if strings.Contains(errOut.String(), "s3cret") {
			t.Errorf("%s: top prints the key, want a hidden key:\n%s", name, errOut.String())
		}
	}
}

// TestTopFeedReconnects interrupts streams between and within snapshots.
func TestTopFeedReconnects(t *testing.T) {
	t.Parallel()
	cut := make(chan struct{})
	q := newFleetQueen(t,
		func(w io.Writer, _ *http.Request) { writeSnapshot(w, "1"); <-cut },
		func(w io.Writer, _ *http.Request) { io.WriteString(w, `data: {"version":"ha`) },
		func(io.Writer, *http.Request) { panic(http.ErrAbortHandler) },
		openStream("2"))
	a := topApp(q.URL, strings.NewReader(""), io.Discard, io.Discard)
	runner, err := a.client(q.URL)
	if err != nil {
		t.Fatal(err)
	}
	feed := &topFeed{queen: runner.(*remoteQueen), first: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- feed.follow(ctx) }()
	<-feed.first
	if s, _, o := feed.now(); s.Version != "1" || o.Problem != "" {
		t.Errorf("first snapshot has version %q and problem %q, want %q and none", s.Version, o.Problem, "1")
	}
	close(cut)
	waittest.Until(t, "the problem", func() bool {
		s, now, o := feed.now()
		if s.Version != "1" {
			t.Errorf("snapshot without a connection has version %q, want %q", s.Version, "1")
		}
		if o.Problem != "" && now.Before(s.Time) {
			t.Errorf("current time is %v, want a time after the snapshot at %v", now, s.Time)
		}
		return strings.Contains(o.Problem, "cannot reach the queen")
	})
	waittest.Until(t, "the second snapshot", func() bool {
		s, _, o := feed.now()
		return s.Version == "2" && o.Problem == "" && o.Age < 20*time.Second
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("follow returned %v, want %v", err, context.Canceled)
	}
	if q.started != 4 {
		t.Errorf("follow started %d streams, want 4", q.started)
	}
}

// testTerminal is a pseudo-terminal and its output.
type testTerminal struct {
	keys *os.File // the side of the user
	file *os.File // the side of the program

	mu   sync.Mutex
	seen bytes.Buffer
}

func newTerminal(t *testing.T) *testTerminal {
	t.Helper()
	keys, file, err := pty.Open()
	if err != nil {
		t.Skipf("cannot open a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { keys.Close(); file.Close() })
	term := &testTerminal{keys: keys, file: file}
	term.resize(t, 80, 24)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := keys.Read(buf)
			if err != nil {
				return
			}
			term.mu.Lock()
			term.seen.Write(buf[:n])
			term.mu.Unlock()
		}
	}()
	return term
}

func (p *testTerminal) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	if err := pty.Setsize(p.keys, &pty.Winsize{Cols: columns, Rows: rows}); err != nil {
		t.Fatal(err)
	}
}

func (p *testTerminal) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

func (p *testTerminal) state(t *testing.T) *term.State {
	t.Helper()
	state, err := term.GetState(int(p.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// checkRestored checks that the terminal is in its original state.
func (p *testTerminal) checkRestored(t *testing.T, before *term.State) {
	t.Helper()
	waittest.Until(t, "the main screen", func() bool { return strings.Contains(p.screen(), topClose) })
	screen := p.screen()
	if strings.Count(screen, topOpen) != 1 || strings.Count(screen, topClose) != 1 || !strings.HasPrefix(screen, topOpen) {
		t.Errorf("output = %q, want the alternate screen entered and left once", screen)
	}
	if _, after, _ := strings.Cut(screen, topClose); strings.Contains(after, "\x1b") {
		t.Errorf("output after leaving the alternate screen = %q, want no escape codes", after)
	}
	if after := p.state(t); !reflect.DeepEqual(before, after) {
		t.Errorf("terminal state = %v, want %v", after, before)
	}
}

func TestTopOnTerminal(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"q": "q", "Ctrl-C": "\x03"} {
		q := newFleetQueen(t, openStream("1"))
		p := newTerminal(t)
		before := p.state(t)
		done := make(chan error, 1)
		go func() {
			done <- (&topCmd{Interval: time.Hour}).Run(t.Context(), topApp(q.URL, p.file, p.file, p.file))
		}()
		waittest.Until(t, "a frame", func() bool { return strings.Contains(p.screen(), "gpu-2") })
		if reflect.DeepEqual(before, p.state(t)) {
			t.Errorf("%s: top did not change the state of the terminal, want raw mode", name)
		}
		p.resize(t, 37, 24) // redraws immediately
		waittest.Until(t, "a smaller frame", func() bool { return strings.Contains(p.screen(), "no route [2J to…\x1b[K") })
		if _, err := p.keys.WriteString("x" + key); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("top after %s returned %v, want nil", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("top did not return within 20s after %s", name)
		}
		p.checkRestored(t, before)
	}
}

// TestTopRestoresScreen checks panics and write errors.
func TestTopRestoresScreen(t *testing.T) {
	t.Parallel()
	p := newTerminal(t)
	before := p.state(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("show() returned, want a panic")
			}
		}()
		screen := &topScreen{out: p.file, size: terminalSize(p.file)}
		defer screen.Close()
		if err := screen.open(p.file); err != nil {
			t.Fatal(err)
		}
		_ = screen.show(t.Context(), time.Second, func(int, int) string { panic("a frame") })
	}()
	p.checkRestored(t, before)

	p = newTerminal(t)
	before = p.state(t)
	screen := &topScreen{out: p.file, size: terminalSize(p.file)}
	if err := screen.open(p.file); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		defer screen.closeOnPanic()
		panic("in a goroutine")
	}()
	screen.Suspend()()
	if err := screen.draw("after Close\n"); err != nil {
		t.Errorf("draw after Close returned %v, want nil", err)
	}
	p.checkRestored(t, before)

	writeErr := errors.New("write failed")
	screen = &topScreen{out: failingWriter{writeErr}, size: func() (int, int) { return 80, 24 }}
	defer screen.Close()
	if err := screen.open(strings.NewReader("")); !errors.Is(err, writeErr) {
		t.Errorf("open returned %v, want %v", err, writeErr)
	}
	if err := screen.show(t.Context(), time.Second, func(int, int) string { return "x\n" }); !errors.Is(err, writeErr) {
		t.Errorf("show returned %v, want %v", err, writeErr)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// TestTopProgram runs the program on a new terminal.
func TestTopProgram(t *testing.T) {
	t.Parallel()
	rbee, err := exec.LookPath("rbee")
	if err != nil {
		t.Fatal(err)
	}
	for name, quit := range map[string]func(p *testTerminal, cmd *exec.Cmd) error{
		"q":       func(p *testTerminal, _ *exec.Cmd) error { _, err := p.keys.WriteString("q"); return err },
		"Ctrl-C":  func(p *testTerminal, _ *exec.Cmd) error { _, err := p.keys.WriteString("\x03"); return err },
		"SIGINT":  func(_ *testTerminal, cmd *exec.Cmd) error { return cmd.Process.Signal(os.Interrupt) },
		"SIGTERM": func(_ *testTerminal, cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGTERM) },
	} {
		q := newFleetQueen(t, openStream("1"))
		p := newTerminal(t)
		before := p.state(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, rbee, "top", "--queen", q.URL)
		cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "TERM=xterm", "LC_ALL=C.UTF-8"}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = p.file, p.file, p.file
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waittest.Until(t, "a frame", func() bool { return strings.Contains(p.screen(), "gpu-2") })
		if err := quit(p, cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("top after %s exits with %v, want exit code 0", name, err)
		}
		p.checkRestored(t, before)
	}
}
