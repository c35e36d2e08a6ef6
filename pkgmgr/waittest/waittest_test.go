package waittest_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
)

func TestUntilReturnsWhenConditionIsMet(t *testing.T) {
	t.Parallel()
	calls := 0
	waittest.Until(t, "three calls", func() bool { calls++; return calls == 3 })
	if calls != 3 {
		t.Errorf("Until() called the condition %d times, want 3", calls)
	}
}

func TestAdvanceRunsTimers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var fired atomic.Bool
		time.AfterFunc(time.Hour, func() { fired.Store(true) })
		waittest.Advance(time.Hour)
		if !fired.Load() || time.Since(start) != time.Hour {
			t.Errorf("Advance(1h): timer fired = %t, elapsed = %s, want true, 1h", fired.Load(), time.Since(start))
		}
	})
}
