package jobs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
)

// buffer keeps the last events of a job as they are written to streams. Ids grow
// by one; those of events that were replaced are missing.
type buffer struct {
	maxEvents int
	events    []storedEvent
	bytes     int
	last      int64   // id of the last event
	dropped   int64   // events up to this id were dropped to make room
	subject   subject // what the last event was progress of; zero: something else
}

type storedEvent struct {
	id   int64
	data []byte // the whole event as it is sent
}

// subject is what an event is progress of.
type subject struct {
	progress bool
	hive     string
	message  string
	step     operations.Step
}

func newBuffer(maxEvents int) *buffer { return &buffer{maxEvents: max(maxEvents, 1)} }

func subjectOf(e operations.Event) subject {
	if e.Type != operations.EventProgress {
		return subject{}
	}
	s := subject{progress: true, hive: e.Hive, message: e.Message}
	if e.Step != nil {
		s.step = *e.Step
	}
	return s
}

// add appends an event: in place of the last, if both are progress of one thing.
func (b *buffer) add(e operations.Event) {
	of := subjectOf(e)
	if of.progress && of == b.subject && len(b.events) > 0 {
		end := len(b.events) - 1
		b.bytes -= len(b.events[end].data)
		b.events[end] = storedEvent{}
		b.events = b.events[:end]
	}
	b.subject = of
	b.last++
	data := encode(b.last, e)
	b.events = append(b.events, storedEvent{b.last, data})
	b.bytes += len(data)
	for len(b.events) > b.maxEvents {
		b.dropFirst()
	}
}

// shrink drops the oldest events until so many bytes are gone.
func (b *buffer) shrink(by int) {
	for goal := b.bytes - by; len(b.events) > 0 && b.bytes > goal; {
		b.dropFirst()
	}
}

func (b *buffer) dropFirst() {
	b.dropped = b.events[0].id
	b.bytes -= len(b.events[0].data)
	b.events[0] = storedEvent{} // let go of its data before the slice moves on
	b.events = b.events[1:]
}

// copy writes the events after an id to out, until there are limit bytes, and
// returns the id of the last. A note stands for those that are gone.
func (b *buffer) copy(after int64, limit int, out *bytes.Buffer) int64 {
	if after < b.dropped {
		out.Write(encode(b.dropped, operations.Event{
			Time: time.Now(), Type: operations.EventNote,
			Message: fmt.Sprintf("up to %d events are missing here: they came faster than they were read", b.dropped-after),
		}))
		after = b.dropped
	}
	first := sort.Search(len(b.events), func(i int) bool { return b.events[i].id > after })
	for _, k := range b.events[first:] {
		if out.Len() >= limit {
			break
		}
		out.Write(k.data)
		after = k.id
	}
	return after
}

// encode writes an event as a stream has it.
func encode(id int64, e operations.Event) []byte {
	data, err := json.Marshal(e)
	if err == nil && len(data) > maxEvent {
		err = fmt.Errorf("it has %d bytes, and may have %d", len(data), maxEvent)
	}
	if err != nil { // or a time that JSON has no form for
		data, _ = json.Marshal(operations.Event{Time: time.Now(), Type: operations.EventNote, Message: "an event cannot be written: " + err.Error()})
	}
	return sse.Append(make([]byte, 0, len(data)+48), sse.Event{ID: id, Name: "event", Data: data})
}
