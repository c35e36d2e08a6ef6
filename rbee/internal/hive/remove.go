package hive

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/atomicfile"
)

// remove stops the daemon and removes everything of rbee, and nothing else.
func (h *Hive) remove(ctx context.Context) (note string, err error) {
	if _, err := h.stop(ctx); err != nil {
		return "", err
	}
	if err := h.removeUnits(ctx); err != nil {
		return "", err
	}
	var rec wire.Installed
	_ = atomicfile.ReadJSON(h.path(wire.BinaryInfo), &rec) // without it no directory above is rbee's
	entries, err := filepath.Glob(h.entryPath("*"))
	if err != nil {
		return "", err
	}
	for _, path := range entries {
		err = errors.Join(err, os.Remove(path))
	}
	if err = errors.Join(err, h.cleanWorkers()); err != nil {
		return "", err
	}
	for _, pattern := range []string{
		wire.PrevBinary, wire.UploadGlob, wire.RunDir + "/" + tempPrefix + "*",
		wire.LogsDir + "/" + tempPrefix + "*", oldLogFile,
		tokenFile, settingsFile, daemonFile, daemonLock, supervisorFile, logFile,
		wire.BinaryInfo,
	} {
		found, globErr := filepath.Glob(h.path(pattern))
		err = errors.Join(err, globErr)
		for _, path := range found {
			if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}
	if err != nil {
		return "", err
	}
	// Last: as long as it is there, the next uninstall sees the hive.
	if err := os.Remove(h.path(wire.Binary)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, dir := range []string{wire.BinDir, wire.WorkersDir, wire.RunDir, wire.LogsDir} {
		_ = os.Remove(h.path(dir)) // stays if it holds what is not rbee's
	}
	if err := os.Remove(h.path(wire.LockFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if os.Remove(h.Home) != nil {
		return "left what is not rbee's: " + strings.Join(h.leftovers(), ", "), nil
	}
	slices.Sort(rec.MadeDirs)
	for _, dir := range slices.Backward(rec.MadeDirs) {
		if rel, err := filepath.Rel(dir, h.Home); err == nil && filepath.IsLocal(rel) {
			_ = os.Remove(dir) // only if it is empty
		}
	}
	return "", nil
}

// leftovers names the files that are still below the home.
func (h *Hive) leftovers() []string {
	var names []string
	_ = filepath.WalkDir(h.Home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && len(names) < 10 {
			names = append(names, path)
		}
		return nil
	})
	return names
}
