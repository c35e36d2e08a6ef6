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

// This example injects errors into machines and prints the results of an install.
func Example() {
	machines := fakehost.Machines{
		"new":    {},
		"full":   {FailPut: errors.New("no space left on device")},
		"busy":   {LockHolder: "ann@desk, PID 7"},
		"remote": {Unreachable: &fakehost.ConnectError{Code: "timeout", Message: "no response within 10s"}},
	}
	cfg := &config.Config{}
	for _, alias := range []string{"new", "full", "busy", "remote"} {
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
	fmt.Println("installed version:", machines["new"].State().Rbee.Version)
	// Output:
	// busy locked
	// full failed
	// new installed
	// remote unreachable
	// installed version: 1.0.0
}
