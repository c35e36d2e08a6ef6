// Package archive unpacks archives and never writes outside the target directory.
package archive

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/readahead"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
)

// maxEntries limits the number of entries of an archive. The limit in bytes does not limit
// empty files.
const maxEntries = 1 << 20

// Unpack unpacks an archive into the existing directory dir and returns its files. It
// removes up to strip leading directories from each name. It fails if a name or a link
// points outside dir, if an entry is not a file, directory or link, or if the files have
// more than limit bytes. After an error, the caller removes the files unpacked so far.
func Unpack(ctx context.Context, archive string, format wire.Format, strip int, dir string, limit int64) ([]installed.File, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	u := &unpacker{root: root, strip: strip, remaining: limit, files: map[string]installed.File{}, buffer: make([]byte, 512<<10)}
	packed := countedFile{f, progress.FromContext(ctx)}
	switch format {
	case wire.FormatTarGz:
		var r *gzip.Reader
		if r, err = gzip.NewReader(bufio.NewReaderSize(packed, 256<<10)); err == nil {
			err = u.tar(ctx, r)
		}
	case wire.FormatTarZst:
		var r *zstd.Decoder
		if r, err = zstd.NewReader(packed, zstd.WithDecoderMaxMemory(1<<30), zstd.WithDecoderConcurrency(1)); err == nil {
			defer r.Close()
			err = u.tar(ctx, r)
		}
	case wire.FormatZip:
		err = u.zip(ctx, f)
	default:
		err = fmt.Errorf("invalid archive format %q: want %s, %s or %s", format, wire.FormatTarGz, wire.FormatTarZst, wire.FormatZip)
	}
	if err == nil {
		err = u.checkLinks()
	}
	return slices.Collect(maps.Values(u.files)), err
}

// unpacker writes files through an os.Root, which prevents writes outside the directory.
type unpacker struct {
	root      *os.Root
	strip     int
	remaining int64 // bytes that may still be written
	entries   int
	files     map[string]installed.File
	buffer    []byte
}

func (u *unpacker) tar(ctx context.Context, r io.Reader) error {
	buffered := readahead.NewReader(r) // decompresses while files are written
	defer buffered.Close()
	t := tar.NewReader(buffered)
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := u.nextName(ctx, header.Name, header.Typeflag == tar.TypeDir)
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		switch header.Typeflag {
		case tar.TypeXGlobalHeader:
		case tar.TypeDir:
			err = u.dir(name)
		case tar.TypeReg, tar.TypeGNUSparse:
			err = u.file(name, t, header.Mode&0o111 != 0)
		case tar.TypeSymlink:
			err = u.symlink(name, header.Linkname)
		case tar.TypeLink:
			err = u.hardlink(name, header.Linkname)
		default:
			err = fmt.Errorf("invalid entry type %q: want a file, directory or link", header.Typeflag)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", header.Name, err)
		}
	}
}

func (u *unpacker) zip(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return err
	}
	for _, entry := range z.File {
		name, err := u.nextName(ctx, entry.Name, entry.Mode().IsDir())
		if err == nil && name != "" {
			err = u.zipEntry(name, entry)
		}
		progress.FromContext(ctx).Add(int64(min(entry.CompressedSize64, 1<<62)))
		if err != nil {
			return fmt.Errorf("%q: %w", entry.Name, err)
		}
	}
	return nil
}

func (u *unpacker) zipEntry(name string, entry *zip.File) error {
	mode := entry.Mode()
	switch {
	case mode.IsDir():
		return u.dir(name)
	case mode.Type() != 0 && mode.Type() != fs.ModeSymlink:
		return fmt.Errorf("invalid entry type %s: want a file, directory or link", mode.Type())
	}
	r, err := entry.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if mode.IsRegular() {
		return u.file(name, r, mode&0o111 != 0)
	}
	target, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return err
	}
	return u.symlink(name, string(target))
}

// nextName counts an entry and returns its cleaned name without the stripped directories.
// The name is empty if the entry is itself a stripped directory.
func (u *unpacker) nextName(ctx context.Context, name string, dir bool) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if u.entries++; u.entries > maxEntries {
		return "", fmt.Errorf("invalid archive: want at most %d entries", maxEntries)
	}
	clean, err := cleanName(name)
	if err != nil {
		return "", err
	}
	if dir && strings.Count(clean, "/") < u.strip {
		return "", nil
	}
	return u.stripDirs(clean), nil
}

// stripDirs returns a cleaned file name without its first u.strip directories.
func (u *unpacker) stripDirs(clean string) string {
	for range u.strip {
		_, rest, ok := strings.Cut(clean, "/")
		if !ok {
			break
		}
		clean = rest
	}
	return clean
}

func cleanName(name string) (string, error) {
	clean := path.Clean(name)
	if name == "" || !filepath.IsLocal(clean) || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("invalid path %q: want a path inside the archive", name)
	}
	return clean, nil
}

func (u *unpacker) dir(name string) error {
	if name == "." {
		return nil
	}
	if err := u.mkParents(name); err != nil {
		return err
	}
	if info, err := u.root.Lstat(name); err == nil && !info.IsDir() {
		if err := u.remove(name); err != nil {
			return err
		}
	}
	return u.root.MkdirAll(name, 0o755)
}

// mkParents creates the parent directories of name. It fails if any of them is a link, so
// that no file is unpacked through a link.
func (u *unpacker) mkParents(name string) error {
	parent := path.Dir(name)
	if parent == "." {
		return nil
	}
	if err := u.mkParents(parent); err != nil {
		return err
	}
	info, err := u.root.Lstat(parent)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return u.root.Mkdir(parent, 0o755)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%q is not a directory", parent)
	}
	return nil
}

// preparePath creates the parent directories of a new file or link, and removes an earlier
// entry with the same name. As in tar, the last entry with a name replaces the others.
func (u *unpacker) preparePath(name string) error {
	if name == "." {
		return errors.New("invalid entry: the root of the archive is not a directory")
	}
	if err := u.mkParents(name); err != nil {
		return err
	}
	return u.remove(name)
}

func (u *unpacker) remove(name string) error {
	delete(u.files, name)
	if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (u *unpacker) file(name string, r io.Reader, program bool) (err error) {
	if err := u.preparePath(name); err != nil {
		return err
	}
	perm, mode := fs.FileMode(0o644), installed.ModeData
	if program {
		perm, mode = 0o755, installed.ModeProgram
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	hash := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(f, hash), io.LimitReader(r, u.remaining+1), u.buffer)
	if err != nil {
		return err
	}
	if u.remaining -= n; u.remaining < 0 {
		return errors.New("the unpacked files need more than the free disk space")
	}
	u.files[name] = installed.File{Path: name, Size: n, SHA256: hex.EncodeToString(hash.Sum(nil)), Mode: mode}
	return f.Chmod(perm) // OpenFile applies the umask
}

func (u *unpacker) symlink(name, target string) error {
	if err := u.preparePath(name); err != nil {
		return err
	}
	if target == "" || path.IsAbs(target) || !filepath.IsLocal(path.Join(path.Dir(name), target)) {
		return fmt.Errorf("invalid link to %q: want a path inside the archive", target)
	}
	u.files[name] = installed.File{Path: name, Link: target}
	return u.root.Symlink(target, name)
}

func (u *unpacker) hardlink(name, target string) error {
	target, err := cleanName(target)
	if err != nil {
		return err
	}
	target = u.stripDirs(target)
	old, ok := u.files[target]
	if !ok || old.Link != "" {
		return fmt.Errorf("invalid hard link to %q: want an earlier file of the archive", target)
	}
	if target == name {
		return nil
	}
	if err := u.preparePath(name); err != nil {
		return err
	}
	old.Path = name
	u.files[name] = old
	return u.root.Link(target, name)
}

// checkLinks checks all links of the archive. Each link was checked alone when it was
// created, but several links can together lead outside the directory.
func (u *unpacker) checkLinks() error {
	for name, f := range u.files {
		if f.Link == "" {
			continue
		}
		if err := CheckLink(u.root, name, f.Link); err != nil {
			return err
		}
	}
	return nil
}
