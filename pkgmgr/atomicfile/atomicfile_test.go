package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
)

// TestLockUnsupported checks that Lock succeeds if the file system does not support locks, and
// returns other errors.
func TestLockUnsupported(t *testing.T) {
	t.Parallel()
	for _, k := range []struct{ failure, want error }{
		{syscall.ENOLCK, nil}, {syscall.ENOTSUP, nil}, {syscall.EOPNOTSUPP, nil}, {syscall.ENOSYS, nil}, {syscall.EIO, syscall.EIO},
	} {
		path := filepath.Join(t.TempDir(), "hives.lock")
		unlock, err := lockWith(path, func(lockPath string) (*filelock.Lock, error) {
			return nil, errors.Join(os.WriteFile(lockPath, nil, 0o600), k.failure)
		})
		if !errors.Is(err, k.want) {
			t.Errorf("lockWith(lock error %v) = %v, want %v", k.failure, err, k.want)
		}
		if err != nil {
			continue
		}
		unlock()
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 0 {
			t.Errorf("lockWith(lock error %v) and unlock() leave %v, %v, want no files", k.failure, files, err)
		}
	}
}
