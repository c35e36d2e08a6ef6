package pkgmgr

import (
	"context"
	"fmt"

	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"
)

// defaultParallel is the default of [Options.Parallel]. A hive takes a few milliseconds of
// CPU time here, and mostly waits. So the limit only bounds the number of sockets and the
// memory; handshakes and uploads have their own limits.
const defaultParallel = 128

// defaultUploads is the default of [Options.Uploads]. More uploads would share the same
// bandwidth. With fewer, the line would be idle between two hives.
const defaultUploads = 64

// forEach calls do for 0 to n-1, at most limit at once, and waits until all calls have
// returned. It calls failed instead of do once ctx is canceled. A panic in do is passed to
// failed as an error. A limit of 0 means defaultParallel.
func forEach(ctx context.Context, n, limit int, do func(ctx context.Context, i int), onError func(i int, err error)) {
	if limit <= 0 {
		limit = defaultParallel
	}
	p := pool.New().WithMaxGoroutines(min(limit, max(n, 1)))
	for i := range n {
		p.Go(func() {
			if err := ctx.Err(); err != nil {
				onError(i, err)
				return
			}
			if r := panics.Try(func() { do(ctx, i) }); r != nil {
				onError(i, fmt.Errorf("internal error: %w", r.AsError()))
			}
		})
	}
	p.Wait()
}
