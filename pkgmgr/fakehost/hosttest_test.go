package fakehost_test

import (
	"context"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/hosttest"
)

// TestHost runs the conformance tests of package hosttest, which the real hive passes too.
func TestHost(t *testing.T) {
	t.Parallel()
	hosttest.TestHost(t, func(*testing.T) *hosttest.Machine {
		m := &fakehost.Machine{}
		return &hosttest.Machine{
			Connect:  func(ctx context.Context) (pkgmgr.Host, error) { return m.Connect(ctx, config.Hive{}) },
			Binaries: fakehost.Rbee("1.0.0"), Port: 8600, Disconnect: m.Disconnect,
		}
	})
}
