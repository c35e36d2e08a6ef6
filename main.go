// Command rbee installs, runs and updates inference engines on GPU machines over SSH,
// as described by one config file.
//
// The module is also a library: package [pkgmgr] installs a fleet, package
// [operations] defines operations and their reports, package [sshx] connects to
// machines, and package [gpu] detects accelerators.
//
// # Compatibility
//
// Releases follow semantic versioning. Before 1.0:
//
//   - Packages pkgmgr, operations, operations/client, sshx, sshx/sshconfig,
//     sshx/sshtest and gpu are stable. Incompatible changes are exceptions; the
//     CHANGELOG describes them and how to update programs.
//   - The other packages below operations, and all packages below pkgmgr, such as
//     [config] and [plan], may change in any minor release. Programs may use them, but
//     usually need only their types, for values of pkgmgr.
//   - Package rbee implements the program and is not intended for other programs.
//
// [pkgmgr]: https://pkg.go.dev/github.com/rbee-keeper/rbee/pkgmgr
// [operations]: https://pkg.go.dev/github.com/rbee-keeper/rbee/operations
// [sshx]: https://pkg.go.dev/github.com/rbee-keeper/rbee/sshx
// [gpu]: https://pkg.go.dev/github.com/rbee-keeper/rbee/gpu
// [config]: https://pkg.go.dev/github.com/rbee-keeper/rbee/pkgmgr/config
// [plan]: https://pkg.go.dev/github.com/rbee-keeper/rbee/pkgmgr/plan
package main

import (
	"context"
	"os"

	"github.com/rbee-keeper/rbee/rbee"
)

func main() {
	os.Exit(rbee.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
