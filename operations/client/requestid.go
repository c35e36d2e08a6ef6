package client

import (
	"context"
	"strings"
)

// RequestIDHeader is the header in which an id of a request goes from one rbee to
// the next, and to a worker: by it their logs tell of one thing.
const RequestIDHeader = "X-Request-Id"

type requestIDKey struct{}

// WithRequestID gives ctx the id of the request on whose behalf it works, which
// [Client] sends with each of its own. An id that is not fit to be written
// anywhere, such as an empty one, one of more than 128 bytes or with other than
// visible ASCII characters, leaves ctx as it is.
func WithRequestID(ctx context.Context, id string) context.Context {
	odd := func(c rune) bool { return c <= ' ' || c > '~' }
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, odd) {
		return ctx
	}
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID is the id of the request on whose behalf ctx works; empty if it has none.
// Within a job it is the one that the job was asked for with, or else the job's own.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string) // empty is none
	return id
}
