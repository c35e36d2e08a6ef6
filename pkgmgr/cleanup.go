package pkgmgr

import (
	"context"
	"slices"
	"time"
)

// sweepScript removes the directories that an install made before it failed,
// where they are empty, and, if $1 says so, what an install or an uninstall that
// was cut short left there.
const sweepScript = `uploads=$1 R=$2
shift 2
if [ "$uploads" = yes ] && [ -d "$R" ]; then
	rm -f "$R"/bin/.rbee-* "$R"/bin/..rbee-* "$R"/bin/.rbee.json[0-9]* "$R/bin/rbee.prev" "$R/bin/rbee.json" \
		"$R/run/settings.json" "$R/run/hive.json" "$R/run/hive.lock" "$R/run/supervisor.json" "$R/run/token" \
		"$R/logs/hive.log" "$R/logs/hive.log.1"
	if [ -e "$R/lock" ] && command -v flock >/dev/null 2>&1; then
		flock -n "$R/lock" rm -f "$R/lock"
	else
		rm -f "$R/lock"
	fi
fi
rmdir "$R/bin" "$R/run" "$R/logs" "$R/workers" "$R" "$@" 2>/dev/null
exit 0`

// sweepTimeout bounds a sweep: it is a courtesy, and the line may be the reason
// why it is needed.
const sweepTimeout = 5 * time.Second

// sweep tidies a machine on which rbee is not installed. It is done even for a
// run that was cancelled, and its failure changes nothing.
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
	_ = m.host.Run(ctx, append([]string{"sh", "-c", sweepScript, "sweep", word, m.state.Home}, made...), nil, nil, nil)
}

// Sweep removes what installs that never got done left on machines on which
// rbee is not installed: uploads, and rbee's own directories where they are
// empty.
func (f *Fleet) Sweep(ctx context.Context) {
	forEach(ctx, len(f.members), f.opts.Parallel, func(ctx context.Context, i int) {
		sweep(ctx, f.members[i], true)
	}, func(int, error) {})
}
