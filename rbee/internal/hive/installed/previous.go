package installed

import (
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// PreviousBuild returns the build that a rollback restores; empty if no build of another
// version is kept.
func (s *Store) PreviousBuild(typ string) string {
	build, err := os.Readlink(s.Home.Path(wire.WorkersDir + "/" + typ + "/" + PreviousName))
	current := s.EntryBuild(typ)
	if err != nil || current == "" || VersionOf(build) == "" || VersionOf(build) == VersionOf(current) {
		return ""
	}
	if _, err := os.Stat(filepath.Join(s.BuildDir(typ, build), ManifestName)); err != nil {
		return ""
	}
	return build
}
