package plan

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestTransferBytesOmitsCachedWheels(t *testing.T) {
	t.Parallel()
	artifact := func(digit string, size int64) wire.Artifact {
		return wire.Artifact{SHA256: strings.Repeat(digit, 64), Size: size}
	}
	archive := artifact("a", 5)
	steps := []wire.InstallStep{
		{Kind: wire.StepArchive, Artifact: &archive},
		{Kind: wire.StepPython, Python: &wire.Python{
			UV: wire.Tool{Artifact: artifact("1", 10)}, Interpreter: wire.Tool{Artifact: artifact("2", 20)},
			Wheels: []wire.Artifact{artifact("3", 300), artifact("4", 4000)},
		}},
	}
	cached := &wire.State{Wheels: []string{wire.WheelKey(strings.Repeat("A", 64)), wire.WheelKey(strings.Repeat("4", 64))}}
	for name, c := range map[string]struct {
		state          *wire.State
		needed, cached int64
		disk           uint64
	}{
		"unknown state": {nil, 4335, 0, 10_000},
		"empty cache":   {&wire.State{}, 4335, 0, 10_000},
		"cached wheel":  {cached, 335, 4000, 2000},
	} {
		if needed, cachedBytes := transferBytes(steps, c.state); needed != c.needed || cachedBytes != c.cached {
			t.Errorf("%s: transferBytes() = %d, %d, want %d, %d", name, needed, cachedBytes, c.needed, c.cached)
		}
		if need := DiskNeed(DesiredWorker{Steps: steps, Needs: catalog.Needs{Disk: 10_000}}, c.state); need != c.disk {
			t.Errorf("%s: DiskNeed() = %d, want %d", name, need, c.disk)
		}
	}
}
