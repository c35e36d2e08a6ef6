package artifact

import (
	"archive/tar"
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// ErrNotInArchive reports that an archive does not contain a file.
var ErrNotInArchive = errors.New("not found in the archive")

// ReadArchiveFile calls read with the content of one file of an archive. name is the path of
// the file in the archive without the first strip directories.
func ReadArchiveFile(f *os.File, format wire.Format, strip int, name string, read func(io.Reader) error) error {
	var r io.Reader
	switch format {
	case wire.FormatTarGz:
		gz, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		r = gz
	case wire.FormatTarZst:
		zst, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		defer zst.Close()
		r = zst
	case wire.FormatZip:
		return readZipFile(f, strip, name, read)
	default:
		return fmt.Errorf("unknown archive format %q", format)
	}
	t := tar.NewReader(r)
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w", name, ErrNotInArchive)
		}
		if err != nil {
			return err
		}
		if header.Typeflag == tar.TypeReg && stripPath(header.Name, strip) == name {
			return read(t)
		}
	}
}

// readZipFile implements [ReadArchiveFile] for zip archives.
func readZipFile(f *os.File, strip int, name string, read func(io.Reader) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return err
	}
	for _, entry := range z.File {
		if !entry.Mode().IsRegular() || stripPath(entry.Name, strip) != name {
			continue
		}
		r, err := entry.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		return read(r)
	}
	return fmt.Errorf("%s: %w", name, ErrNotInArchive)
}

// stripPath removes up to strip leading directories from name.
func stripPath(name string, strip int) string {
	name = path.Clean(name)
	for range strip {
		_, rest, ok := strings.Cut(name, "/")
		if !ok {
			break
		}
		name = rest
	}
	return name
}
