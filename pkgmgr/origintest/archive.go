package origintest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// TarGz returns a tar.gz archive of files, which maps paths to contents. Files whose content
// starts with #! are executable.
func TarGz(files map[string]string) []byte {
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	writeTar(tar.NewWriter(gz), files)
	must(gz.Close())
	return out.Bytes()
}

// TarZst works like [TarGz] with zstd compression.
func TarZst(files map[string]string) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	must(err)
	writeTar(tar.NewWriter(w), files)
	must(w.Close())
	return out.Bytes()
}

// writeTar writes files to t and closes it.
func writeTar(t *tar.Writer, files map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode := int64(0o644)
		if strings.HasPrefix(files[name], "#!") {
			mode = 0o755
		}
		must(t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(files[name]))}))
		_, err := t.Write([]byte(files[name]))
		must(err)
	}
	must(t.Close())
}

// Wheel is a Python package in wheel format.
type Wheel struct {
	Name, Version string

	// Tag is the compatibility tag, python-abi-platform; empty means py3-none-any.
	Tag string

	// Requires are the dependencies, such as "six>=1.0".
	Requires []string

	// Scripts are the programs to install in the environment's bin directory, and
	// Files all other files of the package, both by name.
	Scripts, Files map[string]string

	// Torch is the torch backend whose index lists the wheel; empty for the main index.
	Torch string

	Yanked       bool
	Uploaded     time.Time // upload time in the index; zero for none
	ReportedSize int64     // wrong size in the index; 0 for the actual size
}

// Filename returns the file name of the wheel.
func (w Wheel) Filename() string {
	tag := w.Tag
	if tag == "" {
		tag = "py3-none-any"
	}
	return strings.ReplaceAll(w.Name, "-", "_") + "-" + w.Version + "-" + tag + ".whl"
}

// Bytes returns the content of the wheel file.
func (w Wheel) Bytes() []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	prefix := strings.ReplaceAll(w.Name, "-", "_") + "-" + w.Version
	var record strings.Builder
	put := func(name, text string) {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		must(err)
		_, err = f.Write([]byte(text))
		must(err)
		sum := sha256.Sum256([]byte(text))
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", name, base64.RawURLEncoding.EncodeToString(sum[:]), len(text))
	}
	for _, name := range slices.Sorted(maps.Keys(w.Files)) {
		put(name, w.Files[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.Scripts)) {
		put(prefix+".data/scripts/"+name, w.Scripts[name])
	}
	meta := "Metadata-Version: 2.1\nName: " + w.Name + "\nVersion: " + w.Version + "\n"
	for _, r := range w.Requires {
		meta += "Requires-Dist: " + r + "\n"
	}
	put(prefix+".dist-info/METADATA", meta)
	put(prefix+".dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: origintest\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
	record.WriteString(prefix + ".dist-info/RECORD,,\n")
	f, err := z.CreateHeader(&zip.FileHeader{Name: prefix + ".dist-info/RECORD", Method: zip.Deflate})
	must(err)
	_, err = f.Write([]byte(record.String()))
	must(err)
	must(z.Close())
	return out.Bytes()
}

// must panics if err is not nil. It is for errors that cannot happen in memory.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
