package install

import (
	"context"
	"os"
	"syscall"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/archive"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
)

// unpack unpacks an archive into dir and reports the progress.
func (st *stage) unpack(ctx context.Context, path string, format wire.Format, strip int, dir string) ([]installed.File, error) {
	ph := st.startPhase(wire.Progress{Index: st.index, Phase: wire.PhaseUnpack, Total: fileSize(path)})
	return archive.Unpack(progress.NewContext(ctx, ph), path, format, strip, dir, int64(min(home.DiskFree(dir), 1<<62)))
}

// sync flushes the staged version to disk and reports the phase.
func (st *stage) sync() error {
	st.startPhase(wire.Progress{Index: st.index, Phase: wire.PhaseSync})
	return syncTree(st.dir, st.manifest)
}

// breakHardLink replaces a hard-linked file of the payload with a copy, so that a change of
// its mode does not affect other environments.
func breakHardLink(path string) error {
	if shared, err := hasOtherLinks(path); err != nil || !shared {
		return err
	}
	return home.ReplaceWithCopy(path, path, 0o755)
}

// hasOtherLinks reports whether a file has more than one hard link.
func hasOtherLinks(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1, nil
}
