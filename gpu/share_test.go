package gpu

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
)

// slowTool is a runner whose tool exits after it receives its output from answer. When it is
// canceled, it exits after one second.
type slowTool struct {
	started chan string // last argument of each command
	answer  chan string // output of the tool
}

func newSlowTool() slowTool {
	return slowTool{make(chan string, 10), make(chan string)}
}

func (s slowTool) run(ctx context.Context, _ string, args ...string) (Result, error) {
	s.started <- args[len(args)-1]
	select {
	case text := <-s.answer:
		return Result{Stdout: []byte(text)}, nil
	case <-ctx.Done():
		<-time.After(time.Second) // the tool exits late
		return Result{}, ctx.Err()
	}
}

// start calls do with an argument in a goroutine and returns a channel for the output or
// error.
func (s slowTool) start(ctx context.Context, c *calls, arg string) <-chan string {
	got := make(chan string, 1)
	go func() {
		r, err := c.do(ctx, 10*time.Second, s.run, "tool", arg)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(r.Stdout)
	}()
	synctest.Wait()
	return got
}

// TestConcurrentCallsAreShared checks that only concurrent calls of the same command line
// share a run.
func TestConcurrentCallsAreShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tool, c := newSlowTool(), new(calls)
		a, b := tool.start(t.Context(), c, "same"), tool.start(t.Context(), c, "same")
		other := tool.start(t.Context(), c, "other")
		if len(tool.started) != 2 {
			t.Errorf("%d tools were started, want 2", len(tool.started))
		}
		tool.answer <- "x"
		tool.answer <- "x"
		for _, got := range []string{<-a, <-b, <-other} {
			if got != "x" {
				t.Errorf("do() = %q, want x", got)
			}
		}
		later := tool.start(t.Context(), c, "same")
		tool.answer <- "new"
		if got := <-later; got != "new" || len(c.running) != 0 {
			t.Errorf("do() = %q with %d calls left, want new and none", got, len(c.running))
		}
	})
}

// TestLastCallerCancels checks that a canceled caller does not affect others, that the last
// one cancels the tool and waits until it exits, and that a later caller starts a new run.
func TestLastCallerCancels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tool, c := newSlowTool(), new(calls)
		short, cancelShort := context.WithTimeout(t.Context(), time.Second)
		defer cancelShort()
		long, cancelLong := context.WithCancel(t.Context())
		first := tool.start(short, c, "same") // the tool has a longer limit
		second := tool.start(long, c, "same")
		if got := <-first; got != context.DeadlineExceeded.Error() {
			t.Errorf("the first do() = %q, want deadline exceeded", got)
		}
		waittest.Advance(5 * time.Second)
		if len(second) != 0 {
			t.Errorf("the second do() = %q after the first was canceled, want a running tool", <-second)
		}
		cancelLong()
		synctest.Wait()
		if len(second) != 0 {
			t.Error("the last do() returned before the tool exited, want it to wait")
		}
		third := tool.start(t.Context(), c, "same")
		if len(tool.started) != 1 {
			t.Errorf("%d tools were started, want 1", len(tool.started))
		}
		if got := <-second; got != context.Canceled.Error() {
			t.Errorf("the second do() = %q, want canceled", got)
		}
		tool.answer <- "x"
		if got := <-third; got != "x" {
			t.Errorf("the third do() = %q, want x", got)
		}
	})
}

// TestSharedCallHasOneLimit checks that a tool is stopped at its time limit although later
// callers joined the call.
func TestSharedCallHasOneLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tool := newSlowTool()
		d := Detector{Run: tool.run}
		start := time.Now()
		var all []chan error
		for range 5 {
			done := make(chan error, 1)
			all = append(all, done)
			go func() {
				_, err := d.runTool(t.Context(), "tool", "same")
				done <- err
			}()
			waittest.Advance(2 * time.Second)
		}
		for _, done := range all {
			if err := <-done; !errors.Is(err, context.DeadlineExceeded) || err.Error() != "tool did not finish within 10s and was killed" {
				t.Errorf("runTool() = %v, want the time limit of the tool", err)
			}
		}
		if took := time.Since(start); took != 11*time.Second || len(tool.started) != 1 {
			t.Errorf("%d tools ran for %s, want one for 11s", len(tool.started), took)
		}
	})
}
