package install

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// zipEntry is an entry of a zip archive. The body of a link is its target.
type zipEntry struct {
	name, body string
	mode       fs.FileMode
}

func zipArchive(t testing.TB, entries ...zipEntry) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode)
		w, err := z.CreateHeader(h)
		if err == nil && !e.mode.IsDir() {
			_, err = io.WriteString(w, e.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// tarZst returns the same tar archive as tarGz, compressed with zstd.
func tarZst(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(tarGz(t, headers...)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err == nil {
		_, err = io.Copy(w, r)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestInstallArchives installs a worker from an archive of each format, sent by the client.
func TestInstallArchives(t *testing.T) {
	t.Parallel()
	headers := []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/prog", Typeflag: tar.TypeReg},
		{Name: "run", Linkname: "bin/prog", Typeflag: tar.TypeSymlink},
	}
	for format, data := range map[wire.Format][]byte{
		wire.FormatTarGz:  tarGz(t, headers...),
		wire.FormatTarZst: tarZst(t, headers...),
		wire.FormatZip: zipArchive(t, zipEntry{"bin/", "", fs.ModeDir | 0o755},
			zipEntry{"bin/prog", "hi", 0o644}, zipEntry{"run", "bin/prog", fs.ModeSymlink | 0o777}),
	} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			h := newHive(t)
			res := apply(t, h, &wire.Request{Steps: []wire.Step{worker("1", format, data)}}, data)
			if res.Errors[0] != "" {
				t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
			}
			if w := h.Worker(t.Context(), "w", true); w.Corrupt != "" || w.Bytes != 2 {
				t.Errorf("Worker() = %+v, want an intact worker of 2 bytes", w)
			}
			// The program is executable even if the archive has another mode, as a zip
			// from another system may have.
			path := h.EntryPath("w")
			body, err := os.ReadFile(path)
			info, statErr := os.Stat(path)
			if err := errors.Join(err, statErr); err != nil || string(body) != "hi" || info.Mode().Perm() != 0o755 {
				t.Errorf("the program contains %q with mode %v, %v, want hi with mode 0755", body, info, err)
			}
			if entries, _ := os.ReadDir(h.BuildDir("w", "1")); len(entries) != 4 {
				t.Errorf("the build contains %v, want the manifest, the list of files, the entry and the payload", entries)
			}
		})
	}
}

// TestInvalidArchives checks that invalid archives of each format fail the install, for
// example with paths outside the archive, and that the installed worker is kept.
func TestInvalidArchives(t *testing.T) {
	t.Parallel()
	link := fs.ModeSymlink | 0o777
	zips := map[string]struct {
		entries []zipEntry
		want    string
	}{
		"parent path":       {[]zipEntry{{"../../../../x", "x", 0o644}}, "invalid path"},
		"inner parent path": {[]zipEntry{{"a/../../x", "x", 0o644}}, "invalid path"},
		"absolute path":     {[]zipEntry{{"/x", "x", 0o644}}, "invalid path"},
		"directory":         {[]zipEntry{{"../d/", "", fs.ModeDir | 0o755}}, "invalid path"},
		"link":              {[]zipEntry{{"run", "../../x", link}}, "invalid link"},
		"absolute link":     {[]zipEntry{{"run", "/etc/passwd", link}}, "invalid link"},
		"two links":         {[]zipEntry{{"a/b/c/x", "../../..", link}, {"run", "a/b/c/x/../../w", link}}, "crosses another link"},
		"through a link":    {[]zipEntry{{"d/", "", fs.ModeDir | 0o755}, {"l", "d", link}, {"l/x", "x", 0o644}}, "not a directory"},
		"device":            {[]zipEntry{{"run", "", fs.ModeDevice | 0o644}}, "want a file, directory or link"},
		"missing program":   {[]zipEntry{{"other", "x", 0o644}}, `invalid entry "run"`},
		"directory program": {[]zipEntry{{"run/", "", fs.ModeDir | 0o755}}, "want a file of the artifact"},
	}
	type archive struct {
		format wire.Format
		data   []byte
		want   string
	}
	archives := map[string]archive{
		"not an archive, zip":     {wire.FormatZip, []byte("plain"), "not a valid zip"},
		"not an archive, tar.zst": {wire.FormatTarZst, []byte("plain"), "cannot unpack"},
		"not an archive, tar.gz":  {wire.FormatTarGz, []byte("plain"), "cannot unpack"},
	}
	for name, z := range zips {
		archives["zip "+name] = archive{wire.FormatZip, zipArchive(t, z.entries...), z.want}
	}
	for name, c := range map[string]struct {
		header tar.Header
		want   string
	}{
		"parent path":       {tar.Header{Name: "../x", Typeflag: tar.TypeReg}, "invalid path"},
		"link":              {tar.Header{Name: "run", Linkname: "../../x", Typeflag: tar.TypeSymlink}, "invalid link"},
		"missing hard link": {tar.Header{Name: "run", Linkname: "missing", Typeflag: tar.TypeLink}, "invalid hard link"},
		"outer hard link":   {tar.Header{Name: "run", Linkname: "../../../../rbee", Typeflag: tar.TypeLink}, "invalid path"},
	} {
		archives["tar.gz "+name] = archive{wire.FormatTarGz, tarGz(t, c.header), c.want}
		archives["tar.zst "+name] = archive{wire.FormatTarZst, tarZst(t, c.header), c.want}
	}
	for name, a := range archives {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHive(t)
			old := []byte("old")
			apply(t, h, &wire.Request{Steps: []wire.Step{worker("1", "", old)}}, old)
			before := treeText(t, h.User)
			res := apply(t, h, &wire.Request{Steps: []wire.Step{worker("2", a.format, a.data)}}, a.data)
			if !strings.Contains(res.Errors[0], a.want) {
				t.Errorf("install = %q, want an error with %q", res.Errors[0], a.want)
			}
			if after := treeText(t, h.User); after != before {
				t.Errorf("the failed install changed the files (-before +after):\n%s", cmp.Diff(before, after))
			}
		})
	}
}

// treeText returns the paths of all files below a directory, one per line.
func treeText(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		list.WriteString(path + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}
