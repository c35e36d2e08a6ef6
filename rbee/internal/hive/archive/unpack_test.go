package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
)

// archiveOf returns a .tar.gz archive with the given entries. Each file contains "hi".
func archiveOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Mode = 2, 0o755
		}
		err := w.WriteHeader(&h)
		if h.Typeflag == tar.TypeReg && err == nil {
			_, err = w.Write([]byte("hi"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestUnpackStaysInside(t *testing.T) {
	t.Parallel()
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	for name, tt := range map[string]struct {
		entries []tar.Header
		want    string
	}{
		"valid":        {[]tar.Header{file("run"), link("a/l", "../run"), {Name: "h", Linkname: "run", Typeflag: tar.TypeLink}}, ""},
		"parent path":  {[]tar.Header{file("../x")}, "invalid path"},
		"absolute":     {[]tar.Header{file("/x")}, "invalid path"},
		"link":         {[]tar.Header{link("l", "../..")}, "invalid link"},
		"through link": {[]tar.Header{{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, link("l", "d"), file("l/x")}, "not a directory"},
		"two links":    {[]tar.Header{link("a/b/c/x", "../../.."), link("y", "a/b/c/x/../../w")}, "crosses another link"},
		"to a link":    {[]tar.Header{file("lib/a.so.1.2"), link("lib/a.so.1", "a.so.1.2"), link("lib/a.so", "./a.so.1"), link("current", "lib")}, ""},
		"hard link":    {[]tar.Header{{Name: "h", Linkname: "../x", Typeflag: tar.TypeLink}}, "invalid path"},
		"device":       {[]tar.Header{{Name: "d", Typeflag: tar.TypeChar}}, "type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			archive := filepath.Join(dir, "a")
			if err := errors.Join(os.WriteFile(archive, archiveOf(t, tt.entries...), 0o600), os.Mkdir(filepath.Join(dir, "in"), 0o700)); err != nil {
				t.Fatal(err)
			}
			_, err := Unpack(t.Context(), archive, wire.FormatTarGz, 0, filepath.Join(dir, "in"), 1000)
			if (tt.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Unpack() = %v, want an error with %q, or nil if it is empty", err, tt.want)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 2 {
				t.Errorf("Unpack() wrote %v outside of its directory, want nothing", entries)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archiveOf(f, tar.Header{Name: "run", Typeflag: tar.TypeReg}), false)
	f.Add([]byte("PK\x05\x06"+strings.Repeat("\x00", 18)), true)
	f.Fuzz(func(t *testing.T, data []byte, zip bool) {
		dir := t.TempDir()
		archive := filepath.Join(dir, "a")
		format := wire.FormatTarGz
		if zip {
			format = wire.FormatZip
		}
		if err := errors.Join(os.WriteFile(archive, data, 0o600), os.Mkdir(filepath.Join(dir, "in"), 0o700)); err != nil {
			t.Fatal(err)
		}
		_, _ = Unpack(t.Context(), archive, format, 0, filepath.Join(dir, "in"), 1<<16)
		if entries, _ := os.ReadDir(dir); len(entries) != 2 {
			t.Fatalf("Unpack() wrote %v outside of its directory, want nothing", entries)
		}
	})
}

func TestUnpackReportsProgress(t *testing.T) {
	t.Parallel()
	headers := []tar.Header{{Name: "run", Typeflag: tar.TypeReg}}
	for i := range 100 {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("f%d", i), Typeflag: tar.TypeReg})
	}
	var mu sync.Mutex
	var last wire.Progress
	ph := progress.New(func(m wire.Message) {
		mu.Lock()
		defer mu.Unlock()
		last = *m.Progress
	}, wire.Progress{})
	data := archiveOf(t, headers...)
	path := t.TempDir() + "/a.tar.gz"
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(progress.NewContext(t.Context(), ph), path, wire.FormatTarGz, 0, t.TempDir(), 1<<20); err != nil {
		t.Fatal(err)
	}
	reported := func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return last.Bytes
	}
	for end := time.Now().Add(time.Minute); reported() != int64(len(data)) && time.Now().Before(end); runtime.Gosched() {
		ph.Add(0) // sends the count if a report is due
	}
	if last.Bytes != int64(len(data)) {
		t.Errorf("Unpack() reported %d bytes, want %d", last.Bytes, len(data))
	}
}
