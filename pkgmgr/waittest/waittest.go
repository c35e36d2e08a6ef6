// Package waittest waits in tests: for a condition in real time, or for the fake clock of a
// testing/synctest bubble.
package waittest

import (
	"testing"
	"testing/synctest"
	"time"
)

// Timeout limits how long [Until] waits.
const Timeout = time.Minute

// pollInterval is the time between two checks of a condition.
const pollInterval = time.Millisecond

// Until calls ok repeatedly until it returns true. It stops the test after [Timeout] with a
// message that contains condition. It must be called from the goroutine of the test.
func Until(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(Timeout), time.NewTicker(pollInterval)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("timed out after %s; unmet condition: %s", Timeout, condition)
		}
	}
}

// Advance advances the fake clock of the current synctest bubble by d and waits until all
// other goroutines of the bubble are blocked. It takes no real time, and panics outside a
// bubble. Only one goroutine of a bubble may call it at a time.
func Advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
