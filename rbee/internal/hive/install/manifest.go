package install

import (
	"os"
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

// splitManifestAbove is the size in bytes from which a manifest of an earlier rbee is
// worth splitting.
const splitManifestAbove = 64 << 10

// upgradeManifests rewrites the manifests that an earlier rbee wrote: those of schema
// 0, and those with a long list of files, which gets its own file. Only the holder of the
// lock may call it. What cannot be rewritten stays as it is.
func (in *Installer) upgradeManifests() {
	manifests, _ := filepath.Glob(in.Home.Path(wire.WorkersDir + "/*/*/" + installed.ManifestName)) // fails for a bad pattern only
	for _, path := range manifests {
		head, err := statefile.Head(path)
		if err != nil {
			continue
		}
		info, err := os.Lstat(path)
		split := err == nil && info.Size() >= splitManifestAbove
		if head.Schema > 0 && !split {
			continue
		}
		var m installed.Manifest
		if statefile.Read(path, &m) != nil {
			continue
		}
		if head.Schema == 0 {
			m.LaunchDigest = m.Launch.Digest()
		}
		switch {
		case split && m.Files != nil:
			_ = writeManifest(filepath.Dir(path), &m)
		case head.Schema == 0:
			_ = statefile.Write(path, &m)
		}
	}
}
