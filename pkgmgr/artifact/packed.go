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

// ErrNotPacked says that an archive does not hold a file.
var ErrNotPacked = errors.New("the archive does not hold it")

// ReadPacked hands one file of an archive to read. strip is how many directories
// at the beginning of names do not count.
func ReadPacked(f *os.File, format wire.Format, strip int, name string, read func(io.Reader) error) error {
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
		return readZipped(f, strip, name, read)
	default:
		return fmt.Errorf("unknown format %q", format)
	}
	t := tar.NewReader(r)
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w", name, ErrNotPacked)
		}
		if err != nil {
			return err
		}
		if header.Typeflag == tar.TypeReg && stripped(header.Name, strip) == name {
			return read(t)
		}
	}
}

func readZipped(f *os.File, strip int, name string, read func(io.Reader) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return err
	}
	for _, entry := range z.File {
		if !entry.Mode().IsRegular() || stripped(entry.Name, strip) != name {
			continue
		}
		r, err := entry.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		return read(r)
	}
	return fmt.Errorf("%s: %w", name, ErrNotPacked)
}

// stripped is a file's name without its first directories, as many as it has.
func stripped(name string, strip int) string {
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
