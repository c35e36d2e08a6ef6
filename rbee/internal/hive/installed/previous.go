package installed

import (
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// PreviousBuild is what a rollback goes to, of another version than the one that is
// installed; empty if nothing is there.
func (s *Store) PreviousBuild(typ string) string {
	build, err := os.Readlink(s.Home.Path(wire.WorkersDir + "/" + typ + "/" + PreviousName))
	now := s.EntryBuild(typ)
	if err != nil || now == "" || VersionOf(build) == "" || VersionOf(build) == VersionOf(now) {
		return ""
	}
	if _, err := os.Stat(filepath.Join(s.BuildDir(typ, build), ManifestName)); err != nil {
		return ""
	}
	return build
}
