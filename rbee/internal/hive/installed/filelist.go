package installed

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

// FilesName is the name of the file that lists the files of a build, a JSON array of
// [File]. It is separate from the manifest, because the manifest is read every few seconds
// and must be small.
const FilesName = "files.json"

// ProgramFile returns the program in the list of files; nil if it is not listed.
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

// ReadFiles reads the list of files of the build in dir into m.Files, unless m.Files is set.
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

// IsBytecode reports whether a slash-separated path is in a __pycache__ directory. Such
// files are not checked, because Python may write them at any time.
func IsBytecode(path string) bool { return strings.Contains("/"+path, "/__pycache__/") }

// Modes of installed files.
const (
	ModeProgram = "0755"
	ModeData    = "0644"
)
