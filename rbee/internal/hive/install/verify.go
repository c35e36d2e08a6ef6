package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

// verify runs the verify command of a staged version. It fails if the command changed a
// file of the version.
func (st *stage) verify(ctx context.Context) error {
	m := st.manifest
	if m.Verify == nil {
		return nil
	}
	before := fileStamps(m, st.dir)
	st.startPhase(wire.Progress{Index: st.index, Phase: wire.PhaseVerify})
	if err := st.Verifier.VerifyBuild(ctx, m, st.dir); err != nil {
		return err
	}
	for path, stamp := range fileStamps(m, st.dir) {
		if stamp != before[path] {
			return fmt.Errorf("cannot verify %s %s: the command changed %s", m.Type, m.Version, path)
		}
	}
	return nil
}

// fileStamp contains the properties of a file that change when the file is modified.
type fileStamp struct {
	size     int64
	mode     fs.FileMode
	modified time.Time
}

// fileStamps returns the stamps of the files of a build, by path. The stamp of a missing file
// is the zero value.
func fileStamps(m *installed.Manifest, dir string) map[string]fileStamp {
	all := make(map[string]fileStamp, len(m.Files))
	for _, f := range m.Files {
		var s fileStamp
		if info, err := os.Lstat(filepath.Join(dir, installed.PayloadDir, filepath.FromSlash(f.Path))); err == nil {
			s = fileStamp{info.Size(), info.Mode(), info.ModTime()}
		}
		all[f.Path] = s
	}
	return all
}

// verifyBuild runs the verify command of w for an existing build.
func (s *stepRunner) verifyBuild(ctx context.Context, index int, w *wire.WorkerInstall, build string) error {
	if w.Verify == nil {
		return nil
	}
	s.startPhase(wire.Progress{Index: index, Phase: wire.PhaseVerify})
	m := &installed.Manifest{Type: w.Type, Version: w.Version, Verify: w.Verify, Launch: w.Launch}
	return s.Verifier.VerifyBuild(ctx, m, s.Store.BuildDir(w.Type, build))
}

// removeToolsOnVerifyError removes unused tools if err is the error of a verify command.
func (st *stage) removeToolsOnVerifyError(err error) {
	var failed *engine.VerifyError
	if errors.As(err, &failed) {
		_ = st.cleanTools() // on failure, the next run removes them
	}
}
