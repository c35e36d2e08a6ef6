package install

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
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// uninstall stops the daemon and removes all files of rbee. It keeps files that rbee did not
// create and lists them in note. ph, which may be nil, counts the removed files.
func (in *Installer) uninstall(ctx context.Context, ph *progress.Phase) (note string, err error) {
	if _, err := in.Daemon.Stop(ctx); err != nil {
		return "", err
	}
	if err := in.stopWorkers(ctx, ""); err != nil {
		return "", err
	}
	if err := in.Daemon.Service().Remove(ctx); err != nil {
		return "", err
	}
	var rec wire.BinaryRecord
	_ = statefile.Read(in.Home.Path(wire.BinaryInfo), &rec) // without the record, the parent directories are kept
	entries, err := filepath.Glob(in.Store.EntryPath("*"))
	if err != nil {
		return "", err
	}
	for _, path := range entries {
		err = errors.Join(err, os.Remove(path))
	}
	if err = errors.Join(err, in.cleanWorkers(ph)); err != nil {
		return "", err
	}
	for _, pattern := range []string{
		wire.PrevBinary, wire.UploadGlob, wire.RunDir + "/" + home.TempPrefix + "*",
		home.OldLogFile, atomicfile.TempGlob(home.OldLogFile),
		home.WorkerRecords + "/*", home.WorkerLogs + "/*",
		home.TokenFile, verify.LockFile, home.SettingsFile, home.DaemonFile, home.DaemonLock, home.SupervisorFile, home.LogFile,
		wire.BinaryInfo, wire.PrevInfo,
		atomicfile.TempGlob(home.TokenFile), atomicfile.TempGlob(home.SettingsFile), atomicfile.TempGlob(home.DaemonFile),
		atomicfile.TempGlob(home.SupervisorFile), atomicfile.TempGlob(wire.BinaryInfo), atomicfile.TempGlob(wire.PrevInfo),
	} {
		found, globErr := filepath.Glob(in.Home.Path(pattern))
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
	// Remove the binary last: while it exists, the next uninstall finds the hive.
	if err := os.Remove(in.Home.Path(wire.Binary)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, dir := range []string{wire.ToolsDir, wire.DownloadDir, wire.CacheDir} {
		if err := removeTree(in.Home.Path(dir), ph); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{wire.BinDir, wire.WorkersDir, home.WorkerRecords, wire.RunDir, home.WorkerLogs, wire.LogsDir} {
		_ = os.Remove(in.Home.Path(dir)) // fails if it contains other files
	}
	if err := os.Remove(in.Home.Path(wire.LockFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if os.Remove(in.Home.Root) != nil {
		return "kept files that rbee did not create: " + strings.Join(in.leftovers(), ", "), nil
	}
	slices.Sort(rec.MadeDirs)
	for _, dir := range slices.Backward(rec.MadeDirs) {
		if rel, err := filepath.Rel(dir, in.Home.Root); err == nil && filepath.IsLocal(rel) {
			_ = os.Remove(dir) // fails unless it is empty
		}
	}
	return "", nil
}

// leftovers returns at most 10 files that remain in the rbee directory.
func (in *Installer) leftovers() []string {
	var names []string
	_ = filepath.WalkDir(in.Home.Root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && len(names) < 10 {
			names = append(names, path)
		}
		return nil
	})
	return names
}

// stopWorkers stops the worker processes of a type; an empty type means all types. If the
// daemon is running, stopWorkers stops them through the daemon, and otherwise directly.
func (in *Installer) stopWorkers(ctx context.Context, typ string) error {
	if _, err := os.Lstat(in.Home.Path(home.WorkerRecords)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if d := in.Daemon.State(ctx); d.Running {
		return in.stopThroughDaemon(ctx, d.Port, typ)
	}
	lock, err := filelock.Try(in.Home.Path(home.DaemonLock), 0o700)
	if errors.Is(err, filelock.ErrLocked) {
		return errors.New("cannot stop workers: the hive daemon does not respond")
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	m := in.Inspector.Machine()
	if err := workers.StopOffline(ctx, workers.Options{
		Dir: in.Home.Path(home.WorkerRecords), Logs: in.Home.Path(home.WorkerLogs), Devices: m.Devices, Processes: m.Processes,
	}, typ); err != nil {
		return fmt.Errorf("cannot stop workers: %w", err)
	}
	return nil
}

// stopThroughDaemon stops the worker processes of a type through the daemon.
func (in *Installer) stopThroughDaemon(ctx context.Context, port int, typ string) error {
	token, err := in.Daemon.Token()
	if err != nil {
		return err
	}
	c := &client.Client{URL: "http://" + control.Loopback(port), Token: operations.Secret(token)}
	target := operations.Target{HiveID: "localhost"}
	r, err := c.Run(ctx, operations.WorkerProcessList{Target: target}, nil)
	if err != nil {
		return fmt.Errorf("cannot stop workers: %w", err)
	}
	list, ok := r.(*operations.WorkerListReport)
	if !ok {
		return fmt.Errorf("cannot stop workers: the daemon returned a %T, want a list of workers", r)
	}
	for _, w := range list.Workers {
		if typ != "" && w.Worker != typ {
			continue
		}
		if _, err := c.Run(ctx, operations.WorkerProcessDelete{Target: target, WorkerRef: operations.WorkerRef{ID: w.ID}}, nil); err != nil {
			return fmt.Errorf("cannot stop worker %s: %w", w.ID, err)
		}
	}
	return nil
}
