package plan_test

import (
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestHiveDetail(t *testing.T) {
	t.Parallel()
	err := &operations.Error{Message: "no route"}
	if d := (plan.HiveState{Hive: config.Hive{Alias: "a"}, Err: err}.Detail()); d.Error != err || d.Installed || d.Workers == nil {
		t.Errorf("Detail() of an unreachable hive = %+v, want error %v, not installed, an empty list of workers", d, err)
	}
	d := plan.HiveState{Hive: config.Hive{Alias: "a"}, State: &wire.State{
		Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.36"}, Rbee: &wire.BinaryRecord{Version: "1"}, Daemon: wire.Daemon{Running: true, PID: 7, Port: 8600},
		Workers: []wire.Worker{{Type: "foreign", Unmanaged: true}, {Type: "corrupt", Unmanaged: true, Corrupt: "run is missing"}, {Type: "intact", Version: "2"}},
	}}.Detail()
	if !d.Installed || d.Version != "1" || d.Libc != "glibc 2.36" || d.Daemon.PID != 7 || !d.Daemon.Running {
		t.Errorf("Detail() = %+v, want version 1, glibc 2.36 and a daemon with PID 7", d)
	}
	for i, want := range []string{"not installed by rbee", "run is missing", ""} {
		if got := d.Workers[i]; got.Problem != want {
			t.Errorf("Detail(): worker %s has problem %q, want %q", got.Type, got.Problem, want)
		}
	}
}
