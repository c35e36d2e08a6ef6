package hive

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// unpacker writes an archive below one directory. The directory is opened as an
// os.Root, which the kernel's own path lookup cannot leave by names or by links;
// links are checked besides, so that none that points outside is even made.
type unpacker struct {
	root *os.Root
	left int64 // how many bytes may still be written
}

// errTooBig says that an archive unpacks to more than there is room for.
var errTooBig = errors.New("the archive unpacks to more than the disk has free")

// unpack writes the archive file below dir, which must exist, and at most limit
// bytes.
func unpack(archive, dir string, format wire.Format, limit int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	u := &unpacker{root: root, left: limit}
	switch format {
	case wire.FormatTarGz:
		gz, err := gzip.NewReader(f)
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		return u.tar(gz)
	case wire.FormatTarZst:
		zr, err := zstd.NewReader(f, zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		defer zr.Close()
		return u.tar(zr)
	case wire.FormatZip:
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return u.zip(f, info.Size())
	default:
		return fmt.Errorf("unknown archive format %q", format)
	}
}

func (u *unpacker) tar(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w", err)
		}
		if err := u.tarEntry(h, tr); err != nil {
			return fmt.Errorf("unpacking %q: %w", h.Name, err)
		}
	}
}

func (u *unpacker) tarEntry(h *tar.Header, r io.Reader) error {
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name)
	case tar.TypeReg:
		return u.file(name, h.FileInfo().Mode(), r)
	case tar.TypeSymlink:
		return u.symlink(name, h.Linkname)
	case tar.TypeLink:
		target, err := inside(h.Linkname)
		if err != nil {
			return err
		}
		return u.hardlink(name, target)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("entries of type %q are not unpacked", string(h.Typeflag))
	}
}

func (u *unpacker) zip(r io.ReaderAt, size int64) error {
	zr, err := zip.NewReader(r, size)
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	for _, f := range zr.File {
		if err := u.zipEntry(f); err != nil {
			return fmt.Errorf("unpacking %q: %w", f.Name, err)
		}
	}
	return nil
}

func (u *unpacker) zipEntry(f *zip.File) error {
	name, err := inside(f.Name)
	if err != nil {
		return err
	}
	if f.FileInfo().IsDir() {
		return u.dir(name)
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	switch mode := f.Mode(); {
	case mode&fs.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(r, 4096))
		if err != nil {
			return err
		}
		return u.symlink(name, string(target))
	case mode.IsRegular():
		return u.file(name, mode, r)
	default:
		return fmt.Errorf("entries of type %s are not unpacked", mode.Type())
	}
}

// inside cleans the name of an entry and refuses one that is not below the
// archive's own top.
func inside(name string) (string, error) {
	clean := path.Clean(strings.ReplaceAll(name, `\`, "/"))
	if name == "" || strings.ContainsRune(name, 0) || path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", errors.New("its name leads out of the archive")
	}
	return clean, nil
}

func (u *unpacker) dir(name string) error { return u.root.MkdirAll(name, 0o755) }

// file writes one file, whose mode keeps nothing but whether it is executable.
func (u *unpacker) file(name string, mode fs.FileMode, r io.Reader) (err error) {
	if err := u.parent(name); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, io.LimitReader(r, u.left+1))
	if u.left -= n; u.left < 0 {
		return errTooBig
	}
	return err
}

// parent makes the directory of a name, and makes way for the name itself: the
// later of two entries of one name wins, as with tar.
func (u *unpacker) parent(name string) error {
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	info, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("a directory has this name")
	}
	return u.root.Remove(name)
}

func (u *unpacker) symlink(name, target string) error {
	if path.IsAbs(target) {
		return fmt.Errorf("it links to %q, out of the archive", target)
	}
	if _, err := inside(path.Join(path.Dir(name), target)); err != nil {
		return fmt.Errorf("it links to %q, out of the archive", target)
	}
	if err := u.parent(name); err != nil {
		return err
	}
	return u.root.Symlink(target, name)
}

func (u *unpacker) hardlink(name, target string) error {
	info, err := u.root.Lstat(target)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it links to %q, which is no file", target)
	}
	if err := u.parent(name); err != nil {
		return err
	}
	return u.root.Link(target, name)
}
