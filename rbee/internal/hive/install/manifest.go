package install

import (
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
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
	return atomicfile.WriteJSON(filepath.Join(dir, installed.ManifestName), &header)
}

// splitManifestAbove is the size in bytes from which a manifest of an earlier rbee is
// worth splitting.
const splitManifestAbove = 64 << 10

// splitManifests moves the list of files out of the manifests that an earlier rbee
// wrote. Only the holder of the lock may call it. What cannot be split stays as it is.
func (in *Installer) splitManifests() {
	manifests, _ := filepath.Glob(in.Home.Path(wire.WorkersDir + "/*/*/" + installed.ManifestName)) // fails for a bad pattern only
	for _, path := range manifests {
		if info, err := os.Lstat(path); err != nil || info.Size() < splitManifestAbove {
			continue
		}
		var m installed.Manifest
		if atomicfile.ReadJSON(path, &m) == nil && m.Files != nil {
			_ = writeManifest(filepath.Dir(path), &m)
		}
	}
}
