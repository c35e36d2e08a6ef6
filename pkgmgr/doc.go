// Package pkgmgr installs rbee and its workers on machines as a config describes. It
// reads the state of each machine, plans the changes and applies them, over connections
// that the caller provides.
//
// # Model
//
// [config.Config] is the desired state, and [wire.State] is the state that a machine
// reports. [plan.Diff] compares the two and returns a [plan.Plan]: sorted steps, each with
// its reason, and all data that is required to apply them. Diff is a pure function.
// [Fleet.Apply] applies a plan. The plan may be loaded from JSON that another program saved.
//
//	cfg, err := config.Load("hives.conf")
//	...
//	options, err := pkgmgr.DefaultOptions(cfg, connect)
//	...
//	fleet, err := pkgmgr.Open(cfg, options)
//	...
//	defer fleet.Close()
//	fleet.Read(ctx, pkgmgr.ReadOptions{})
//	p := fleet.Plan(ctx, plan.Options{Fetch: true})
//	...
//	reports := fleet.Apply(ctx, p, pkgmgr.ApplyOptions{})
//	err = fleet.Save(reports)
//
// # Connections
//
// [Connect] opens a [Host], an interface of five methods that use only types of the
// standard library. The SSH client in package sshx implements the interface, and other
// packages can implement it too. Package pkgmgr does not depend on SSH, a terminal or a
// server. Package fakehost implements a simulated Host for the tests of programs that use
// this package.
//
// # Cost
//
// Reading a machine takes one connection and one command, whether rbee is installed or
// not. The connection stays open. Uploading rbee takes one more command, and applying all
// steps of a plan takes another one. The binary is compressed once for each platform.
//
// # Safety
//
// A machine whose state cannot be read is reported as unreachable, and a plan has no steps
// for it. On a machine, steps run under a lock that the kernel releases when the process
// exits, and all files are written atomically.
//
// # Concurrency
//
// Machines are read and changed in parallel, and a failure of one does not stop the
// others. A [Fleet] must not be used concurrently. Event handlers are never
// called concurrently.
//
// # Compatibility
//
// This package is stable, as are operations, sshx and gpu. The packages below it, such as
// config, catalog and plan, may change in any minor release before 1.0.
package pkgmgr
