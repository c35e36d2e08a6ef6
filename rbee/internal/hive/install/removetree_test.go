package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
)

// writeFile writes a file and creates its parent directories.
func writeFile(path string, data []byte) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600))
}

// fillTree creates a directory tree with n files, 25 per directory.
func fillTree(tb testing.TB, dir string, n int) {
	tb.Helper()
	for i := range n {
		if err := writeFile(filepath.Join(dir, fmt.Sprintf("d%d/e%d/f%d", i/500, i/25, i)), []byte("x")); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestRemoveTree(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir, outside := filepath.Join(top, "dir"), filepath.Join(top, "outside")
	fillTree(t, dir, 1000)
	if err := errors.Join(writeFile(filepath.Join(outside, "kept"), nil), os.Symlink(outside, filepath.Join(dir, "link")), os.Symlink("nowhere", filepath.Join(dir, "d0/dangling"))); err != nil {
		t.Fatal(err)
	}
	var last *wire.Progress
	ph := progress.New(func(m wire.Message) { last = m.Progress }, wire.Progress{Unit: wire.UnitFiles})
	if err := removeTree(dir, ph); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Errorf("%s exists after removeTree(), want it removed", dir)
	}
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("removeTree() followed a link in the directory: Stat() = %v, want nil", err)
	}
	for end := time.Now().Add(time.Minute); last.Count != 1002 && time.Now().Before(end); runtime.Gosched() {
		ph.Add(0) // sends the count if a report is due
	}
	if last.Count != 1002 {
		t.Errorf("removeTree() counted %d files, want 1002", last.Count)
	}
	for _, path := range []string{dir, filepath.Join(outside, "kept")} { // a missing path, and a file
		if err := removeTree(path, nil); err != nil {
			t.Errorf("removeTree(%s) = %v, want nil", path, err)
		}
	}
	if err := errors.Join(os.Symlink(top, dir), removeTree(dir, nil)); err != nil {
		t.Errorf("removeTree() of a link = %v, want nil", err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("removeTree() followed a link to a directory: Stat() = %v, want nil", err)
	}
}

// BenchmarkRemove compares removeTree with os.RemoveAll on 50,000 files, and reports the
// shortest time of each.
func BenchmarkRemove(b *testing.B) {
	const files = 50_000
	top := os.Getenv("RBEE_BENCH_DIR")
	if top == "" {
		top = b.TempDir()
	}
	funcs := []struct {
		name   string
		remove func(string) error
	}{
		{"rbee", func(dir string) error { return removeTree(dir, nil) }},
		{"os.RemoveAll", os.RemoveAll},
	}
	fastest := make([]time.Duration, len(funcs))
	for b.Loop() {
		for i, f := range funcs {
			dir := filepath.Join(top, "tree")
			fillTree(b, dir, files)
			unix.Sync()
			start := time.Now()
			if err := f.remove(dir); err != nil {
				b.Fatal(err)
			}
			if took := time.Since(start); fastest[i] == 0 || took < fastest[i] {
				fastest[i] = took
			}
		}
	}
	for i, f := range funcs {
		b.ReportMetric(fastest[i].Seconds()*1000, f.name+"-ms")
	}
}
