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

// TestContextPlaceholders checks the context length that an engine gets, for one request and
// for all, and that the memory estimate includes the context of every request, except for
// engines that reserve a share of the device.
func TestContextPlaceholders(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for _, tt := range []struct {
		name             string
		length, parallel int
		share            float64
		args             string
		estimate         int64 // in GiB
	}{
		{"no context options", 0, 0, 0, `"8192","8192","1"`, 5 + 1},
		{"parallel requests", 0, 3, 0, `"8192","24576","3","n=3"`, 5 + 2 + 1},
		{"context length", 4096, 2, 0, `"4096","8192","2","c=4096","t=8192","n=2"`, 5 + 1 + 1},
		{"share of the device", 0, 3, 0.5, `"8192","24576","3","n=3"`, 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t.TempDir())
			find := o.Engine
			o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
				e, err := find(ctx, typ)
				e.Launch.Args = []string{
					"engine", "{port}", "serve", "{model_path}", "{context}", "{context_total}", "{parallel}", "c={context?}", "t={context_total?}", "n={parallel?}",
				}
				e.Launch.Memory = &wire.Memory{Overhead: gib, Share: tt.share}
				return e, err
			}
			o.Model = func(_ context.Context, _ string, length int) (engine.Model, error) {
				if length == 0 {
					length = 8192
				}
				return engine.Model{Path: "/m", Estimate: 5 * gib, Cache: gib, Context: length, Breakdown: "test estimate"}, nil
			}
			o.Devices = func(context.Context) ([]gpu.Device, error) {
				return []gpu.Device{{Vendor: "nvidia", MemoryTotal: 80 * gib, MemoryFree: new(uint64(80 * gib))}}, nil
			}
			r, err := newManager(t, o).Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x", ContextLength: tt.length, Parallel: tt.parallel}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if args := get(t, r.Worker.Port, "/args"); !strings.Contains(args, `"/m",`+tt.args+"]") {
				t.Errorf("arguments = %s, want %s at the end", args, tt.args)
			}
			if want := tt.estimate * gib; r.Worker.MemoryEstimate != want {
				t.Errorf("estimate = %d GiB, want %d (%s)", r.Worker.MemoryEstimate/gib, tt.estimate, r.Reason)
			}
			if got, want := strings.Contains(r.Reason, "with a context for each of"), tt.parallel > 1 && tt.share == 0; got != want {
				t.Errorf("reason = %q, want parallel requests mentioned: %t", r.Reason, want)
			}
		})
	}
}

// TestEstimateForRequests checks that the estimate grows with requests and does not overflow.
func TestEstimateForRequests(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int64{1: 7, 3: 11, math.MaxInt: math.MaxInt64} {
		if got := estimateForRequests(engine.Model{Estimate: 7, Cache: 2}, n); got != want {
			t.Errorf("estimateForRequests(%d) = %d, want %d", n, got, want)
		}
	}
	if got := estimateForRequests(engine.Model{Estimate: 7}, 9); got != 7 {
		t.Errorf("estimateForRequests(9) without cache = %d, want 7", got)
	}
}
