package install

import (
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// writeManifest writes the record of a build into its directory: the list of files
// first, so that a directory with a manifest has both.
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

// upgradeManifests rewrites the manifests that an earlier rbee wrote, those of schema 0.
// Only the holder of the lock may call it. What cannot be rewritten stays as it is.
func (in *Installer) upgradeManifests() {
	manifests, _ := filepath.Glob(in.Home.Path(wire.WorkersDir + "/*/*/" + installed.ManifestName)) // fails for a bad pattern only
	for _, path := range manifests {
		var m installed.Manifest
		if head, err := statefile.ReadSchema(path); err != nil || head.Schema > 0 || statefile.Read(path, &m) != nil {
			continue
		}
		m.LaunchDigest = m.Launch.Digest()
		_ = statefile.Write(path, &m)
	}
}
