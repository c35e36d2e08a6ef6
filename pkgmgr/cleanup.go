package pkgmgr

import (
	"context"
	_ "embed" // the script
	"slices"
	"time"
)

// cleanupScript removes the directories that an install made before it failed,
// where they are empty, and, if $1 says so, what an install or an uninstall that
// was cut short left there.
//
//go:embed cleanup.sh
var cleanupScript string

// sweepTimeout bounds a sweep: it is a courtesy, and the line may be the reason
// why it is needed.
const sweepTimeout = 5 * time.Second

// sweep tidies a machine on which rbee is not installed. It is done even for a
// run that was canceled, and its failure changes nothing.
func sweep(ctx context.Context, m *member, uploads bool) {
	if m.state == nil || m.state.Rbee != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sweepTimeout)
	defer cancel()
	word := "no"
	if uploads {
		word = "yes"
	}
	made := slices.Clone(m.state.MissingDirs)
	slices.Reverse(made) // the innermost first
	_ = m.host.Run(ctx, append([]string{"sh", "-c", cleanupScript, "sweep", word, m.state.Home}, made...), nil, nil, nil)
}

// Sweep removes what installs that never got done left on machines on which
// rbee is not installed: uploads, and rbee's own directories where they are
// empty.
func (f *Fleet) Sweep(ctx context.Context) {
	forEach(ctx, len(f.members), f.opts.Parallel, func(ctx context.Context, i int) {
		sweep(ctx, f.members[i], true)
	}, func(int, error) {})
}
