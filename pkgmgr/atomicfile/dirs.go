package atomicfile

import (
	"os"
	"path/filepath"
)

// MissingDirs returns the directories above path that do not exist, outermost first:
// those that [Write] creates.
func MissingDirs(path string) []string {
	var missing []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			return missing
		}
		missing = append([]string{dir}, missing...)
	}
}
