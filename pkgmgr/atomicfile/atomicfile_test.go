package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
)

// TestLockFileWithoutLocks holds that a file can be replaced where the file system
// has no locks, and that any other failure to lock is one.
func TestLockFileWithoutLocks(t *testing.T) {
	t.Parallel()
	for _, k := range []struct{ failure, want error }{
		{syscall.ENOLCK, nil}, {syscall.ENOTSUP, nil}, {syscall.EOPNOTSUPP, nil}, {syscall.ENOSYS, nil}, {syscall.EIO, syscall.EIO},
	} {
		path := filepath.Join(t.TempDir(), "hives.lock")
		unlock, err := lockBy(path, func(beside string) (*filelock.Lock, error) {
			return nil, errors.Join(os.WriteFile(beside, nil, 0o600), k.failure)
		})
		if !errors.Is(err, k.want) {
			t.Errorf("%v: %v", k.failure, err)
		}
		if err != nil {
			continue
		}
		unlock()
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
			t.Errorf("%v: left %v, %v", k.failure, left, err)
		}
	}
}
