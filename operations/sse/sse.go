// Package sse reads and writes streams of server-sent events, as defined by the HTML standard.
package sse

// ContentType is the media type of an event stream.
const ContentType = "text/event-stream"

// Event is one event of a stream, or a comment.
type Event struct {
	// ID is the ID of the event. A client sends it as Last-Event-ID to resume the stream after this event. 0 means no ID.
	ID int64
	// Name is the type of the event. Empty means "message".
	Name string
	// Data is the content of the event, or the text of the comment.
	Data []byte
	// Comment reports whether this is a comment. Servers send comments to keep the connection alive.
	Comment bool
}
