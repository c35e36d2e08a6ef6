package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// rollback restores the previous version of a worker on a hive, and pins it.
func (c *Controller) rollback(ctx context.Context, op operations.PackageRollback, events operations.Handler) (*operations.RollbackReport, error) {
	d, fleet, state, err := c.readHive(ctx, op.Hive, op.ConfigPath, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	if state.Err != nil {
		return nil, state.Err
	}
	if op.Worker == operations.RollbackRbee {
		return rollbackHive(ctx, op, fleet, state.State)
	}
	fail := func(code operations.Code, reason operations.Reason, format string, args ...any) (*operations.RollbackReport, error) {
		return nil, &operations.Error{Code: code, Reason: reason, Subject: operations.SubjectWorker.WithName(op.Worker), Hive: op.Hive, Message: fmt.Sprintf(format, args...)}
	}
	i := slices.IndexFunc(state.State.Workers, func(w wire.Worker) bool { return w.Type == op.Worker })
	switch {
	case i < 0:
		return fail(operations.CodeNotFound, operations.ReasonWorkerNotInstalled, "worker type '%s' is not installed on the hive", op.Worker)
	case state.State.Workers[i].Previous == "":
		return fail(operations.CodeFailed, operations.ReasonNoPreviousVersion, "cannot roll back %s: the hive has no previous version, only %s", op.Worker, state.State.Workers[i].Version)
	}
	current := state.State.Workers[i]
	changes := plan.New(fleet.States())
	changes.Steps = []operations.Step{{
		Hive: op.Hive, Action: operations.ActionRollbackWorker, Worker: op.Worker, From: current.Version, Version: current.Previous, Reason: "requested",
	}}
	result := fleet.Apply(ctx, changes, pkgmgr.ApplyOptions{LockWait: lockWait(op.LockWaitSeconds)})[0]
	if result.Error != nil {
		return nil, result.Error
	}
	if err := pinVersion(d, op, current.Previous); err != nil {
		return nil, err
	}
	return &operations.RollbackReport{Hive: op.Hive, Worker: op.Worker, From: current.Version, To: current.Previous}, nil
}

// rollbackHive restores the previous rbee of a hive, and restarts its daemon if it is running.
func rollbackHive(ctx context.Context, op operations.PackageRollback, fleet *pkgmgr.Fleet, state *wire.State) (*operations.RollbackReport, error) {
	fail := func(reason operations.Reason, message string) (*operations.RollbackReport, error) {
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectHive.WithName(op.Hive), Hive: op.Hive, Message: message}
	}
	switch {
	case state.Rbee == nil:
		return fail(operations.ReasonNotInstalled, "cannot roll back rbee: it is not installed on the hive")
	case state.PreviousRbee == nil:
		return fail(operations.ReasonNoPreviousVersion, "cannot roll back rbee: the hive has no previous rbee, only "+cmp.Or(state.Rbee.Version, "an unknown version"))
	}
	from, to := buildText(state.Rbee, state.PreviousRbee), buildText(state.PreviousRbee, state.Rbee)
	changes := plan.New(fleet.States())
	changes.Steps = []operations.Step{{Hive: op.Hive, Action: operations.ActionRollbackHive, From: from, Version: to, Reason: "requested"}}
	if state.Daemon.Running {
		changes.Steps = append(changes.Steps, operations.Step{Hive: op.Hive, Action: operations.ActionStartHive, Reason: "run the restored rbee"})
	}
	result := fleet.Apply(ctx, changes, pkgmgr.ApplyOptions{LockWait: lockWait(op.LockWaitSeconds)})[0]
	if result.Error != nil {
		return nil, result.Error
	}
	return &operations.RollbackReport{Hive: op.Hive, Worker: op.Worker, From: from, To: to}, nil
}

// buildText returns the version of an rbee binary, and its build if the other binary has the
// same version.
func buildText(rbee, other *wire.BinaryRecord) string {
	text := cmp.Or(rbee.Version, "unknown")
	if rbee.Version == other.Version && len(rbee.SHA256) > buildLen {
		text += " (build " + rbee.SHA256[:buildLen] + ")"
	}
	return text
}

// buildLen is the number of hexadecimal digits of a SHA-256 that identify a build.
const buildLen = 12

// pinVersion pins a worker to a version until its version constraint in the config changes.
// It does nothing for a worker that is not in the config.
func pinVersion(d *desiredState, op operations.PackageRollback, version string) error {
	for _, h := range d.config.Hives {
		if h.Alias != op.Hive {
			continue
		}
		for _, w := range h.Workers {
			if w.Type == op.Worker {
				d.lock.Pin(op.Hive, w, version, time.Now())
			}
		}
	}
	return d.lock.Save()
}

// bundle writes all artifacts of a config into one file.
func (c *Controller) bundle(ctx context.Context, op operations.PackageBundle, events operations.Handler) (*operations.BundleReport, error) {
	d, err := c.files.read(op.ConfigPath)
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(op.OutputPath)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err == nil && !op.Force {
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonExists, Subject: operations.SubjectFile.WithName(path), Message: path + " already exists"}
	}
	o := pkgmgr.BundleOptions{}
	for _, p := range op.Platforms {
		system, arch, _ := strings.Cut(p, "/")
		platform := wire.Platform{OS: system, Arch: arch}
		if system == "linux" {
			platform.Libc = "glibc"
		}
		o.Platforms = append(o.Platforms, platform)
	}
	if o.Recipes, err = userRecipes(c.files.Paths.Recipes()); err != nil {
		return nil, err
	}
	fleet, err := c.openFleet(d, op.Scope, true, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	fleet.Read(ctx, pkgmgr.ReadOptions{Devices: fleet.NeedsDevices()})
	r, err := fleet.WriteBundle(ctx, path, o)
	if err != nil {
		return nil, err
	}
	return r, d.lock.Save()
}

// userRecipes returns the user's recipes by file name.
func userRecipes(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	recipes := map[string]string{}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || strings.HasPrefix(e.Name(), ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		recipes[e.Name()] = string(text)
	}
	return recipes, nil
}

// useBundle opens a bundle and uses its lockfile, catalog and rbee binaries.
// closeBundle removes the extracted files.
func (c *Controller) useBundle(d *desiredState, path string) (closeBundle func(), err error) {
	b, err := artifact.OpenBundle(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = b.Close()
		}
	}()
	if d.lock, err = b.Lock(d.lock); err != nil {
		return nil, err
	}
	if d.catalog, err = b.Catalog(d.catalog); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rbee-bundle-")
	if err != nil {
		return nil, err
	}
	if err = b.ExtractBinaries(dir); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	d.bundle = b
	d.binaries = &artifact.Binaries{Self: c.opts.Self, Version: c.opts.Version, Dir: dir} // no downloads
	return func() {
		_ = b.Close()
		_ = os.RemoveAll(dir)
	}, nil
}
