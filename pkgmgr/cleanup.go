package pkgmgr

import (
	"context"
	_ "embed" // the script
	"slices"
	"time"
)

// cleanupScript removes the empty directories that a failed install created. If $1 is
// "yes", it also removes the files that an interrupted install or uninstall left behind.
// $2 is rbee's directory, and the other arguments are its parent directories to remove if
// they are empty.
//
//go:embed cleanup.sh
var cleanupScript string

// cleanupTimeout limits a cleanup. It is short because the cleanup is optional, and
// because a broken connection may be the reason for it.
const cleanupTimeout = 5 * time.Second

// cleanUp removes the remains of a failed install from a machine on which rbee is not
// installed. It also runs if ctx is canceled. Errors are ignored.
func cleanUp(ctx context.Context, m *member, uploads bool) {
	if m.state == nil || m.state.Rbee != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	removeUploads := "no"
	if uploads {
		removeUploads = "yes"
	}
	dirs := slices.Clone(m.state.MissingDirs)
	slices.Reverse(dirs) // the innermost first
	_ = m.host.Run(ctx, append([]string{"sh", "-c", cleanupScript, "cleanup", removeUploads, m.state.Home}, dirs...), nil, nil, nil)
}

// Cleanup removes the remains of interrupted installs from machines on which rbee is not
// installed: uploaded files, and rbee's directories if they are empty.
func (f *Fleet) Cleanup(ctx context.Context) {
	forEach(ctx, len(f.members), f.opts.Parallel, func(ctx context.Context, i int) {
		cleanUp(ctx, f.members[i], true)
	}, func(int, error) {})
}
