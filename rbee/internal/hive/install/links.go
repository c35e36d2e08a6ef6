package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/archive"
)

// checkLinks checks that no link of the payload points outside the payload. It accepts a
// link to the program of a tool: an environment contains such a link, and an archive cannot.
func (st *stage) checkLinks() error {
	root, err := os.OpenRoot(st.payload)
	if err != nil {
		return err
	}
	defer root.Close()
	return filepath.WalkDir(st.payload, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		name, err := filepath.Rel(st.payload, file)
		if err != nil {
			return err
		}
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		err = archive.CheckLink(root, filepath.ToSlash(name), target)
		if errors.Is(err, archive.ErrOutside) && st.pointsToToolProgram(file) {
			return nil
		}
		return err
	})
}

func (st *stage) pointsToToolProgram(link string) bool {
	program, err := filepath.EvalSymlinks(link)
	if err != nil || !st.isInTools(program) {
		return false
	}
	info, err := os.Stat(program)
	return err == nil && info.Mode().IsRegular()
}
