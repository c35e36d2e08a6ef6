package timeout

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("timeout")
		ctx, c, stop := WithClock(t.Context(), 50*time.Millisecond, cause)
		defer stop()
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		pass(time.Second)
		if ctx.Err() != nil {
			t.Fatalf("Err() before the first Resume() = %v, want nil", ctx.Err())
		}
		c.Resume()
		pass(30 * time.Millisecond)
		c.Pause()
		c.Pause()
		c.Resume()
		pass(time.Second)
		if ctx.Err() != nil {
			t.Fatalf("Err() while the clock is paused = %v, want nil", ctx.Err())
		}
		c.Resume()
		pass(19 * time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("Err() before the limit = %v, want nil", ctx.Err())
		}
		pass(time.Millisecond)
		if !errors.Is(context.Cause(ctx), cause) {
			t.Errorf("context.Cause() = %v, want %v", context.Cause(ctx), cause)
		}
	})
}
