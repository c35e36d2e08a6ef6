package pkgmgr

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestLockFileWithoutLocks holds that a file can be replaced where the file system
// has no locks, and that any other failure to lock is one.
func TestLockFileWithoutLocks(t *testing.T) {
	t.Parallel()
	for _, k := range []struct{ failure, want error }{
		{syscall.ENOLCK, nil}, {syscall.ENOTSUP, nil}, {syscall.EOPNOTSUPP, nil}, {syscall.ENOSYS, nil}, {syscall.EIO, syscall.EIO},
	} {
		path := filepath.Join(t.TempDir(), "hives.lock")
		unlock, err := lockFileBy(path, func(int, int) error { return k.failure })
		if !errors.Is(err, k.want) {
			t.Errorf("%v: %v", k.failure, err)
		}
		if err != nil {
			continue
		}
		unlock()
		if _, err := openPartBy(path+".part", func(int, int) error { return k.failure }); !errors.Is(err, errBusy) {
			t.Errorf("%v: a part gives %v", k.failure, err)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
			t.Errorf("%v: left %v, %v", k.failure, left, err)
		}
	}
}

// TestSweepParts holds that what runs of long ago left of downloads goes, and nothing
// that is whole, young, or somebody's right now.
func TestSweepParts(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	put := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, now, now.Add(-age))); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const day = 24 * time.Hour
	put("aa", 30*day)
	put("bb.gz", 30*day)
	put("cc.part", 6*day)
	busy := put("dd.part", 30*day)
	for _, name := range []string{"ee.part", ".aa.123", "new-XY"} {
		put(name, 8*day)
	}
	if err := os.Mkdir(filepath.Join(dir, ".folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	part, err := openPart(busy)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	(&artefacts{dir: dir}).sweep()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	var names []string
	for _, path := range left {
		names = append(names, filepath.Base(path))
	}
	if got := len(names); err != nil || got != 5 || names[0] != ".folder" || names[4] != "dd.part" {
		t.Errorf("left %q, %v", names, err)
	}
}
