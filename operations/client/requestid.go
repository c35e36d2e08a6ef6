package client

import (
	"context"
	"strings"
)

// RequestIDHeader is the HTTP header with the request id. Queens and hives log the id and
// forward it with the requests that they send to process the original request.
const RequestIDHeader = "X-Request-Id"

type requestIDKey struct{}

// WithRequestID returns a copy of ctx with a request id, which [Client] sends with each
// request. It returns ctx unchanged if the id is empty, longer than 128 bytes, or contains
// characters other than visible ASCII.
func WithRequestID(ctx context.Context, id string) context.Context {
	invalid := func(c rune) bool { return c <= ' ' || c > '~' }
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, invalid) {
		return ctx
	}
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the request id of ctx, or "" if it has none. Within a job, it is the id
// of the request that started the job, or else the id of the job.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
