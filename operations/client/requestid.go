package client

import (
	"context"
	"strings"
)

// RequestIDHeader is the HTTP header with the request ID. Queens and hives log the ID and
// forward it with the requests that they send to process the original request.
const RequestIDHeader = "X-Request-Id"

type requestIDKey struct{}

// WithRequestID returns a copy of ctx with a request ID, which [Client] sends with each
// request. It returns ctx unchanged if the ID is empty, longer than 128 bytes, or contains
// characters other than visible ASCII.
func WithRequestID(ctx context.Context, id string) context.Context {
	invalid := func(c rune) bool { return c <= ' ' || c > '~' }
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, invalid) {
		return ctx
	}
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the request ID of ctx, or "" if it has none. Within a job, it is the ID
// of the request that started the job, or else the ID of the job.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
