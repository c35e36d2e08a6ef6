package install

import (
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
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
