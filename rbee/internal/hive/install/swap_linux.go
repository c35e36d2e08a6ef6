package install

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"golang.org/x/sys/unix"
)

// exchange atomically exchanges two files or directories.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// syncTree flushes a staged version to disk. For more than one file, it syncs the complete
// filesystem, which is faster than one call per file.
func syncTree(staged string, m *installed.Manifest) error {
	if len(m.Files) == 1 {
		return home.SyncFile(filepath.Join(staged, installed.PayloadDir, m.Files[0].Path))
	}
	d, err := os.Open(staged)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}
