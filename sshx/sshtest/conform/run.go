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

// exitError is how sshx.ExitError is seen by who does not import it.
type exitError interface {
	error
	ExitStatus() int
}

// coded is how sshx.Error is seen by who does not import it.
type coded interface {
	error
	ErrorCode() string
}

func wantExit(t *testing.T, err error, status int) {
	t.Helper()
	var exit exitError
	if !errors.As(err, &exit) || exit.ExitStatus() != status {
		t.Fatalf("error %v, want exit status %d", err, status)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var c coded
	if !errors.As(err, &c) || c.ErrorCode() != code {
		t.Fatalf("error %v, want code %q", err, code)
	}
}

// patience is how long a test waits for something that takes no time.
const patience = 20 * time.Second

// eventually waits until ok says true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come true", what)
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
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	for _, status := range []int{1, 3, 126, 127, 255} {
		wantExit(t, m.Host.Run(ctx, []string{"sh", "-c", fmt.Sprint("exit ", status)}, nil, nil, nil), status)
	}
	wantExit(t, m.Host.Run(ctx, []string{"no-such-program-here"}, nil, nil, nil), 127)
	wantExit(t, m.Host.Run(ctx, []string{"sh", "-c", "kill -KILL $$"}, nil, nil, nil), 128+9)
	for _, argv := range [][]string{nil, {""}, {"echo", "a\x00b"}} {
		wantCode(t, m.Host.Run(ctx, argv, nil, nil, nil), "failed")
	}
	// No input is the end of input, not this process's own.
	out.Reset()
	if err := m.Host.Run(ctx, []string{"cat"}, nil, &out, nil); err != nil || out.Len() != 0 {
		t.Errorf("cat without input: %v, %q", err, out.String())
	}
}

// Hostile are arguments that one shell or another would take apart.
var hostile = []string{
	"", " ", "  two  spaces ", "'", "''", `"`, `\`, `\\`, `'\''`, `a\`, "`id`", "$(id)", "$HOME", "${HOME}", "~", "~root", "!", "!!", "!x",
	"a;b", "a&b", "a|b", "a>b", "<a", "*", "?", "[a-z]", "{a,b}", "#x", "a#b", "-n", "--", "=ls", "a=b", "%1", "^a^b", "(a)", "é", "\t", "a\nb",
	"\n", "\r\n", "\x01\x7f", "it's \"quoted\" \\ and !", "if", "for", "-e", "\xff\xfe",
}

func testQuoting(t *testing.T, open Open) {
	m := open(t, Options{})
	var out bytes.Buffer
	argv := append([]string{"printf", `%s\0`}, hostile...)
	if err := m.Host.Run(t.Context(), argv, nil, &out, nil); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00")
	for i, want := range hostile {
		if i >= len(got) || got[i] != want {
			t.Fatalf("argument %d is %q, want %q", i, got[min(i, len(got)-1)], want)
		}
	}
}

// pattern is size bytes that look like nothing.
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
	data := pattern(3<<20 + 7) // more than SSH's windows hold
	var out, errs bytes.Buffer
	if err := m.Host.Run(t.Context(), []string{"sh", "-c", "tee /dev/stderr"}, bytes.NewReader(data), &out, &errs); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), data) || !bytes.Equal(errs.Bytes(), data) {
		t.Errorf("%d bytes came back as %d and %d other ones", len(data), out.Len(), errs.Len())
	}
	// A program that reads nothing does not get stuck on its input.
	if err := m.Host.Run(t.Context(), []string{"true"}, bytes.NewReader(data), nil, nil); err != nil {
		t.Errorf("program that ignores its input: %v", err)
	}
}

func testStderrTail(t *testing.T, open Open) {
	m := open(t, Options{})
	err := m.Host.Run(t.Context(), []string{"sh", "-c", "i=0; while test $i -lt 2000; do echo line $i >&2; i=$((i+1)); done; echo the reason >&2; exit 9"}, nil, nil, nil)
	wantExit(t, err, 9)
	if !strings.Contains(err.Error(), "the reason") || len(err.Error()) > 1000 {
		t.Errorf("error %q does not end in the last line of stderr", err)
	}
}

var errBroken = errors.New("broken on purpose")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func testWriterFails(t *testing.T, open Open) {
	m := open(t, Options{})
	err := m.Host.Run(t.Context(), []string{"sh", "-c", "while :; do echo y; done"}, nil, brokenWriter{}, nil)
	if !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

func testReaderFails(t *testing.T, open Open) {
	m := open(t, Options{})
	in := io.MultiReader(strings.NewReader("some"), brokenReader{})
	err := m.Host.Run(t.Context(), []string{"sh", "-c", "cat >/dev/null; echo end > took-it-for-the-end; sleep 30"}, in, nil, nil)
	if !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

// lines gives a writer whose lines come out of a channel.
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
		// A program that watches its input, and says so when it ends.
		done <- m.Host.Run(ctx, []string{"sh", "-c", "echo ready; cat; echo over > over"}, stdin, w, nil)
	}()
	if got := <-out; got != "ready" {
		t.Fatalf("got %q", got)
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		wantCode(t, err, "canceled")
	case <-time.After(patience):
		t.Fatal("Run did not return after its context was canceled")
	}
	// The host is still good for more, and a canceled context starts nothing.
	if err := m.Host.Run(t.Context(), []string{"true"}, nil, nil, nil); err != nil {
		t.Errorf("after a canceled run: %v", err)
	}
	if err := m.Host.Run(ctx, []string{"touch", "started"}, nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(m.Home, "started")); err == nil {
		t.Error("a canceled context has started a program")
	}
}

func testDeadline(t *testing.T, open Open) {
	m := open(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := m.Host.Script(ctx, "sleep 60", nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	wantCode(t, err, "timeout")
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
			t.Errorf("%q printed %q, want %q", name, out.String(), c.out)
		}
		var exit exitError
		switch {
		case c.status == 0 && err != nil:
			t.Errorf("%q: %v", name, err)
		case c.status != 0 && (!errors.As(err, &exit) || exit.ExitStatus() != c.status):
			t.Errorf("%q: %v, want status %d", name, err, c.status)
		}
	}
	if err := m.Host.Script(t.Context(), "if", nil, nil); err == nil {
		t.Error("a syntax error went unnoticed")
	}
}

// testScriptEnds sees that a script does not outlive the call that ran it, and that what it started to stay does.
func testScriptEnds(t *testing.T, open Open) {
	m := open(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, out := lines(t)
	done := make(chan error, 1)
	go func() {
		done <- m.Host.Script(ctx, "trap 'echo hup > ended; exit 1' HUP\necho ready\nwhile :; do sleep 0.05; done", w, nil)
	}()
	if got := <-out; got != "ready" {
		t.Fatalf("got %q", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	eventually(t, "the script's end", func() bool {
		_, err := os.Stat(filepath.Join(m.Home, "ended"))
		return err == nil
	})
	// A job that the script leaves behind lives on after a normal end.
	if err := m.Host.Script(t.Context(), "(sleep 0.3; echo done > later) >/dev/null 2>&1 &", nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the background job's work", func() bool {
		_, err := os.Stat(filepath.Join(m.Home, "later"))
		return err == nil
	})
}

func testConcurrent(t *testing.T, open Open) {
	m := open(t, Options{})
	var all sync.WaitGroup
	for i := range 25 { // more than the sessions that sshd allows at once
		all.Go(func() {
			data := pattern(10000 + i)
			want := fmt.Sprintf("%x", sha256.Sum256(data))
			var out bytes.Buffer
			if err := m.Host.Run(t.Context(), []string{"cat"}, bytes.NewReader(data), &out, nil); err != nil {
				t.Error(err)
				return
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(out.Bytes())); got != want {
				t.Errorf("run %d: %d bytes came back as %d other ones", i, len(data), out.Len())
			}
		})
	}
	all.Wait()
}
