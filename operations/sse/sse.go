// Package sse reads and writes server-sent events: the streams of jobs, of a fleet's state, and of chat completions. It is
// the one reader and the one writer of them in this module, and imports the standard library only.
package sse

// ContentType is the media type of an event stream.
const ContentType = "text/event-stream"

// Event is one event of a stream, or a comment.
type Event struct {
	// ID is what a client sends as Last-Event-ID to go on after this event; 0: none.
	ID int64
	// Name is the type of the event; empty stands for "message".
	Name string
	// Data is the content. In a comment, it is the comment's text.
	Data []byte
	// Comment is set for a line that is no part of an event. Servers send comments to show that the connection is alive.
	Comment bool
}
