package fakehost_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// What goes wrong on a machine is told beforehand, and how one's own program
// takes it is seen without a machine.
func ExampleFleet() {
	machines := fakehost.Fleet{
		"fresh":  {},
		"full":   {FailPut: errors.New("no space left on device")},
		"busy":   {Locked: "ann@desk, pid 7"},
		"remote": {Unreachable: &fakehost.ConnectError{Code: "timeout", Message: "no answer within 10s"}},
	}
	cfg := &config.Config{}
	for _, alias := range []string{"fresh", "full", "busy", "remote"} {
		cfg.Hives = append(cfg.Hives, config.NewHive(alias, alias))
	}
	fleet, err := pkgmgr.Open(cfg, pkgmgr.Options{
		Connect: machines.Connect, Binaries: fakehost.Rbee("1.0.0"), Version: "1.0.0",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fleet.Close()
	ctx := context.Background()
	fleet.Read(ctx, pkgmgr.ReadOptions{})
	for _, r := range fleet.Apply(ctx, fleet.Plan(ctx, plan.Options{Fetch: true}), pkgmgr.ApplyOptions{LockWait: -1}) {
		fmt.Println(r.Alias, r.Status)
	}
	fmt.Println("on the machine:", machines["fresh"].State().Rbee.Version)
	// Output:
	// busy locked
	// fresh installed
	// full failed
	// remote unreachable
	// on the machine: 1.0.0
}
