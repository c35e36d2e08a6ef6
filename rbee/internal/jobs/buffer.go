package jobs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// buffer stores the last events of a job, encoded for streams. IDs increase by one; the IDs
// of replaced events are missing.
type buffer struct {
	maxEvents int
	events    []storedEvent
	bytes     int
	last      int64   // ID of the last event
	dropped   int64   // events up to this ID were dropped
	subject   subject // subject of the last event; zero unless it is progress
}

type storedEvent struct {
	id   int64
	data []byte // encoded event
}

// subject identifies the progress that an event reports.
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

// add appends an event. It replaces the last event if both report the same progress.
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

// shrink drops the oldest events until n bytes are free.
func (b *buffer) shrink(n int) {
	for goal := b.bytes - n; len(b.events) > 0 && b.bytes > goal; {
		b.dropFirst()
	}
}

func (b *buffer) dropFirst() {
	b.dropped = b.events[0].id
	b.bytes -= len(b.events[0].data)
	b.events[0] = storedEvent{} // releases its data
	b.events = b.events[1:]
}

// copy writes the events after an ID to out, until out has limit bytes, and returns the ID
// of the last one. A note replaces dropped events.
func (b *buffer) copy(after int64, limit int, out *bytes.Buffer) int64 {
	if after < b.dropped {
		out.Write(encode(b.dropped, operations.Event{
			Time: time.Now(), Type: operations.EventNote,
			Message: fmt.Sprintf("up to %d events are missing: the reader was too slow", b.dropped-after),
		}))
		after = b.dropped
	}
	first := sort.Search(len(b.events), func(i int) bool { return b.events[i].id > after })
	for _, e := range b.events[first:] {
		if out.Len() >= limit {
			break
		}
		out.Write(e.data)
		after = e.id
	}
	return after
}

// encode returns an event in the format of the stream.
func encode(id int64, e operations.Event) []byte {
	data, err := json.Marshal(e)
	if err == nil && len(data) > maxEvent {
		err = fmt.Errorf("its size of %s exceeds the limit of %s", bytesize.Format(len(data)), bytesize.Format(maxEvent))
	}
	if err != nil { // too large, or a time that JSON cannot represent
		data, _ = json.Marshal(operations.Event{Time: time.Now(), Type: operations.EventNote, Message: "cannot encode an event: " + err.Error()})
	}
	return sse.Append(make([]byte, 0, len(data)+48), sse.Event{ID: id, Name: "event", Data: data})
}
