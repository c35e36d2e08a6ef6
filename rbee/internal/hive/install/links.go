package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// errOutside is a link that leads out of the directory that it may lead around in.
var errOutside = errors.New("leads outside")

// checkLink refuses a link of a directory that leads out of it, or whose way goes
// through another link. Where every link of a directory passes, what its way says
// is where it leads, and following any number of them stays inside. A way through
// what is not there yet passes: whoever puts something there checks again.
func checkLink(root *os.Root, name, target string) error {
	fail := func(err error) error { return fmt.Errorf("%q: the link to %q %w", name, target, err) }
	if path.IsAbs(target) {
		return fail(errOutside)
	}
	at := path.Dir(name)
	parts := strings.Split(target, "/")
	for i, part := range parts {
		if part == ".." && at == "." {
			return fail(errOutside)
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

// checkLinks checks every link of the payload. Those to the program of a tool may
// lead out: an environment has one, and no archive can.
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
		err = checkLink(root, filepath.ToSlash(name), target)
		if errors.Is(err, errOutside) && st.toProgramOfTool(file) {
			return nil
		}
		return err
	})
}

func (st *stage) toProgramOfTool(link string) bool {
	program, err := filepath.EvalSymlinks(link)
	if err != nil || !st.ofTool(program) {
		return false
	}
	info, err := os.Stat(program)
	return err == nil && info.Mode().IsRegular()
}
