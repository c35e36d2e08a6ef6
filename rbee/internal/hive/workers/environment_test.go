package workers

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
)

// TestContextForEachRequest holds that an engine is told the length of context that
// was counted with, for one request and for all, and that memory is counted alike:
// for every request, but for engines that divide a share of the device.
func TestContextForEachRequest(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for _, k := range []struct {
		name            string
		length, request int
		share           float64
		args            string
		estimate        int64 // in GiB
	}{
		{"nothing was asked for", 0, 0, 0, `"8192","8192","1"`, 5 + 1},
		{"requests at once", 0, 3, 0, `"8192","24576","3","n=3"`, 5 + 2 + 1},
		{"a length", 4096, 2, 0, `"4096","8192","2","c=4096","t=8192","n=2"`, 5 + 1 + 1},
		{"a share", 0, 3, 0.5, `"8192","24576","3","n=3"`, 40},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			o := options(t.TempDir())
			find := o.Engine
			o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
				e, err := find(ctx, typ)
				e.Launch.Args = []string{
					"engine", "{port}", "serve", "{model_path}", "{context}", "{context_total}", "{parallel}", "c={context?}", "t={context_total?}", "n={parallel?}",
				}
				e.Launch.Memory = &wire.Memory{Overhead: gib, Share: k.share}
				return e, err
			}
			o.Model = func(_ context.Context, _ string, length int) (engine.Model, error) {
				if length == 0 {
					length = 8192
				}
				return engine.Model{Path: "/m", Estimate: 5 * gib, Cache: gib, Context: length, Explain: "as a test says"}, nil
			}
			o.Devices = func(context.Context) ([]gpu.Device, error) {
				return []gpu.Device{{Vendor: "nvidia", MemoryTotal: 80 * gib, MemoryFree: new(uint64(80 * gib))}}, nil
			}
			r, err := manager(t, o).Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x", ContextLength: k.length, Parallel: k.request}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if args := get(t, r.Worker.Port, "/args"); !strings.Contains(args, `"/m",`+k.args+"]") {
				t.Errorf("started with %s", args)
			}
			if want := k.estimate * gib; r.Worker.MemoryEstimate != want {
				t.Errorf("%d GiB are counted, want %d: %s", r.Worker.MemoryEstimate/gib, k.estimate, r.Reason)
			}
			if told := strings.Contains(r.Reason, "the context once for each of"); told != (k.request > 1 && k.share == 0) {
				t.Errorf("%s", r.Reason)
			}
		})
	}
}

// TestForRequests holds that no number of requests makes memory count as little.
func TestForRequests(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int64{1: 7, 3: 11, math.MaxInt: math.MaxInt64} {
		if got := forRequests(engine.Model{Estimate: 7, Cache: 2}, n); got != want {
			t.Errorf("%d requests take %d, want %d", n, got, want)
		}
	}
	if got := forRequests(engine.Model{Estimate: 7}, 9); got != 7 {
		t.Errorf("without a cache: %d", got)
	}
}
