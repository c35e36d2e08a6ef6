package install

import (
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// writeManifest writes the list of files and then the manifest of a build, so that a
// directory with a manifest always has both.
func writeManifest(dir string, m *installed.Manifest) error {
	files := m.Files
	if files == nil {
		files = []installed.File{}
	}
	if err := atomicfile.WriteJSON(filepath.Join(dir, installed.FilesName), files); err != nil {
		return err
	}
	header := *m
	header.Files, header.Program = nil, m.ProgramFile()
	return statefile.Write(filepath.Join(dir, installed.ManifestName), &header)
}

// upgradeManifests rewrites manifests of schema 0, which an older rbee wrote. It ignores
// errors. The caller must hold the lock.
func (in *Installer) upgradeManifests() {
	manifests, _ := filepath.Glob(in.Home.Path(wire.WorkersDir + "/*/*/" + installed.ManifestName)) // the only possible error is a bad pattern
	for _, path := range manifests {
		var m installed.Manifest
		if header, err := statefile.ReadSchema(path); err != nil || header.Schema > 0 || statefile.Read(path, &m) != nil {
			continue
		}
		m.LaunchDigest = m.Launch.Digest()
		_ = statefile.Write(path, &m)
	}
}
