package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// ErrOutside reports that the target of a link is outside the directory.
var ErrOutside = errors.New("the target is outside the directory")

// CheckLink returns an error if the target of the symbolic link name below root is outside
// root, or if the target path crosses another link. If CheckLink accepts all links below
// root, no chain of links leads outside root. A missing element of the target path is not an
// error: the caller must check again after it creates the element.
func CheckLink(root *os.Root, name, target string) error {
	fail := func(err error) error { return fmt.Errorf("invalid link %q to %q: %w", name, target, err) }
	if path.IsAbs(target) {
		return fail(ErrOutside)
	}
	current := path.Dir(name)
	parts := strings.Split(target, "/")
	for i, part := range parts {
		if part == ".." && current == "." {
			return fail(ErrOutside)
		}
		current = path.Join(current, part)
		if i == len(parts)-1 {
			break
		}
		switch info, err := root.Lstat(current); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fail(err)
		case info.Mode().Type() == fs.ModeSymlink:
			return fail(fmt.Errorf("the target path crosses another link, %q", current))
		}
	}
	return nil
}
