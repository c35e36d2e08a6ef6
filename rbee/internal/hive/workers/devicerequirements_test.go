package workers

import (
	"context"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
)

// TestWorkerGetsSupportedDevice checks that a worker gets a device that its installed build
// supports, although another one has more free memory, and that {cuda_home?} is expanded.
func TestWorkerGetsSupportedDevice(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	o := testOptions(t.TempDir())
	find := o.Engine
	o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
		e, err := find(ctx, typ)
		e.Launch.Memory = &wire.Memory{Fixed: gib}
		e.Launch.Devices = &wire.DeviceRequirements{Vendor: "nvidia", Driver: "580", Compute: "7.5"}
		return e, err
	}
	o.Devices = func(context.Context) ([]gpu.Device, error) {
		return []gpu.Device{
			{Index: 0, Vendor: "nvidia", Name: "GTX 1080 Ti", Driver: "580.65", ComputeCapability: "6.1", MemoryTotal: 11 * gib, MemoryFree: new(uint64(11 * gib))},
			{Index: 1, Vendor: "nvidia", Name: "RTX 4090", Driver: "580.65", ComputeCapability: "8.9", MemoryTotal: 24 * gib, MemoryFree: new(uint64(4 * gib))},
		}, nil
	}
	m := newManager(t, o)
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "serve"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Worker.Devices; len(d) != 1 || d[0].Index != 1 || !strings.Contains(r.Reason, "not used: nvidia 0 (GTX 1080 Ti): compute capability 6.1, want at least 7.5") {
		t.Errorf("Spawn() chose devices %+v with reason %q, want the RTX 4090", d, r.Reason)
	}
	if env := get(t, r.Worker.Port, "/environ"); !strings.Contains(env, `"CUDA_VISIBLE_DEVICES=1"`) {
		t.Errorf("environment = %s, want CUDA_VISIBLE_DEVICES=1 in it", env)
	}
	_, err = m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "serve", Device: "0"}, nil)
	if err == nil || !strings.Contains(err.Error(), "nvidia 0 (GTX 1080 Ti) cannot be used: compute capability 6.1") {
		t.Errorf("Spawn() on the GTX 1080 Ti = %v, want a compute capability error", err)
	}
	for home, want := range map[string]bool{"": false, "/usr/local/cuda": true} {
		if value, ok := (engine.Placeholders{"cuda_home": home}).Expand("{cuda_home?}"); ok != want || value != home {
			t.Errorf("Expand({cuda_home?}) with value %q = %q, %t, want %q, %t", home, value, ok, home, want)
		}
	}
}
