package pkgmgr

import (
	"context"
	"fmt"

	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"
)

// defaultParallel is how many hives are worked on at once. What a hive costs
// here is a few milliseconds of CPU and some waiting, so the bound only keeps
// sockets and memory in check; handshakes and uploads have bounds of their own.
const defaultParallel = 128

// defaultUploads is how many hives are sent bytes at once. More would share the
// same line and finish no sooner; fewer would leave it idle between two hives.
const defaultUploads = 64

// forEach calls do for 0 to n-1, at most limit at once, and waits for all. A
// panic in one call is given to failed instead of ending the program.
func forEach(ctx context.Context, n, limit int, do func(ctx context.Context, i int), failed func(i int, err error)) {
	if limit <= 0 {
		limit = defaultParallel
	}
	p := pool.New().WithMaxGoroutines(min(limit, max(n, 1)))
	for i := range n {
		p.Go(func() {
			if err := ctx.Err(); err != nil {
				failed(i, err)
				return
			}
			if r := panics.Try(func() { do(ctx, i) }); r != nil {
				failed(i, fmt.Errorf("a bug in rbee: %w", r.AsError()))
			}
		})
	}
	p.Wait()
}
