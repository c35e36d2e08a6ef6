package jobs

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbee-keeper/rbee/operations"
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
		progress("h", "", other), progress("h", "m", other), progress("i", "m", other), progress("i", "m", nil), // all differ
		{Type: operations.EventNote, Hive: "i", Message: "m"},
		progress("i", "m", nil), progress("i", "m", nil), // replaced, but not over the note
	} {
		b.add(e)
	}
	var ids []int64
	bytesKept := 0
	for _, k := range b.events {
		ids = append(ids, k.id)
		bytesKept += len(k.data)
	}
	want := []int64{2, 3, 4, 5, 6, 7, 9}
	if len(ids) != len(want) || bytesKept != b.bytes || b.dropped != 0 {
		t.Fatalf("ids %v, want %v; %d bytes, counted %d; lost %d", ids, want, bytesKept, b.bytes, b.dropped)
	}
	for i := range want {
		if ids[i] != want[i] {
			t.Errorf("ids %v, want %v", ids, want)
		}
	}
}

func TestBufferShrinks(t *testing.T) {
	t.Parallel()
	b := newBuffer(1000)
	for range 50 {
		b.add(operations.Event{Type: operations.EventLog, Text: strings.Repeat("x", 1000)})
	}
	had, one := b.bytes, len(b.events[0].data)
	b.shrink(3*one + 1)
	if len(b.events) != 46 || b.bytes < had-4*one-10 || b.bytes > had-4*one+10 || b.dropped != 4 {
		t.Errorf("%d kept, %d bytes of %d, %d lost", len(b.events), b.bytes, had, b.dropped)
	}
	b.shrink(had)
	var out bytes.Buffer
	if last := b.copy(2, 1<<20, &out); last != 50 || b.bytes != 0 || !strings.Contains(out.String(), "up to 48 events are missing") {
		t.Errorf("%d %q, %d bytes", last, out.String(), b.bytes)
	}
}

// An event that no client would read is told of.
func TestBufferHugeEvent(t *testing.T) {
	t.Parallel()
	b := newBuffer(10)
	b.add(operations.Event{Type: operations.EventLog, Text: strings.Repeat("x", 16<<20)})
	if text := string(b.events[0].data); len(text) > 1000 || !strings.Contains(text, "cannot be written: it has 167") {
		t.Errorf("%.300s", text)
	}
}

// A batch is bounded and goes on where the last one ended.
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
			t.Fatalf("%d to %d, %d bytes", after, next, out.Len())
		}
		after = next
		batches++
	}
	if batches < 10 {
		t.Errorf("%d batches", batches)
	}
}

type quick struct{}

func (quick) Run(context.Context, operations.Operation, operations.Handler) (operations.Report, error) {
	return &operations.HiveListReport{}, nil
}

// A server that would remember a key takes a repeated request for a new one; one
// that may have forgotten it does not.
func TestAdmitRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(quick{}, Options{KeepFinished: 2})
		ask := func(key string, age time.Duration) *apiError {
			_, no := s.admit(&request{op: operations.HiveList{}, key: key, age: age})
			synctest.Wait()
			return no
		}
		if ask("a", 2*time.Second) == nil {
			t.Error("taken by a server that was started after it was sent first")
		}
		time.Sleep(time.Minute)
		if no := ask("b", 2*time.Second); no != nil {
			t.Errorf("refused: %v", no.err)
		}
		time.Sleep(time.Minute)
		for _, key := range []string{"c", "d", "e"} { // b and c are forgotten
			if no := ask(key, 0); no != nil {
				t.Fatal(no.err)
			}
		}
		if ask("c", 2*time.Second) == nil {
			t.Error("taken after jobs of that time were forgotten")
		}
		if no := ask("e", 2*time.Second); no != nil {
			t.Errorf("known, and refused: %v", no.err)
		}
		time.Sleep(time.Hour)
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.jobs) + len(s.order) + len(s.finished) + len(s.keys); n != 0 {
			t.Errorf("%d left after an hour", n)
		}
	})
}
