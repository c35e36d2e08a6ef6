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

// writeFile writes a file with the directories above it.
func writeFile(path string, data []byte) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600))
}

// fillTree makes a directory with n files, 25 in each of its directories.
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
		t.Error("the directory is left")
	}
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	for end := time.Now().Add(time.Minute); last.Count != 1002 && time.Now().Before(end); runtime.Gosched() {
		ph.Add(0) // which sends what was counted, once a report is due
	}
	if last.Count != 1002 {
		t.Errorf("%d files are counted, want 1002", last.Count)
	}
	for _, path := range []string{dir, filepath.Join(outside, "kept")} { // nothing, and a file
		if err := removeTree(path, nil); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := errors.Join(os.Symlink(top, dir), removeTree(dir, nil)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link to a directory was followed: %v", err)
	}
}

// BenchmarkRemove compares removing 50,000 files with os.RemoveAll, in turn, and reports
// the fastest of each.
func BenchmarkRemove(b *testing.B) {
	const files = 50_000
	top := os.Getenv("RBEE_BENCH_DIR")
	if top == "" {
		top = b.TempDir()
	}
	ways := []struct {
		name   string
		remove func(string) error
	}{
		{"rbee", func(dir string) error { return removeTree(dir, nil) }},
		{"os.RemoveAll", os.RemoveAll},
	}
	fastest := make([]time.Duration, len(ways))
	for b.Loop() {
		for i, way := range ways {
			dir := filepath.Join(top, "tree")
			fillTree(b, dir, files)
			unix.Sync()
			start := time.Now()
			if err := way.remove(dir); err != nil {
				b.Fatal(err)
			}
			if took := time.Since(start); fastest[i] == 0 || took < fastest[i] {
				fastest[i] = took
			}
		}
	}
	for i, way := range ways {
		b.ReportMetric(fastest[i].Seconds()*1000, way.name+"-ms")
	}
}
