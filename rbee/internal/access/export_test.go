package access

import "context"

// KeyFrom is the key that let a request in, from the request's context. There is
// none where none was asked for.
func KeyFrom(ctx context.Context) (Key, bool) {
	g, _ := ctx.Value(contextKey{}).(grant)
	return g.key, g.key.ID != ""
}
