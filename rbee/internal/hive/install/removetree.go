package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
	"github.com/sourcegraph/conc/pool"
)

// removersPerCPU is how many directories are emptied at a time for each CPU: removing
// waits for the disk.
const removersPerCPU = 4

// removeTree removes a directory with all that is in it, as [os.RemoveAll] does, several
// directories at a time. ph, which may be nil, counts the files. It follows no links.
func removeTree(dir string, ph *progress.Phase) error {
	var dirs []string // parents before children
	if info, err := os.Lstat(dir); err == nil && info.IsDir() {
		dirs = append(dirs, dir)
	}
	for level := dirs; len(level) > 0; {
		var mu sync.Mutex
		var next []string
		p := pool.New().WithMaxGoroutines(removersPerCPU * runtime.GOMAXPROCS(0))
		for _, d := range level {
			p.Go(func() {
				found, files := removeFiles(d)
				ph.Add(int64(files))
				mu.Lock()
				defer mu.Unlock()
				next = append(next, found...)
			})
		}
		p.Wait()
		dirs = append(dirs, next...)
		level = next
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		_ = os.Remove(dirs[i])
	}
	return os.RemoveAll(dir) // reports what could not be removed
}

// removeFiles removes the files of a directory, and returns its directories and how many
// files it removed. What cannot be removed is left for [os.RemoveAll] to report.
func removeFiles(dir string) (dirs []string, files int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, 0
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			dirs = append(dirs, path)
			continue
		}
		if err := os.Remove(path); err == nil || errors.Is(err, fs.ErrNotExist) {
			files++
		}
	}
	return dirs, files
}
