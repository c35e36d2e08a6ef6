// Command rbee installs, runs and updates inference engines on GPU machines over SSH,
// as one config file describes them.
//
// The program is also a library: package [pkgmgr] installs a fleet, package
// [operations] has the operations and reports, package [sshx] connects to machines,
// and package [gpu] detects accelerators.
//
// # Compatibility
//
// Releases follow semantic versioning. Before 1.0:
//
//   - pkgmgr, operations, sshx and gpu are stable: a change that breaks programs which
//     use them is an exception, and the CHANGELOG lists it with what to change.
//   - So are operations/client, sshx/sshconfig and sshx/sshtest.
//   - The other packages below operations, and all packages below pkgmgr, such as
//     [config] and [plan], may change in any minor release. A program may use them, and
//     needs most of them only through types that pkgmgr returns.
//   - Package rbee is the program. Other programs have no use for it.
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
