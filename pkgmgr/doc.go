// Package pkgmgr brings machines to what a config says: it reads what each
// machine has, decides what must change, and changes it over a way to the
// machine that the caller provides.
//
// # Model
//
// [config.Config] is the desired state and [wire.State] the state that one machine
// reports. [plan.Diff] compares the two and makes a [plan.Plan]: sorted steps, each with
// its reason, and everything that carrying them out needs. Diff is a pure function.
// [Fleet.Apply] decides nothing: it carries out a plan, also one that was saved as JSON
// by another program.
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
// # The way to a machine
//
// [Connect] opens a [Host], which is five methods with types of the standard
// library. The SSH client in package sshx has them; so may anything else.
// Package pkgmgr itself knows no SSH, no terminal and no server. Package
// fakehost is a Host without a machine, for the tests of programs that embed
// this package.
//
// # Cost
//
// Reading a machine is one connection and one command, whether rbee is on it or
// not. The connection stays open for what follows: bringing rbee to the machine
// is one more command that carries the compressed binary, and doing all steps of
// a plan is one more. The binary is compressed once for each platform and shared
// by all machines.
//
// # Safety
//
// A machine that cannot be read is reported as unreachable and is never
// planned for: unreachable is not empty. On the machine, steps run under a lock
// that the kernel frees, and every file is the old one or the new one, whole.
//
// # Concurrency
//
// Machines are worked on in parallel, and no failure of one stops another. A
// [Fleet] may be used by one goroutine at a time. Event handlers are never
// called concurrently.
//
// # Compatibility
//
// This package is stable, as operations, sshx and gpu are. The packages below it, such
// as config, catalog and plan, may change in any minor release before 1.0.
package pkgmgr
