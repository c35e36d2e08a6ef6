package fetch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
)

// TestPartWithoutLocks holds that nothing is kept of a download where the file system
// has no locks.
func TestPartWithoutLocks(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{syscall.ENOLCK, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.ENOSYS} {
		path := filepath.Join(t.TempDir(), "hives.lock")
		if _, _, err := openPartBy(path+".part", func(string, fs.FileMode) (*filelock.Lock, error) { return nil, failure }); !errors.Is(err, ErrBusy) {
			t.Errorf("%v: a part gives %v", failure, err)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
			t.Errorf("%v: left %v, %v", failure, left, err)
		}
	}
}

// TestRemoveStale holds that what runs of long ago left of downloads goes, and nothing
// that is whole, young, or somebody's right now.
func TestRemoveStale(t *testing.T) {
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
	part, unlock, err := openPart(busy)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	defer unlock()
	RemoveStale(dir, time.Now().Add(-PartTTL))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	var names []string
	for _, path := range left {
		names = append(names, filepath.Base(path))
	}
	if got := len(names); err != nil || got != 5 || names[0] != ".folder" || names[4] != "dd.part" {
		t.Errorf("left %q, %v", names, err)
	}
}
