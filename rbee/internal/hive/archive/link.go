package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// ErrOutside is the error of a link with a target outside its directory.
var ErrOutside = errors.New("the target is outside the directory")

// CheckLink returns an error if the symbolic link name below root has a target outside
// root, or a target path that crosses another link. If all links below root pass, the text
// of each target shows where the link points, and no chain of links leaves root. A missing
// element of the target path is not an error: the caller checks again after creating it.
func CheckLink(root *os.Root, name, target string) error {
	fail := func(err error) error { return fmt.Errorf("invalid link %q to %q: %w", name, target, err) }
	if path.IsAbs(target) {
		return fail(ErrOutside)
	}
	at := path.Dir(name)
	parts := strings.Split(target, "/")
	for i, part := range parts {
		if part == ".." && at == "." {
			return fail(ErrOutside)
		}
		at = path.Join(at, part)
		if i == len(parts)-1 {
			break
		}
		switch info, err := root.Lstat(at); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fail(err)
		case info.Mode().Type() == fs.ModeSymlink:
			return fail(fmt.Errorf("the target path crosses another link, %q", at))
		}
	}
	return nil
}
