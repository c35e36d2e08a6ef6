package hive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// remove stops the daemon and removes everything of rbee, and nothing else. ph, which may
// be nil, counts the files.
func (h *Hive) remove(ctx context.Context, ph *phase) (note string, err error) {
	if _, err := h.stop(ctx); err != nil {
		return "", err
	}
	if err := h.stopWorkers(ctx, ""); err != nil {
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
	if err = errors.Join(err, h.cleanWorkers(ph)); err != nil {
		return "", err
	}
	for _, pattern := range []string{
		wire.PrevBinary, wire.UploadGlob, wire.RunDir + "/" + tempPrefix + "*",
		wire.LogsDir + "/" + tempPrefix + "*", oldLogFile,
		workerRecords + "/*", workerLogs + "/*",
		tokenFile, verifyLock, settingsFile, daemonFile, daemonLock, supervisorFile, logFile,
		wire.BinaryInfo,
		atomicfile.TempGlob(tokenFile), atomicfile.TempGlob(settingsFile), atomicfile.TempGlob(daemonFile),
		atomicfile.TempGlob(supervisorFile), atomicfile.TempGlob(wire.BinaryInfo),
	} {
		found, globErr := filepath.Glob(h.path(pattern))
		err = errors.Join(err, globErr)
		for _, path := range found {
			if e := os.RemoveAll(path); e != nil {
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
	for _, dir := range []string{wire.ToolsDir, wire.DownloadDir, wire.CacheDir} {
		if err := removeTree(h.path(dir), ph); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{wire.BinDir, wire.WorkersDir, workerRecords, wire.RunDir, workerLogs, wire.LogsDir} {
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

// stopWorkers ends the worker processes of a type, or all of them if it is empty:
// through the daemon where it runs, else by itself.
func (h *Hive) stopWorkers(ctx context.Context, typ string) error {
	if _, err := os.Lstat(h.path(workerRecords)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if d := h.daemon(ctx); d.Running {
		return h.askToStop(ctx, d.Port, typ)
	}
	lock, err := filelock.Try(h.path(daemonLock), 0o700)
	if errors.Is(err, filelock.ErrHeld) {
		return errors.New("the hive daemon runs and does not answer: its workers cannot be stopped")
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	rt, err := h.newRunner(nil)
	if err != nil {
		return err
	}
	if err := workers.Clear(ctx, h.workerOptions(rt.models, nil), typ); err != nil {
		return fmt.Errorf("stopping workers: %w", err)
	}
	return nil
}

// askToStop has the daemon end the worker processes of a type.
func (h *Hive) askToStop(ctx context.Context, port int, typ string) error {
	token, err := h.token()
	if err != nil {
		return err
	}
	c := &client.Client{URL: "http://" + loopback(port), Token: operations.Secret(token)}
	here := operations.Target{HiveID: "localhost"}
	r, err := c.Run(ctx, operations.WorkerProcessList{Target: here}, nil)
	if err != nil {
		return fmt.Errorf("stopping workers: %w", err)
	}
	list, ok := r.(*operations.WorkerListReport)
	if !ok {
		return fmt.Errorf("stopping workers: the daemon answered with a %T", r)
	}
	for _, w := range list.Workers {
		if typ != "" && w.Worker != typ {
			continue
		}
		if _, err := c.Run(ctx, operations.WorkerProcessDelete{Target: here, WorkerRef: operations.WorkerRef{ID: w.ID}}, nil); err != nil {
			return fmt.Errorf("stopping worker %s: %w", w.ID, err)
		}
	}
	return nil
}
