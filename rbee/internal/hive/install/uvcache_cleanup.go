package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// cleanWheels removes wheels that no installed version needs, and leftovers of interrupted
// installs. The caller must hold the lock. ph, which may be nil, counts the files.
func (c uvCache) cleanWheels(ph *progress.Phase) error {
	entries, err := os.ReadDir(c.store.Home.Path(installed.WheelsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return removeTree(c.store.Home.Path(wire.CacheDir), ph)
	}
	if err != nil {
		return err
	}
	needed := map[string]*wire.Artifact{}
	for _, m := range c.store.Manifests() {
		for _, step := range m.Steps {
			if step.Python == nil {
				continue
			}
			for i := range step.Python.Wheels {
				w := &step.Python.Wheels[i]
				needed[strings.ToLower(w.SHA256)] = w
			}
		}
	}
	inUse := false
	for _, e := range entries {
		if w := needed[e.Name()]; w != nil && c.lookup(w) != nil {
			inUse = true
			continue
		}
		err = errors.Join(err, os.RemoveAll(filepath.Join(c.store.Home.Path(installed.WheelsDir), e.Name())))
	}
	if !inUse && err == nil {
		return removeTree(c.store.Home.Path(wire.CacheDir), ph)
	}
	return errors.Join(err, c.cleanArchives(nil, ph))
}

// cleanArchives removes unpacked wheels without a record, and the links to them, from the
// cache of uv. It keeps the wheels in extra.
func (c uvCache) cleanArchives(extra map[string]*unpackedWheel, ph *progress.Phase) error {
	needed := map[string]bool{}
	records, _ := filepath.Glob(c.store.Home.Path(installed.WheelsDir + "/*/" + installed.UnpackedName)) // the only possible error is a bad pattern
	for _, path := range records {
		var r unpackedWheel
		if statefile.Read(path, &r) == nil {
			needed[r.Archive] = true
		}
	}
	for _, r := range extra {
		needed[r.Archive] = true
	}
	var err error
	for _, archive := range c.archives() {
		if !needed[archive] {
			err = errors.Join(err, removeTree(filepath.Join(c.store.Home.Path(uvCacheDir), archive), ph))
		}
	}
	return errors.Join(err, c.cleanDangling())
}

// cleanDangling removes the links and files of uv that refer to a removed wheel, and the
// temporary directories of a killed uv.
func (c uvCache) cleanDangling() error {
	var err error
	temps, _ := filepath.Glob(filepath.Join(c.store.Home.Path(uvCacheDir), ".tmp*")) // the only possible error is a bad pattern
	for _, path := range temps {
		err = errors.Join(err, removeTree(path, nil))
	}
	tops, _ := filepath.Glob(filepath.Join(c.store.Home.Path(uvCacheDir), "wheels-v*"))
	for _, top := range tops {
		var dirs []string
		err = errors.Join(err, filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && path != top {
				dirs = append(dirs, path)
			}
			if d.Type() != fs.ModeSymlink {
				return nil
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			for _, name := range []string{path, path + ".rev", path + ".lock"} {
				if removeErr := os.Remove(name); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
					err = errors.Join(err, removeErr)
				}
			}
			return err
		}))
		for _, dir := range slices.Backward(dirs) {
			_ = os.Remove(dir) // fails unless it is empty
		}
	}
	if err != nil {
		return fmt.Errorf("cannot clean up the cache of uv: %w", err)
	}
	return nil
}
