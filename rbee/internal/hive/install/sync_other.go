//go:build !linux

package install

import (
	"path/filepath"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

// syncTree flushes a staged version to disk.
func syncTree(staged string, m *installed.Manifest) error {
	for _, f := range m.Files {
		if f.Link != "" {
			continue
		}
		if err := home.SyncFile(filepath.Join(staged, installed.PayloadDir, filepath.FromSlash(f.Path))); err != nil {
			return err
		}
	}
	return nil
}
