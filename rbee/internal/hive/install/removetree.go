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

// removersPerCPU is the number of directories that removeTree empties in parallel per CPU.
// It is more than one, because removal waits for the disk.
const removersPerCPU = 4

// removeTree removes a directory tree, as [os.RemoveAll] does, but works on several
// directories in parallel. ph, which may be nil, counts the files. removeTree does not
// follow links.
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
	return os.RemoveAll(dir) // returns the error of a file that cannot be removed
}

// removeFiles removes the files of a directory. It returns the subdirectories and the number
// of removed files. It ignores errors, which [os.RemoveAll] reports later.
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
