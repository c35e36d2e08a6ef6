package hive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/atomicfile"
)

// filesName is the list of a build's files, a JSON array of [File]. It is stored beside
// the manifest, which stays small enough to be read every few seconds.
const filesName = "files.json"

// writeManifest writes the record of a build into its directory: the list of files
// first, so that a directory with a manifest has both.
func writeManifest(dir string, m *Manifest) error {
	files := m.Files
	if files == nil {
		files = []File{}
	}
	if err := atomicfile.WriteJSON(filepath.Join(dir, filesName), files); err != nil {
		return err
	}
	header := *m
	header.Files, header.Program = nil, m.program()
	return atomicfile.WriteJSON(filepath.Join(dir, manifestName), &header)
}

// program returns the entry of the program in the list of files; nil if it is not
// listed.
func (m *Manifest) program() *File {
	if m.Program != nil {
		return m.Program
	}
	for i := range m.Files {
		if m.Files[i].Path == m.Entry {
			return &m.Files[i]
		}
	}
	return nil
}

// readFiles fills in the list of files of the build in dir. A manifest of an earlier
// rbee, which holds the list itself, stays as it is.
func (m *Manifest) readFiles(dir string) error {
	if m.Files != nil {
		return nil
	}
	switch err := atomicfile.ReadJSON(filepath.Join(dir, filesName), &m.Files); {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New(filesName + " is missing")
	case err != nil:
		return fmt.Errorf("%s cannot be read: %w", filesName, err)
	}
	return nil
}

// splitManifestAbove is the size in bytes from which a manifest of an earlier rbee is
// worth splitting.
const splitManifestAbove = 64 << 10

// splitManifests moves the list of files out of the manifests that an earlier rbee
// wrote. Only the holder of the lock may call it. What cannot be split stays as it is.
func (in *Installer) splitManifests() {
	manifests, _ := filepath.Glob(in.Home.Path(wire.WorkersDir + "/*/*/" + manifestName)) // fails for a bad pattern only
	for _, path := range manifests {
		if info, err := os.Lstat(path); err != nil || info.Size() < splitManifestAbove {
			continue
		}
		var m Manifest
		if atomicfile.ReadJSON(path, &m) == nil && m.Files != nil {
			_ = writeManifest(filepath.Dir(path), &m)
		}
	}
}

// ofBytecode reports whether a slash-separated path is in a __pycache__ directory.
// Python writes such files whenever it likes, so they are not part of what is checked.
func ofBytecode(path string) bool { return strings.Contains("/"+path, "/__pycache__/") }
