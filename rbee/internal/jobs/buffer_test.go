package jobs

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
)

func TestBufferCoalesces(t *testing.T) {
	t.Parallel()
	progress := func(hive, message string, step *operations.Step) operations.Event {
		return operations.Event{Type: operations.EventProgress, Hive: hive, Message: message, Step: step}
	}
	one, same, other := &operations.Step{Worker: "a"}, &operations.Step{Worker: "a"}, &operations.Step{Worker: "b"}
	b := newBuffer(100)
	for _, e := range []operations.Event{
		progress("h", "", one), progress("h", "", same), // replaced
		progress("h", "", other), progress("h", "m", other), progress("i", "m", other), progress("i", "m", nil), // different progress
		{Type: operations.EventNote, Hive: "i", Message: "m"},
		progress("i", "m", nil), progress("i", "m", nil), // replaced, but not the event before the note
	} {
		b.add(e)
	}
	var ids []int64
	size := 0
	for _, e := range b.events {
		ids = append(ids, e.id)
		size += len(e.data)
	}
	want := []int64{2, 3, 4, 5, 6, 7, 9}
	if len(ids) != len(want) || size != b.bytes || b.dropped != 0 {
		t.Fatalf("add() kept IDs %v of %d bytes, counted %d, dropped %d, want %v, 0 dropped", ids, size, b.bytes, b.dropped, want)
	}
	for i := range want {
		if ids[i] != want[i] {
			t.Errorf("add() kept IDs %v, want %v", ids, want)
		}
	}
}

func TestBufferShrinks(t *testing.T) {
	t.Parallel()
	b := newBuffer(1000)
	for range 50 {
		b.add(operations.Event{Type: operations.EventLog, Text: strings.Repeat("x", 1000)})
	}
	before, one := b.bytes, len(b.events[0].data)
	b.shrink(3*one + 1)
	if len(b.events) != 46 || b.bytes < before-4*one-10 || b.bytes > before-4*one+10 || b.dropped != 4 {
		t.Errorf("shrink() kept %d events of %d bytes and dropped %d, want 46, about %d, 4", len(b.events), b.bytes, b.dropped, before-4*one)
	}
	b.shrink(before)
	var out bytes.Buffer
	if last := b.copy(2, 1<<20, &out); last != 50 || b.bytes != 0 || !strings.Contains(out.String(), "up to 48 events are missing") {
		t.Errorf("copy() = %d with %q, %d bytes left, want 50, a note about 48 events, 0", last, out.String(), b.bytes)
	}
}

// TestBufferHugeEvent checks that a note replaces an event that is too large for clients.
func TestBufferHugeEvent(t *testing.T) {
	t.Parallel()
	b := newBuffer(10)
	b.add(operations.Event{Type: operations.EventLog, Text: strings.Repeat("x", 16<<20)})
	if text := string(b.events[0].data); len(text) > 1000 || !strings.Contains(text, "cannot encode an event: its size of 16.0 MiB exceeds the limit of 15.0 MiB") {
		t.Errorf("encoded event = %.300s, want a note about its size", text)
	}
}

// TestBufferBatches checks that copy limits each batch, and that the next batch continues after
// it.
func TestBufferBatches(t *testing.T) {
	t.Parallel()
	b := newBuffer(1000)
	for range 100 {
		b.add(operations.Event{Type: operations.EventNote, Message: strings.Repeat("x", 100)})
	}
	batches, after := 0, int64(0)
	for after < 100 {
		var out bytes.Buffer
		next := b.copy(after, 1000, &out)
		if next <= after || out.Len() > 1400 {
			t.Fatalf("copy(%d) = %d with %d bytes, want more events and at most 1400 bytes", after, next, out.Len())
		}
		after = next
		batches++
	}
	if batches < 10 {
		t.Errorf("copy() needed %d batches, want 10 or more", batches)
	}
}

// immediateRunner is a runner that ends immediately.
type immediateRunner struct{}

func (immediateRunner) Run(context.Context, operations.Operation, operations.Handler) (operations.Report, error) {
	return &operations.HiveListReport{}, nil
}

// TestAdmitRepeated checks that the server rejects a repeated request whose key it may have
// dropped.
func TestAdmitRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(immediateRunner{}, Options{KeepFinished: 2})
		admit := func(key string, age time.Duration) *apiError {
			_, apiErr := s.admit(&request{op: operations.HiveList{}, key: key, age: age})
			synctest.Wait()
			return apiErr
		}
		if admit("a", 2*time.Second) == nil {
			t.Error("admit() of a request first sent before the server started = nil error, want an error")
		}
		waittest.Advance(time.Minute)
		if apiErr := admit("b", 2*time.Second); apiErr != nil {
			t.Errorf("admit() of a request first sent after the server started: error = %v, want nil", apiErr.err)
		}
		waittest.Advance(time.Minute)
		for _, key := range []string{"c", "d", "e"} { // drops b and c
			if apiErr := admit(key, 0); apiErr != nil {
				t.Fatalf("admit(%q) error = %v, want nil", key, apiErr.err)
			}
		}
		if admit("c", 2*time.Second) == nil {
			t.Error("admit() of a key that may have been dropped = nil error, want an error")
		}
		if apiErr := admit("e", 2*time.Second); apiErr != nil {
			t.Errorf("admit() of a known key: error = %v, want nil", apiErr.err)
		}
		waittest.Advance(time.Hour)
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.jobs) + len(s.order) + len(s.finished) + len(s.keys); n != 0 {
			t.Errorf("the server has %d entries an hour later, want 0", n)
		}
	})
}
