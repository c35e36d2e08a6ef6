package atomicfile

import (
	"os"
	"path/filepath"
)

// MissingDirs returns the parent directories of path that do not exist, outermost first.
// [Write] creates these directories.
func MissingDirs(path string) []string {
	var missing []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			return missing
		}
		missing = append([]string{dir}, missing...)
	}
}
