package conform

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// exitError is implemented by sshx.ExitError.
type exitError interface {
	error
	ExitStatus() int
}

// codeError is implemented by sshx.Error.
type codeError interface {
	error
	ErrorCode() string
}

// wantExit stops the test unless the call returned an error with the exit status.
func wantExit(t *testing.T, call string, err error, status int) {
	t.Helper()
	var exit exitError
	if !errors.As(err, &exit) || exit.ExitStatus() != status {
		t.Fatalf("%s returned error %v, want exit status %d", call, err, status)
	}
}

// wantCode stops the test unless the call returned an error with the code.
func wantCode(t *testing.T, call string, err error, code string) {
	t.Helper()
	var c codeError
	if !errors.As(err, &c) || c.ErrorCode() != code {
		t.Fatalf("%s returned error %v, want code %q", call, err, code)
	}
}

// waitTimeout limits how long a test waits for a condition.
const waitTimeout = 20 * time.Second

// waitUntil waits until ok returns true.
func waitUntil(t *testing.T, condition string, ok func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(waitTimeout), time.NewTicker(5*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("timeout waiting for: %s", condition)
		}
	}
}

func testRun(t *testing.T, open Open) {
	m := open(t, Options{})
	ctx := t.Context()
	var out, errs bytes.Buffer
	if err := m.Host.Run(ctx, []string{"sh", "-c", "pwd; echo oops >&2"}, nil, &out, &errs); err != nil {
		t.Fatal(err)
	}
	if out.String() != m.Home+"\n" || errs.String() != "oops\n" {
		t.Errorf("Run() wrote stdout %q, stderr %q, want %q and %q", out.String(), errs.String(), m.Home+"\n", "oops\n")
	}
	for _, status := range []int{1, 3, 126, 127, 255} {
		exit := fmt.Sprint("exit ", status)
		wantExit(t, fmt.Sprintf("Run(%q)", exit), m.Host.Run(ctx, []string{"sh", "-c", exit}, nil, nil, nil), status)
	}
	wantExit(t, "Run() of a missing program", m.Host.Run(ctx, []string{"no-such-program-here"}, nil, nil, nil), 127)
	wantExit(t, "Run(kill -KILL $$)", m.Host.Run(ctx, []string{"sh", "-c", "kill -KILL $$"}, nil, nil, nil), 128+9)
	for _, argv := range [][]string{nil, {""}, {"echo", "a\x00b"}} {
		wantCode(t, fmt.Sprintf("Run(%q)", argv), m.Host.Run(ctx, argv, nil, nil, nil), "failed")
	}
	// A nil stdin is empty. It is not the standard input of this process.
	out.Reset()
	if err := m.Host.Run(ctx, []string{"cat"}, nil, &out, nil); err != nil || out.Len() != 0 {
		t.Errorf("Run(cat) with nil stdin printed %q, error %v, want no output", out.String(), err)
	}
}

// specialArgs contains arguments with special characters of different shells.
var specialArgs = []string{
	"", " ", "  two  spaces ", "'", "''", `"`, `\`, `\\`, `'\''`, `a\`, "`id`", "$(id)", "$HOME", "${HOME}", "~", "~root", "!", "!!", "!x",
	"a;b", "a&b", "a|b", "a>b", "<a", "*", "?", "[a-z]", "{a,b}", "#x", "a#b", "-n", "--", "=ls", "a=b", "%1", "^a^b", "(a)", "é", "\t", "a\nb",
	"\n", "\r\n", "\x01\x7f", "it's \"quoted\" \\ and !", "if", "for", "-e", "\xff\xfe",
}

func testQuoting(t *testing.T, open Open) {
	m := open(t, Options{})
	var out bytes.Buffer
	argv := append([]string{"printf", `%s\0`}, specialArgs...)
	if err := m.Host.Run(t.Context(), argv, nil, &out, nil); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00")
	for i, want := range specialArgs {
		if i >= len(got) || got[i] != want {
			t.Fatalf("Run() passed argument %d as %q, want %q", i, got[min(i, len(got)-1)], want)
		}
	}
}

// pattern returns size pseudo-random bytes.
func pattern(size int) []byte {
	b := make([]byte, size)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func testStreams(t *testing.T, open Open) {
	m := open(t, Options{})
	data := pattern(3<<20 + 7) // larger than the window size of SSH
	var out, errs bytes.Buffer
	if err := m.Host.Run(t.Context(), []string{"sh", "-c", "tee /dev/stderr"}, bytes.NewReader(data), &out, &errs); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), data) || !bytes.Equal(errs.Bytes(), data) {
		t.Errorf("tee wrote %d bytes to stdout and %d to stderr, want the %d bytes of stdin", out.Len(), errs.Len(), len(data))
	}
	// Run does not block if the program does not read its input.
	if err := m.Host.Run(t.Context(), []string{"true"}, bytes.NewReader(data), nil, nil); err != nil {
		t.Errorf("Run(true) with unread input = %v, want nil", err)
	}
}

func testStderrTail(t *testing.T, open Open) {
	m := open(t, Options{})
	err := m.Host.Run(t.Context(), []string{"sh", "-c", "i=0; while test $i -lt 2000; do echo line $i >&2; i=$((i+1)); done; echo last line >&2; exit 9"}, nil, nil, nil)
	wantExit(t, "Run(exit 9)", err, 9)
	if !strings.Contains(err.Error(), "last line") || len(err.Error()) > 1000 {
		t.Errorf("Run() returned error %q, want an error with only the last line of stderr", err)
	}
}

var errBroken = errors.New("simulated error")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func testWriterFails(t *testing.T, open Open) {
	m := open(t, Options{})
	err := m.Host.Run(t.Context(), []string{"sh", "-c", "while :; do echo y; done"}, nil, brokenWriter{}, nil)
	if !errors.Is(err, errBroken) {
		t.Errorf("Run() with a failing writer returned %v, want %v", err, errBroken)
	}
}

func testReaderFails(t *testing.T, open Open) {
	m := open(t, Options{})
	in := io.MultiReader(strings.NewReader("some"), brokenReader{})
	err := m.Host.Run(t.Context(), []string{"sh", "-c", "cat >/dev/null; echo end > eof; sleep 30"}, in, nil, nil)
	if !errors.Is(err, errBroken) {
		t.Errorf("Run() with a failing reader returned %v, want %v", err, errBroken)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

// lines returns a writer, and a channel that receives the lines written to it.
func lines(t *testing.T) (io.Writer, <-chan string) {
	r, w := io.Pipe()
	out := make(chan string, 100)
	go func() {
		s := bufio.NewScanner(r)
		for s.Scan() {
			out <- s.Text()
		}
		close(out)
	}()
	t.Cleanup(func() { w.Close() })
	return w, out
}

func testCancel(t *testing.T, open Open) {
	m := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, out := lines(t)
	stdin, keepOpen := io.Pipe()
	defer keepOpen.Close()
	done := make(chan error, 1)
	go func() {
		// A program that creates a file after EOF on its input.
		done <- m.Host.Run(ctx, []string{"sh", "-c", "echo ready; cat; echo over > over"}, stdin, w, nil)
	}()
	if got := <-out; got != "ready" {
		t.Fatalf("Run() printed %q, want ready", got)
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("canceled Run() returned %v, want %v", err, context.Canceled)
		}
		wantCode(t, "canceled Run()", err, "canceled")
	case <-time.After(waitTimeout):
		t.Fatalf("Run() has not returned %s after its context was canceled", waitTimeout)
	}
	// The host is still usable. A canceled context does not start a program.
	if err := m.Host.Run(t.Context(), []string{"true"}, nil, nil, nil); err != nil {
		t.Errorf("Run() after a canceled Run() = %v, want nil", err)
	}
	if err := m.Host.Run(ctx, []string{"touch", "started"}, nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Run() with a canceled context returned %v, want %v", err, context.Canceled)
	}
	if _, err := os.Stat(filepath.Join(m.Home, "started")); err == nil {
		t.Error("Run() with a canceled context started the program, want no start")
	}
}

func testDeadline(t *testing.T, open Open) {
	m := open(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := m.Host.Script(ctx, "sleep 60", nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Script() with an expired deadline returned %v, want %v", err, context.DeadlineExceeded)
	}
	wantCode(t, "Script() with an expired deadline", err, "timeout")
}

func testScript(t *testing.T, open Open) {
	m := open(t, Options{})
	for _, c := range []struct {
		script, out string
		status      int
	}{
		{"", "", 0},
		{"echo one\necho two", "one\ntwo\n", 0},
		{"pwd", m.Home + "\n", 0},
		{"echo \"it's\" 'a \\ b' \"$((1+2))\" # comment", "it's a \\ b 3\n", 0},
		{"f() { echo f $1; }\nf x\nexit 5", "f x\n", 5},
		{"false", "", 1},
		{"set -e\nfalse\necho no", "", 1},
		{"cat; read -r x || echo no input", "no input\n", 0},
		{"cat <<EOF\nhere $((2*3))\nEOF", "here 6\n", 0},
		{"trap 'echo bye' EXIT\necho hi", "hi\nbye\n", 0},
		{"echo $# $0", "0 sh\n", 0},
		{"exec sh -c 'echo became; exit 7'", "became\n", 7},
		{"sleep 0 & wait $!; echo $?", "0\n", 0},
		{strings.Repeat("x=1\n", 20000) + "echo $x", "1\n", 0},
	} {
		var out bytes.Buffer
		err := m.Host.Script(t.Context(), c.script, &out, nil)
		name := c.script[:min(len(c.script), 60)]
		if out.String() != c.out {
			t.Errorf("Script(%q) printed %q, want %q", name, out.String(), c.out)
		}
		var exit exitError
		switch {
		case c.status == 0 && err != nil:
			t.Errorf("Script(%q) = %v, want nil", name, err)
		case c.status != 0 && (!errors.As(err, &exit) || exit.ExitStatus() != c.status):
			t.Errorf("Script(%q) returned %v, want exit status %d", name, err, c.status)
		}
	}
	if err := m.Host.Script(t.Context(), "if", nil, nil); err == nil {
		t.Error("Script() with a syntax error returned no error, want one")
	}
}

// testScriptCancel checks that a script gets SIGHUP when its context ends, and that a background job keeps running after a
// script has exited.
func testScriptCancel(t *testing.T, open Open) {
	m := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, out := lines(t)
	done := make(chan error, 1)
	go func() {
		done <- m.Host.Script(ctx, "trap 'echo hup > hup; exit 1' HUP\necho ready\nwhile :; do sleep 0.05; done", w, nil)
	}()
	if got := <-out; got != "ready" {
		t.Fatalf("Script() printed %q, want ready", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled Script() returned %v, want %v", err, context.Canceled)
	}
	waitUntil(t, "SIGHUP trap of the script", func() bool {
		_, err := os.Stat(filepath.Join(m.Home, "hup"))
		return err == nil
	})
	// A background job keeps running after the script has exited normally.
	if err := m.Host.Script(t.Context(), "(sleep 0.3; echo done > later) >/dev/null 2>&1 &", nil, nil); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "output of the background job", func() bool {
		_, err := os.Stat(filepath.Join(m.Home, "later"))
		return err == nil
	})
}

func testConcurrent(t *testing.T, open Open) {
	m := open(t, Options{})
	var all sync.WaitGroup
	for i := range 25 { // more than the session limit of sshd
		all.Go(func() {
			data := pattern(10000 + i)
			want := fmt.Sprintf("%x", sha256.Sum256(data))
			var out bytes.Buffer
			if err := m.Host.Run(t.Context(), []string{"cat"}, bytes.NewReader(data), &out, nil); err != nil {
				t.Errorf("concurrent Run(cat) %d = %v, want nil", i, err)
				return
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(out.Bytes())); got != want {
				t.Errorf("concurrent Run(cat) %d printed %d bytes, want the %d bytes of stdin", i, out.Len(), len(data))
			}
		})
	}
	all.Wait()
}
