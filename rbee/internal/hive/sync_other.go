//go:build !linux

package hive

import "path/filepath"

// syncTree brings a staged version to disk.
func syncTree(staged string, m *Manifest) error {
	for _, f := range m.Files {
		if f.Link != "" {
			continue
		}
		if err := syncFile(filepath.Join(staged, payloadDir, filepath.FromSlash(f.Path))); err != nil {
			return err
		}
	}
	return nil
}
