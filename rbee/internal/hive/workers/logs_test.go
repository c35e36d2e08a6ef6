package workers

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	p := spawn(t, m, "serve")
	ref := operations.WorkerRef{ID: p.ID}
	var text strings.Builder
	collect := func(e operations.Event) { text.WriteString(e.Text) }
	if _, err := m.Logs(t.Context(), operations.WorkerProcessLogs{WorkerRef: ref, Lines: 1}, collect); err != nil || text.String() != "serving\n" {
		t.Errorf("Logs(1 line) sent %q, %v, want %q", text.String(), err, "serving\n")
	}
	text.Reset()
	lines := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		_, err := m.Logs(context.Background(), operations.WorkerProcessLogs{WorkerRef: ref, Follow: true}, func(e operations.Event) { lines <- e.Text })
		done <- err
	}()
	next := func() string {
		t.Helper()
		select {
		case text := <-lines:
			return text
		case <-time.After(time.Minute):
			t.Fatal("timed out waiting for a log event")
			return ""
		}
	}
	if got := next(); !strings.Contains(got, "serving") {
		t.Errorf("first event = %q, want it to contain serving", got)
	}
	f, err := os.OpenFile(m.logPath(p.ID), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, "more")
	if got := next(); got != "more\n" {
		t.Errorf("next event = %q, want more", got)
	}
	if err := moveLog(m.logPath(p.ID), m.oldLogPath(p.ID), 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	// The file is now shorter than the follower's offset.
	fmt.Fprintln(f, "new")
	if got := next(); got != "new\n" {
		t.Errorf("event after the rotation = %q, want new", got)
	}
	fmt.Fprintln(f, "after rotation")
	if _, err := m.Stop(t.Context(), ref, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Logs(follow) = %v, want nil", err)
	}
	text.Reset()
	if _, err := m.Logs(t.Context(), operations.WorkerProcessLogs{WorkerRef: ref, Lines: -1}, collect); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text.String(), "rbee: "+p.ID) || !strings.HasSuffix(text.String(), "more\nnew\nafter rotation\n") {
		t.Errorf("Logs(all lines) sent %q, want the content of both files", text.String())
	}
}

func TestLastLineStart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*logChunk)
	for _, c := range []struct {
		text    string
		n       int
		want    string
		missing int
	}{
		{"", 3, "", 3},
		{"a\nb\n", 0, "", 0},
		{"a\nb\n", 1, "b\n", 0},
		{"a\nb", 1, "b", 0},
		{"a\nb\n", 2, "a\nb\n", 0},
		{"a\nb\n", 9, "a\nb\n", 7},
		{"\n\n", 1, "\n", 0},
		{"\n\n", 2, "\n\n", 0},
		{"a\n" + long + "\nb\n", 2, long + "\nb\n", 0},
		{"a\n" + long, 5, "a\n" + long, 3},
	} {
		at, missing, err := lastLineStart(strings.NewReader(c.text), int64(len(c.text)), c.n)
		if err != nil || c.text[at:] != c.want || missing != c.missing {
			t.Errorf("lastLineStart(%.20q, %d) = %d, %d, %v, want text %.20q and %d missing", c.text, c.n, at, missing, err, c.want, c.missing)
		}
	}
}

// TestLogsInChunks checks that Logs sends all kept lines in chunks of limited size that end
// at a newline.
func TestLogsInChunks(t *testing.T) {
	t.Parallel()
	m := newManager(t, testOptions(t.TempDir()))
	p := spawn(t, m, "serve")
	write := func(path, word string, lines int) string {
		t.Helper()
		var b strings.Builder
		for i := range lines {
			fmt.Fprintf(&b, "%s %d ✓\n", word, i)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	old, now := write(m.oldLogPath(p.ID), "old", 20_000), write(m.logPath(p.ID), "now", 20_000)
	for lines, want := range map[int]string{
		-1: old + now, 1: "now 19999 ✓\n", 20_001: "old 19999 ✓\n" + now, 1_000_000: old + now,
	} {
		var got strings.Builder
		_, err := m.Logs(t.Context(), operations.WorkerProcessLogs{WorkerRef: operations.WorkerRef{ID: p.ID}, Lines: lines}, func(e operations.Event) {
			got.WriteString(e.Text)
			if len(e.Text) > logChunk || !strings.HasSuffix(e.Text, "\n") {
				t.Errorf("Logs(%d lines) sent an event of %d bytes that ends in %q, want at most %d bytes and a newline at the end", lines, len(e.Text), e.Text[max(0, len(e.Text)-10):], logChunk)
			}
		})
		if err != nil || got.String() != want {
			t.Errorf("Logs(%d lines) sent %d bytes, %v, want %d", lines, got.Len(), err, len(want))
		}
	}
}

// logSize returns the size of both log files of a worker.
func logSize(m *Manager, id string) (size int64) {
	for _, path := range []string{m.logPath(id), m.oldLogPath(id)} {
		if info, err := os.Stat(path); err == nil {
			size += info.Size()
		}
	}
	return size
}

// TestLogIsRotatedWhileLoading checks that the log of a worker that writes continuously while
// it loads stays small.
func TestLogIsRotatedWhileLoading(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Timing.StallTimeout = 2 * time.Second // a quarter of it is the check interval
	m := newManager(t, o)
	m.maxLog = 64 << 10
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "log-flood", Detach: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // rotated repeatedly
		waittest.Until(t, "the log to grow", func() bool { return logSize(m, r.Worker.ID) > 3*m.maxLog })
		waittest.Until(t, "the log to be rotated", func() bool {
			info, err := os.Stat(m.logPath(r.Worker.ID))
			old, oldErr := os.Stat(m.oldLogPath(r.Worker.ID))
			return err == nil && oldErr == nil && info.Size() < m.maxLog && old.Size() <= 2*m.maxLog
		})
	}
	if _, err := m.Stop(t.Context(), operations.WorkerRef{ID: r.Worker.ID}, StopOptions{Force: true}); err != nil {
		t.Errorf("Stop() = %v, want nil", err)
	}
}

// TestLogIsRotatedInCrashLoop checks that the log of a worker that crashes repeatedly stays
// small.
func TestLogIsRotatedInCrashLoop(t *testing.T) {
	t.Parallel()
	o := testOptions(t.TempDir())
	o.Timing.Backoff = []time.Duration{0}
	m := newManager(t, o)
	m.maxLog = 8 << 10
	p := spawn(t, m, "crash-log")
	_, _ = httpGet(p.Port, "/exit")
	waittest.Until(t, "three restarts", func() bool {
		got, err := m.Get(operations.WorkerRef{ID: p.ID})
		return err == nil && got.Restarts >= 3
	})
	if size := logSize(m, p.ID); size > 100<<10 { // less than the output of two starts
		t.Errorf("log size = %d bytes, want at most %d", size, 100<<10)
	}
	if _, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{Force: true}); err != nil {
		t.Errorf("Stop() = %v, want nil", err)
	}
}
