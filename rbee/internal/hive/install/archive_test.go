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

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// zipEntry is a file of a zip archive; a link's body is its target.
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

// tarZst packs what tarGz packs, with zstd.
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

// An archive of each kind, pushed, becomes a worker whose files are all there.
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
				t.Fatal(res.Errors)
			}
			if w := h.Worker(t.Context(), "w", true); w.Corrupt != "" || w.Bytes != 2 {
				t.Errorf("%+v", w)
			}
			// The entry point leads to the program, which a zip of another system
			// need not have marked as one.
			path := h.EntryPath("w")
			body, err := os.ReadFile(path)
			info, statErr := os.Stat(path)
			if err := errors.Join(err, statErr); err != nil || string(body) != "hi" || info.Mode().Perm() != 0o755 {
				t.Errorf("%q, %v, %v", body, info, err)
			}
			if left, _ := os.ReadDir(h.BuildDir("w", "1")); len(left) != 4 {
				t.Errorf("beside manifest, list of files, entry and payload: %v", left)
			}
		})
	}
}

// Archives of every kind that reach for what is outside are refused, and a
// worker that was there before stays.
func TestInvalidArchives(t *testing.T) {
	t.Parallel()
	link := fs.ModeSymlink | 0o777
	zips := map[string]struct {
		entries []zipEntry
		want    string
	}{
		"by name":         {[]zipEntry{{"../../../../x", "x", 0o644}}, "outside"},
		"by name within":  {[]zipEntry{{"a/../../x", "x", 0o644}}, "outside"},
		"absolute":        {[]zipEntry{{"/x", "x", 0o644}}, "outside"},
		"directory":       {[]zipEntry{{"../d/", "", fs.ModeDir | 0o755}}, "outside"},
		"link":            {[]zipEntry{{"run", "../../x", link}}, "leads out"},
		"absolute link":   {[]zipEntry{{"run", "/etc/passwd", link}}, "leads out"},
		"two links":       {[]zipEntry{{"a/b/c/x", "../../..", link}, {"run", "a/b/c/x/../../w", link}}, "leads through another link"},
		"through a link":  {[]zipEntry{{"d/", "", fs.ModeDir | 0o755}, {"l", "d", link}, {"l/x", "x", 0o644}}, "no directory"},
		"device":          {[]zipEntry{{"run", "", fs.ModeDevice | 0o644}}, "no file, directory or link"},
		"without program": {[]zipEntry{{"other", "x", 0o644}}, `no program "run"`},
		"directory as it": {[]zipEntry{{"run/", "", fs.ModeDir | 0o755}}, "no file of the artifact"},
	}
	type archive struct {
		format wire.Format
		data   []byte
		want   string
	}
	archives := map[string]archive{
		"no archive, zip":     {wire.FormatZip, []byte("plain"), "not a valid zip"},
		"no archive, tar.zst": {wire.FormatTarZst, []byte("plain"), "unpacking"},
		"no archive, tar.gz":  {wire.FormatTarGz, []byte("plain"), "unpacking"},
	}
	for name, z := range zips {
		archives["zip "+name] = archive{wire.FormatZip, zipArchive(t, z.entries...), z.want}
	}
	for name, header := range map[string]tar.Header{
		"outside":       {Name: "../x", Typeflag: tar.TypeReg},
		"leads out":     {Name: "run", Linkname: "../../x", Typeflag: tar.TypeSymlink},
		"a hard link":   {Name: "run", Linkname: "missing", Typeflag: tar.TypeLink},
		"file outside ": {Name: "run", Linkname: "../../../../rbee", Typeflag: tar.TypeLink},
	} {
		archives["tar.gz "+name] = archive{wire.FormatTarGz, tarGz(t, header), name}
		archives["tar.zst "+name] = archive{wire.FormatTarZst, tarZst(t, header), name}
	}
	for name, a := range archives {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHive(t)
			old := []byte("old")
			apply(t, h, &wire.Request{Steps: []wire.Step{worker("1", "", old)}}, old)
			before := treeText(t, h.User)
			res := apply(t, h, &wire.Request{Steps: []wire.Step{worker("2", a.format, a.data)}}, a.data)
			if !strings.Contains(res.Errors[0], strings.TrimSpace(a.want)) {
				t.Errorf("got %q, want %q", res.Errors[0], a.want)
			}
			if after := treeText(t, h.User); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// treeText lists everything below a directory, a file a line.
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
