package installed

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

// FilesName is the list of a build's files, a JSON array of [File]. It is stored beside
// the manifest, which stays small enough to be read every few seconds.
const FilesName = "files.json"

// ProgramFile returns the entry of the program in the list of files; nil if it is not
// listed.
func (m *Manifest) ProgramFile() *File {
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

// ReadFiles fills in the list of files of the build in dir, unless it is there.
func (m *Manifest) ReadFiles(dir string) error {
	if m.Files != nil {
		return nil
	}
	switch err := atomicfile.ReadJSON(filepath.Join(dir, FilesName), &m.Files); {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New(FilesName + " is missing")
	case err != nil:
		return fmt.Errorf("%s cannot be read: %w", FilesName, err)
	}
	return nil
}

// IsBytecode reports whether a slash-separated path is in a __pycache__ directory.
// Python writes such files whenever it likes, so they are not part of what is checked.
func IsBytecode(path string) bool { return strings.Contains("/"+path, "/__pycache__/") }

// The two modes that an installed file has.
const (
	ModeProgram = "0755"
	ModeData    = "0644"
)
