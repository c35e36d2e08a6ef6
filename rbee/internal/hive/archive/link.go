package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// ErrOutside is a link that leads out of the directory that it may lead around in.
var ErrOutside = errors.New("leads outside")

// CheckLink refuses a link of a directory that leads out of it, or whose way goes
// through another link. Where every link of a directory passes, what its way says
// is where it leads, and following any number of them stays inside. A way through
// what is not there yet passes: whoever puts something there checks again.
func CheckLink(root *os.Root, name, target string) error {
	fail := func(err error) error { return fmt.Errorf("%q: the link to %q %w", name, target, err) }
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
			return fail(fmt.Errorf("leads through another link, %q", at))
		}
	}
	return nil
}
