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
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// fleetQueen tells of a fleet. Each stream is one of streams, the last again and again.
type fleetQueen struct {
	*httptest.Server
	streams []func(w io.Writer, r *http.Request)

	mu    sync.Mutex
	begun int
	keys  []string
}

func newFleetQueen(t *testing.T, streams ...func(w io.Writer, r *http.Request)) *fleetQueen {
	q := &fleetQueen{streams: streams}
	q.Server = httptest.NewServer(http.HandlerFunc(q.answer))
	t.Cleanup(q.Server.Close)
	return q
}

func (q *fleetQueen) answer(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != operations.FleetPath {
		http.NotFound(w, r)
		return
	}
	q.mu.Lock()
	q.keys = append(q.keys, r.Header.Get("Authorization"))
	n := min(q.begun, len(q.streams)-1)
	if r.Header.Get("Accept") != sse.ContentType {
		q.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(fleetNamed("once"))
		return
	}
	q.begun++
	q.mu.Unlock()
	w.Header().Set("Content-Type", sse.ContentType)
	w.(http.Flusher).Flush()
	q.streams[n](flushed{w}, r)
}

// flushed sends what is written at once.
type flushed struct{ http.ResponseWriter }

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	f.ResponseWriter.(http.Flusher).Flush()
	return n, err
}

func fleetNamed(version string) operations.FleetSnapshot {
	return operations.FleetSnapshot{
		Version: version, Time: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC),
		Hives: []operations.HiveView{{Alias: "gpu-1", Link: operations.LinkOnline}, {Alias: "gpu-2", Link: operations.LinkOffline, Problem: "no route\x1b[2J to host"}},
	}
}

// tell writes a snapshot to a stream.
func tell(w io.Writer, version string) {
	data, _ := json.Marshal(fleetNamed(version))
	_, _ = w.Write(sse.Append(sse.Append(nil, sse.Event{Comment: true, Data: []byte("hello")}), sse.Event{Data: data}))
}

// telling is a stream that tells once and stays open.
func telling(version string) func(w io.Writer, r *http.Request) {
	return func(w io.Writer, r *http.Request) {
		tell(w, version)
		<-r.Context().Done()
	}
}

// topApp is a program of which stdin, stdout and stderr are given.
func topApp(url string, in io.Reader, out, errOut io.Writer) *app {
	a := newApp(Process{Stdin: in, Stdout: out, Stderr: errOut, Env: []string{"TERM=xterm", "RBEE_QUEEN=" + url, "RBEE_API_KEY=s3cret"}})
	a.progress = ui.Silent{}
	return a
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestTopOnce(t *testing.T) {
	t.Parallel()
	q := newFleetQueen(t, telling("1"))
	for _, c := range []topCmd{{Once: true, Interval: time.Second}, {Interval: time.Second}} {
		var out, errOut strings.Builder
		if err := c.Run(t.Context(), topApp(q.URL, strings.NewReader(""), &out, &errOut)); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); strings.Contains(got, "\x1b") || errOut.Len() > 0 ||
			!strings.HasPrefix(got, "2 hives: 1 online 1 offline  ") || !strings.Contains(got, "\n! gpu-2 is offline: no route [2J to host\n") || !strings.Contains(got, "rbee once at "+q.URL) {
			t.Errorf("stderr %q, stdout:\n%s", errOut.String(), got)
		}
	}
	var out strings.Builder
	a := topApp(q.URL, strings.NewReader(""), &out, io.Discard)
	a.json = true
	if err := (&topCmd{Interval: time.Second}).Run(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var got operations.FleetSnapshot
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || !reflect.DeepEqual(got, fleetNamed("once")) {
		t.Errorf("error %v, stdout:\n%s", err, out.String())
	}
	if len(q.keys) != 3 || q.keys[0] != "Bearer s3cret" {
		t.Errorf("the keys were %q", q.keys)
	}
}

func TestTopErrors(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	answer := func(status int, kind, text string) string {
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
		"gone":     {url: gone.URL, code: 4, want: []string{"cannot be reached", "connection refused", "`rbee serve` starts a queen"}},
		"key":      {url: answer(401, "application/json", `{}`), code: 1, want: []string{"the key was refused", "RBEE_API_KEY"}},
		"scope":    {url: answer(403, "application/json", `{"error":{"code":"failed","message":"it takes an admin key"}}`), code: 1, want: []string{"it takes an admin key"}},
		"old":      {url: answer(404, "text/plain", "404 page not found"), code: 1, want: []string{"tells nothing of its fleet", "404 Not Found"}},
		"page":     {url: answer(200, "text/html", "<p>"), code: 1, want: []string{"text/html, which is no queen"}},
		"nonsense": {url: answer(200, "application/json", "{"), code: 1, want: []string{"cannot be read"}},
		"address":  {url: "gpu-1", code: 64, want: []string{"is no URL"}},
		"interval": {url: gone.URL, interval: time.Millisecond, code: 64, want: []string{"--interval"}},
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
				t.Errorf("%s: no %q in:\n%s", name, want, errOut.String())
			}
		}
		if strings.Contains(errOut.String(), "s3cret") {
			t.Errorf("%s: the key is in:\n%s", name, errOut.String())
		}
	}
}

// TestTopFeedComesBack cuts a stream, in the middle of a snapshot too, and goes on.
func TestTopFeedComesBack(t *testing.T) {
	t.Parallel()
	cut := make(chan struct{})
	q := newFleetQueen(t,
		func(w io.Writer, _ *http.Request) { tell(w, "1"); <-cut },
		func(w io.Writer, _ *http.Request) { io.WriteString(w, `data: {"version":"ha`) },
		func(io.Writer, *http.Request) { panic(http.ErrAbortHandler) },
		telling("2"))
	a := topApp(q.URL, strings.NewReader(""), io.Discard, io.Discard)
	runner, err := a.client(q.URL)
	if err != nil {
		t.Fatal(err)
	}
	feed := &topFeed{queen: runner.(*remoteQueen), first: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- feed.follow(ctx) }()
	<-feed.first
	if s, _, o := feed.now(); s.Version != "1" || o.Problem != "" {
		t.Errorf("the first snapshot is %q, problem %q", s.Version, o.Problem)
	}
	close(cut)
	eventually(t, "the problem", func() bool {
		s, now, o := feed.now()
		if s.Version != "1" {
			t.Errorf("without a connection the snapshot is %q", s.Version)
		}
		if o.Problem != "" && now.Before(s.Time) {
			t.Errorf("it is %v, before %v", now, s.Time)
		}
		return strings.Contains(o.Problem, "cannot be reached")
	})
	eventually(t, "the snapshot after", func() bool {
		s, _, o := feed.now()
		return s.Version == "2" && o.Problem == "" && o.Age < 20*time.Second
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if q.begun != 4 {
		t.Errorf("%d streams were begun", q.begun)
	}
}

// terminalOf is a terminal and all that was written to it.
type terminalOf struct {
	keys *os.File // where a person types
	file *os.File // what a program has

	mu   sync.Mutex
	seen bytes.Buffer
}

func newTerminal(t *testing.T) *terminalOf {
	t.Helper()
	keys, file, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { keys.Close(); file.Close() })
	term := &terminalOf{keys: keys, file: file}
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

func (p *terminalOf) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	if err := pty.Setsize(p.keys, &pty.Winsize{Cols: columns, Rows: rows}); err != nil {
		t.Fatal(err)
	}
}

func (p *terminalOf) screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

func (p *terminalOf) state(t *testing.T) *term.State {
	t.Helper()
	state, err := term.GetState(int(p.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// checkRestored holds a terminal to being as it was.
func (p *terminalOf) checkRestored(t *testing.T, before *term.State) {
	t.Helper()
	eventually(t, "the usual screen", func() bool { return strings.Contains(p.screen(), topClose) })
	screen := p.screen()
	if strings.Count(screen, topOpen) != 1 || strings.Count(screen, topClose) != 1 || !strings.HasPrefix(screen, topOpen) {
		t.Errorf("the screen was not taken over and given back once: %q", screen)
	}
	if _, after, _ := strings.Cut(screen, topClose); strings.Contains(after, "\x1b") {
		t.Errorf("it was drawn on the usual screen: %q", after)
	}
	if after := p.state(t); !reflect.DeepEqual(before, after) {
		t.Errorf("the terminal was %v and is %v", before, after)
	}
}

func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"q": "q", "Ctrl-C": "\x03"} {
		q := newFleetQueen(t, telling("1"))
		p := newTerminal(t)
		before := p.state(t)
		ended := make(chan error, 1)
		go func() {
			ended <- (&topCmd{Interval: time.Hour}).Run(t.Context(), topApp(q.URL, p.file, p.file, p.file))
		}()
		eventually(t, "a frame", func() bool { return strings.Contains(p.screen(), "gpu-2") })
		if reflect.DeepEqual(before, p.state(t)) {
			t.Errorf("%s: the terminal is not raw", name)
		}
		p.resize(t, 37, 24) // is drawn at once
		eventually(t, "a smaller frame", func() bool { return strings.Contains(p.screen(), "no route [2J to…\x1b[K") })
		if _, err := p.keys.WriteString("x" + key); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s does not end it", name)
		}
		p.checkRestored(t, before)
	}
}

// TestTopRestoresTheScreen whatever ends the drawing.
func TestTopRestoresTheScreen(t *testing.T) {
	t.Parallel()
	p := newTerminal(t)
	before := p.state(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was lost")
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
	if err := screen.draw("too late\n"); err != nil {
		t.Error(err)
	}
	p.checkRestored(t, before)

	broken := errors.New("the terminal is gone")
	screen = &topScreen{out: failingWriter{broken}, size: func() (int, int) { return 80, 24 }}
	defer screen.Close()
	if err := screen.open(strings.NewReader("")); !errors.Is(err, broken) {
		t.Errorf("opening: %v", err)
	}
	if err := screen.show(t.Context(), time.Second, func(int, int) string { return "x\n" }); !errors.Is(err, broken) {
		t.Errorf("drawing: %v", err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// TestTopProgram runs the real program on a terminal of its own.
func TestTopProgram(t *testing.T) {
	t.Parallel()
	rbee, err := exec.LookPath("rbee")
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(p *terminalOf, cmd *exec.Cmd) error{
		"q":       func(p *terminalOf, _ *exec.Cmd) error { _, err := p.keys.WriteString("q"); return err },
		"Ctrl-C":  func(p *terminalOf, _ *exec.Cmd) error { _, err := p.keys.WriteString("\x03"); return err },
		"SIGINT":  func(_ *terminalOf, cmd *exec.Cmd) error { return cmd.Process.Signal(os.Interrupt) },
		"SIGTERM": func(_ *terminalOf, cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGTERM) },
	} {
		q := newFleetQueen(t, telling("1"))
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
		eventually(t, "a frame", func() bool { return strings.Contains(p.screen(), "gpu-2") })
		if err := end(p, cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		p.checkRestored(t, before)
	}
}
