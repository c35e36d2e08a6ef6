package ui

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/operations"
)

// screen collects the output of a Live.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns the output since the last call.
func (s *screen) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newTestLive(t *testing.T, columns, rows int) (*Live, *screen, *fakeClock) {
	s, c := &screen{}, &fakeClock{now: installedAt}
	l := NewLive(LiveOptions{W: s, Now: c.Now, Size: func() (int, int) { return columns, rows }, Tick: make(chan time.Time)})
	t.Cleanup(l.Close)
	return l, s, c
}

// redrawn draws once and returns the output.
func redrawn(l *Live, s *screen) string {
	l.mu.Lock()
	l.draw()
	l.mu.Unlock()
	return s.take()
}

func TestLiveDrawsOperation(t *testing.T) {
	t.Parallel()
	l, s, clock := newTestLive(t, 70, 24)
	worker := step("gpu-1", operations.ActionInstallWorker, "echo")
	phase := func(hive string, p operations.Phase) {
		l.Handle(operations.Event{Type: operations.EventPhase, Hive: hive, Phase: p})
	}
	var output strings.Builder
	frame := func() {
		clock.advance(1500 * time.Millisecond)
		output.WriteString(strings.ReplaceAll(redrawn(l, s), "\x1b", "ESC") + "---\n")
	}
	phase("gpu-1", operations.PhaseConnecting)
	phase("longer-alias", operations.PhaseConnecting)
	frame()
	phase("gpu-1", operations.PhaseApplying)
	l.Handle(operations.Event{Type: operations.EventStep, Hive: "gpu-1", Step: &worker, StepStatus: operations.StepStarted})
	l.Handle(operations.Event{Type: operations.EventProgress, Hive: "gpu-1", Step: &worker, Bytes: 1_200_000, Total: 3_200_000})
	l.Handle(operations.Event{Type: operations.EventPhase, Hive: "longer-alias", Phase: operations.PhaseUnreachable, Error: &operations.Error{Message: "cannot reach bee@gpu-server-4.example.com:22: connection refused"}})
	frame()
	l.Handle(operations.Event{Type: operations.EventNote, Hive: "gpu-1", Message: "a note"})
	phase("gpu-1", operations.PhaseDone)
	frame()
	frame()
	l.Close()
	output.WriteString(strings.ReplaceAll(s.take(), "\x1b", "ESC"))
	golden(t, "live", output.String())
}

func TestLiveFitsTheTerminal(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{80, 24}, {40, 5}, {20, 3}, {10, 2}, {1, 1}} {
		l, _, clock := newTestLive(t, size[0], size[1])
		for i := range 50 {
			p := operations.PhaseDone
			if i%7 == 0 {
				p = operations.PhaseApplying
			}
			l.Handle(operations.Event{Type: operations.EventPhase, Hive: fmt.Sprintf("gpu-server-with-a-name-%02d", i), Phase: p, Message: strings.Repeat("long ", 40)})
		}
		lines := l.frame(size[0], size[1]-1, clock.Now())
		if limit := max(size[1]-1, 2); len(lines) > limit {
			t.Errorf("frame of size %v has %d lines, want at most %d", size, len(lines), limit)
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > size[0] && size[0] > 2 {
				t.Errorf("frame of size %v has a line of %d columns, want at most %d: %q", size, n, size[0], line)
			}
		}
		if size[1] == 24 {
			if !strings.Contains(lines[0], "applying") || !strings.Contains(lines[7], "applying") || strings.Contains(lines[8], "applying") {
				t.Errorf("frame of size %v =\n%s\nwant busy hives first", size, strings.Join(lines, "\n"))
			}
			if last := lines[len(lines)-1]; last != "… and 28 more (42 of 50 finished)" {
				t.Errorf("last line of a frame of size %v = %q, want the number of other hives", size, last)
			}
		}
	}
}

func TestLiveSuspendAndClose(t *testing.T) {
	t.Parallel()
	l, s, _ := newTestLive(t, 80, 24)
	l.Handle(operations.Event{Type: operations.EventPhase, Hive: "a", Phase: operations.PhaseReading})
	if redrawn(l, s) == "" {
		t.Fatal("draw() wrote nothing, want a line")
	}
	resume := l.Suspend()
	if got, want := s.take(), "\r\x1b[1A\x1b[J"; got != want {
		t.Errorf("Suspend() wrote %q, want %q", got, want)
	}
	if got := redrawn(l, s); got != "" {
		t.Errorf("draw() while suspended wrote %q, want nothing", got)
	}
	resume()
	resume() // the second call has no effect
	if redrawn(l, s) == "" {
		t.Error("draw() after resume() wrote nothing, want a line")
	}
	l.Close()
	l.Close()
	s.take()
	if got := redrawn(l, s); got != "" {
		t.Errorf("draw() after Close() wrote %q, want nothing", got)
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	s := step("a", operations.ActionInstallWorker, "echo")
	events := []operations.Event{
		{Type: operations.EventPhase, Hive: "a", Phase: operations.PhaseConnecting},
		{Type: operations.EventPhase, Hive: "a", Phase: operations.PhaseWaiting, Message: "locked by me@laptop, PID 7"},
		{Type: operations.EventStep, Hive: "a", Step: &s, StepStatus: operations.StepStarted},
		{Type: operations.EventProgress, Hive: "a", Step: &s, Bytes: 1},
		{Type: operations.EventStep, Hive: "a", Step: &s, StepStatus: operations.StepDone},
		{Type: operations.EventStep, Hive: "a", Step: &s, StepStatus: operations.StepFailed, Error: &operations.Error{Message: "full\x1b[2J"}},
		{Type: operations.EventNote, Message: "hello\x1b[2J\nyou"},
		{Type: operations.EventPhase, Hive: "a", Phase: operations.PhaseFailed, Error: &operations.Error{Message: "two\nlines"}},
	}
	for verbose, want := range map[bool]string{
		false: "a: waiting: locked by me@laptop, PID 7\na: installed worker echo 1.0\nhello [2J you\n",
		true: "a: connecting\na: waiting: locked by me@laptop, PID 7\na: installing worker echo 1.0\na: installed worker echo 1.0\n" +
			"a: cannot install worker echo 1.0\nhello [2J you\na: failed\n",
	} {
		var b strings.Builder
		p := &Plain{W: &b, Verbose: verbose}
		for _, e := range events {
			p.Handle(e)
		}
		if b.String() != want {
			t.Errorf("Plain with verbose %t wrote\n%s\nwant\n%s", verbose, b.String(), want)
		}
	}
}
