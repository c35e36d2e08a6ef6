package gpu

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// slowTool is a runner whose tool answers when it is told to, and ends when it is
// killed, but takes a second to die.
type slowTool struct {
	started chan string // the command's last word
	answer  chan string
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
		time.Sleep(time.Second)
		return Result{}, ctx.Err()
	}
}

// asked has somebody ask for word, and gives what comes of it.
func (s slowTool) asked(ctx context.Context, c *calls, word string) <-chan string {
	got := make(chan string, 1)
	go func() {
		r, err := c.do(ctx, 10*time.Second, s.run, "tool", word)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(r.Stdout)
	}()
	synctest.Wait()
	return got
}

// Those who ask the same at the same time share one call, those who ask something
// else or later do not.
func TestCallsAreShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tool, c := newSlowTool(), new(calls)
		a, b := tool.asked(t.Context(), c, "same"), tool.asked(t.Context(), c, "same")
		other := tool.asked(t.Context(), c, "other")
		if len(tool.started) != 2 {
			t.Errorf("%d calls of two kinds", len(tool.started))
		}
		tool.answer <- "x"
		tool.answer <- "x"
		for _, got := range []string{<-a, <-b, <-other} {
			if got != "x" {
				t.Error(got)
			}
		}
		later := tool.asked(t.Context(), c, "same")
		tool.answer <- "new"
		if got := <-later; got != "new" || len(c.underWay) != 0 {
			t.Errorf("%q, %d under way", got, len(c.underWay))
		}
	})
}

// Who leaves takes nothing from the others; the last one ends the tool, and waits
// for that. Who comes meanwhile gets a call of his own, after it.
func TestCallsThatAreLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tool, c := newSlowTool(), new(calls)
		impatient, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		patient, leaveToo := context.WithCancel(t.Context())
		first := tool.asked(impatient, c, "same") // the tool has longer than he
		second := tool.asked(patient, c, "same")
		if got := <-first; got != context.DeadlineExceeded.Error() {
			t.Error(got)
		}
		time.Sleep(5 * time.Second)
		if len(second) != 0 {
			t.Errorf("the other one's tool was ended: %s", <-second)
		}
		leaveToo()
		synctest.Wait()
		if len(second) != 0 {
			t.Error("the last one leaves before the tool has ended")
		}
		third := tool.asked(t.Context(), c, "same")
		if len(tool.started) != 1 {
			t.Errorf("%d tools at once", len(tool.started))
		}
		if got := <-second; got != context.Canceled.Error() {
			t.Error(got)
		}
		tool.answer <- "x"
		if got := <-third; got != "x" {
			t.Error(got)
		}
	})
}

// A tool that hangs ends at its own limit for everybody, also for those who came late:
// it does not live on because somebody always waits.
func TestCallsHaveALimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tool := newSlowTool()
		d := Detector{Run: tool.run}
		begin := time.Now()
		var all []chan error
		for range 5 {
			done := make(chan error, 1)
			all = append(all, done)
			go func() {
				_, err := d.ask(t.Context(), "tool", "same")
				done <- err
			}()
			time.Sleep(2 * time.Second)
		}
		for _, done := range all {
			if err := <-done; !errors.Is(err, context.DeadlineExceeded) || err.Error() != "tool did not answer within 10s and was killed" {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took != 11*time.Second || len(tool.started) != 1 {
			t.Errorf("took %s, %d tools", took, len(tool.started))
		}
	})
}
