package access

import "context"

// KeyFrom returns the key of a request from the request's context. ok is false if no
// key was required.
func KeyFrom(ctx context.Context) (key Key, ok bool) {
	g, _ := ctx.Value(contextKey{}).(grant)
	return g.key, g.key.ID != ""
}
