package pkgmgr

import (
	"context"
	"fmt"

	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"
)

// defaultParallel is the default of [Options.Parallel]. Processing a hive takes only a few
// milliseconds of CPU time on this machine; the rest is waiting. Therefore the limit bounds
// only the number of sockets and the memory. Handshakes and uploads have their own limits.
const defaultParallel = 128

// defaultUploads is the default of [Options.Uploads]. More concurrent uploads would only
// share the same bandwidth. With fewer, the network would be idle between two hives.
const defaultUploads = 64

// forEach calls do for 0 to n-1, at most limit at once, and waits until all calls have
// returned. After ctx is canceled, it calls onError instead of do. It passes a panic in do
// to onError as an error. A limit of 0 means defaultParallel.
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
