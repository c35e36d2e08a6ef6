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

// TestOpenPartWithoutLocks checks that openPart keeps no file if the file system does not
// support locks.
func TestOpenPartWithoutLocks(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{syscall.ENOLCK, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.ENOSYS} {
		path := filepath.Join(t.TempDir(), "hives.lock")
		if _, _, err := openPartWith(path+".part", func(string, fs.FileMode) (*filelock.Lock, error) { return nil, failure }); !errors.Is(err, ErrBusy) {
			t.Errorf("openPartWith(lock error %v) = %v, want %v", failure, err, ErrBusy)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 0 {
			t.Errorf("openPartWith(lock error %v) leaves %v, %v, want no files", failure, files, err)
		}
	}
}

// TestRemoveStale checks that RemoveStale removes old incomplete downloads, and keeps complete
// files, new ones, and ones in use.
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
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	var names []string
	for _, path := range files {
		names = append(names, filepath.Base(path))
	}
	if got := len(names); err != nil || got != 5 || names[0] != ".folder" || names[4] != "dd.part" {
		t.Errorf("files after RemoveStale() = %q, %v, want .folder, aa, bb.gz, cc.part and dd.part", names, err)
	}
}
