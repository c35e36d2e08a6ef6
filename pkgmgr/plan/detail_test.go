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
		t.Errorf("%+v", d)
	}
	d := plan.HiveState{Hive: config.Hive{Alias: "a"}, State: &wire.State{
		Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.36"}, Rbee: &wire.Installed{Version: "1"}, Daemon: wire.Daemon{Running: true, PID: 7, Port: 8600},
		Workers: []wire.Worker{{Type: "hand", Foreign: true}, {Type: "ill", Foreign: true, Corrupt: "gone"}, {Type: "well", Version: "2"}},
	}}.Detail()
	if !d.Installed || d.Version != "1" || d.Libc != "glibc 2.36" || d.Daemon.PID != 7 || !d.Daemon.Running {
		t.Errorf("%+v", d)
	}
	for i, want := range []string{"not installed by rbee", "gone", ""} {
		if d.Workers[i].Problem != want {
			t.Errorf("%+v, want %q", d.Workers[i], want)
		}
	}
}
