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

// TarGz packs files, by path. Those whose content begins with #! are programs.
func TarGz(files map[string]string) []byte {
	var out bytes.Buffer
	gz := gzip.NewWriter(&out)
	writeTar(tar.NewWriter(gz), files)
	must(gz.Close())
	return out.Bytes()
}

// TarZst is [TarGz] with zstd.
func TarZst(files map[string]string) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	must(err)
	writeTar(tar.NewWriter(w), files)
	must(w.Close())
	return out.Bytes()
}

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

// Wheel is a package as it is installed.
type Wheel struct {
	Name, Version string

	// Tag is python-abi-platform; empty for py3-none-any.
	Tag string

	// Requires are the packages that it depends on, such as "six>=1.0".
	Requires []string

	// Scripts are programs that it puts into the environment's bin, and Files
	// what lies beside its metadata.
	Scripts, Files map[string]string

	// Torch is the backend in whose own index it is; empty for the index itself.
	Torch string

	Yanked   bool      // it was withdrawn
	Uploaded time.Time // zero: the index does not record it
	LieSize  int64     // the size that the index tells; 0 for the right one
}

// Filename is the name of the wheel.
func (w Wheel) Filename() string {
	tag := w.Tag
	if tag == "" {
		tag = "py3-none-any"
	}
	return strings.ReplaceAll(w.Name, "-", "_") + "-" + w.Version + "-" + tag + ".whl"
}

// Bytes is the wheel.
func (w Wheel) Bytes() []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	stem := strings.ReplaceAll(w.Name, "-", "_") + "-" + w.Version
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
		put(stem+".data/scripts/"+name, w.Scripts[name])
	}
	meta := "Metadata-Version: 2.1\nName: " + w.Name + "\nVersion: " + w.Version + "\n"
	for _, r := range w.Requires {
		meta += "Requires-Dist: " + r + "\n"
	}
	put(stem+".dist-info/METADATA", meta)
	put(stem+".dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: origintest\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
	record.WriteString(stem + ".dist-info/RECORD,,\n")
	f, err := z.CreateHeader(&zip.FileHeader{Name: stem + ".dist-info/RECORD", Method: zip.Deflate})
	must(err)
	_, err = f.Write([]byte(record.String()))
	must(err)
	must(z.Close())
	return out.Bytes()
}

// must ends a test whose own data cannot be made.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
