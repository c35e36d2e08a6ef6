package controller

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

func (c *Controller) sync(ctx context.Context, op operations.PackageSync, events operations.Handler) (*operations.SyncReport, error) {
	start := time.Now()
	d, err := c.files.read(op.ConfigPath)
	if err != nil {
		return nil, err
	}
	if op.BundlePath != "" {
		closeBundle, err := c.useBundle(d, op.BundlePath)
		if err != nil {
			return nil, err
		}
		defer closeBundle()
	}
	if err := checkWorkerTypes(d, op.UpgradeWorkers); err != nil {
		return nil, err
	}
	fleet, err := c.openFleet(d, op.Scope, op.Push, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	fleet.Read(ctx, pkgmgr.ReadOptions{Devices: fleet.NeedsDevices()})
	plan := fleet.Plan(ctx, plan.Options{
		Fetch: true, RemoveExtra: op.RemoveExtra, Force: op.Force, Downgrade: op.Downgrade, Upgrade: op.Upgrade, UpgradeTypes: op.UpgradeWorkers,
	})
	events.Send(operations.Event{Type: operations.EventPlan, Plan: &plan.Plan})
	for _, u := range plan.Upgrades {
		events.Send(operations.Event{Type: operations.EventNote, Message: fmt.Sprintf("%s (%s): %s -> %s", u.Worker, u.Requested, u.From, u.To)})
	}
	if op.DryRun {
		return fleet.SyncReport(plan, nil, time.Since(start)), nil
	}
	// Save the lockfile before the first installation, so that it always contains every installed
	// version.
	if err := fleet.Save(nil); err != nil {
		return nil, err
	}
	reports := fleet.Apply(ctx, plan, pkgmgr.ApplyOptions{LockWait: lockWait(op.LockWaitSeconds)})
	// Save the lockfile again, without the pins of upgraded workers.
	if err := errors.Join(fleet.Save(reports), c.saveWarnings(d, fleet, plan)); err != nil {
		return nil, err
	}
	return fleet.SyncReport(plan, reports, time.Since(start)), nil
}

// checkWorkerTypes returns an error for a worker type that is not in the config.
func checkWorkerTypes(d *desiredState, types []string) error {
	var configured []string
	for _, h := range d.config.Hives {
		for _, w := range h.Workers {
			configured = append(configured, w.Type)
		}
	}
	for _, typ := range types {
		if !slices.Contains(configured, typ) {
			return &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownWorker, Subject: operations.SubjectWorker.WithName(typ), Message: fmt.Sprintf("worker type %q is not in the config", typ)}
		}
	}
	return nil
}

// saveWarnings stores the warnings about the hives that a fleet has read, for list-hives,
// which does not connect to hives.
func (c *Controller) saveWarnings(d *desiredState, fleet *pkgmgr.Fleet, p *plan.Plan) error {
	var read []string
	for _, s := range fleet.States() {
		if s.State != nil {
			read = append(read, s.Hive.Alias)
		}
	}
	return c.files.record.SetWarnings(read, d.path, fleet.Warnings(p))
}

func (c *Controller) status(ctx context.Context, op operations.PackageStatus, events operations.Handler) (*operations.StatusReport, error) {
	start := time.Now()
	d, err := c.files.read(op.ConfigPath)
	if err != nil {
		return nil, err
	}
	fleet, err := c.openFleet(d, op.Scope, false, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	fleet.Read(ctx, pkgmgr.ReadOptions{Deep: op.Deep, Devices: fleet.NeedsDevices()})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	plan := fleet.Plan(ctx, plan.Options{})
	if err := c.saveWarnings(d, fleet, plan); err != nil {
		return nil, err
	}
	return fleet.StatusReport(plan, op.Verbose, time.Since(start)), nil
}

func (c *Controller) validate(ctx context.Context, op operations.PackageValidate, events operations.Handler) (*operations.ValidateReport, error) {
	d, err := c.files.read(op.ConfigPath)
	if err != nil {
		return invalidReport(err)
	}
	fleet, err := c.openFleet(d, op.Scope, false, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	fleet.Read(ctx, pkgmgr.ReadOptions{Devices: fleet.NeedsDevices()})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return fleet.Validate(ctx), nil
}

// invalidReport converts an error in the config or a recipe into a report of validate.
func invalidReport(err error) (*operations.ValidateReport, error) {
	var e *operations.Error
	if !errors.As(err, &e) || e.Code != operations.CodeConfigInvalid {
		return nil, err
	}
	r := &operations.ValidateReport{Status: operations.StatusInvalid, Warnings: []operations.ValidateWarning{}}
	for _, p := range e.Problems {
		r.Errors = append(r.Errors, operations.ValidateError{
			Hive: p.Hive, Error: p.Message, File: p.File, Line: p.Line, Column: p.Column, Hint: p.Hint,
		})
	}
	if len(r.Errors) == 0 {
		r.Errors = []operations.ValidateError{{Error: e.Message}}
	}
	return r, nil
}

func (c *Controller) uninstall(ctx context.Context, op operations.PackageUninstall, events operations.Handler) (*operations.UninstallReport, error) {
	start := time.Now()
	d, err := c.files.readOrEmpty(op.ConfigPath)
	if err != nil {
		return nil, err
	}
	fleet, err := c.openFleet(d, op.Scope, false, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	fleet.Read(ctx, pkgmgr.ReadOptions{})
	workersBefore := workerCounts(fleet.States())
	plan := fleet.UninstallPlan(op.Downgrade)
	events.Send(operations.Event{Type: operations.EventPlan, Plan: &plan.Plan})
	r := &operations.UninstallReport{
		Status: operations.StatusSuccess,
		Hives:  fleet.Apply(ctx, plan, pkgmgr.ApplyOptions{LockWait: lockWait(op.LockWaitSeconds)}),
	}
	fleet.Cleanup(ctx)
	if err := fleet.Save(r.Hives); err != nil {
		return nil, err
	}
	for _, b := range plan.Blocked {
		for i := range r.Hives {
			if r.Hives[i].Alias == b.Hive {
				r.Hives[i].Status, r.Hives[i].Error = operations.HiveFailed, b.Error
			}
		}
	}
	failed := 0
	for _, h := range r.Hives {
		switch h.Status {
		case operations.HiveUninstalled:
			r.Summary.HivesUninstalled++
			r.Summary.WorkersRemoved += workersBefore[h.Alias]
		case operations.HiveNotInstalled:
			r.Summary.HivesNotInstalled++
		case operations.HiveUnreachable:
			r.Summary.HivesUnreachable++
			failed++
		default:
			r.Summary.HivesFailed++
			failed++
		}
	}
	switch {
	case failed > 0 && failed == len(r.Hives):
		r.Status = operations.StatusFailed
	case failed > 0:
		r.Status = operations.StatusPartial
	case op.Purge:
		if r.PurgedPaths, err = c.purge(d.path); err != nil {
			return nil, err
		}
	}
	r.Summary.DurationSeconds = time.Since(start).Round(time.Millisecond).Seconds()
	return r, nil
}

func workerCounts(states []plan.HiveState) map[string]int {
	counts := map[string]int{}
	for _, s := range states {
		if s.State != nil {
			counts[s.Hive.Alias] = len(s.State.Workers)
		}
	}
	return counts
}

// purge removes the config from this machine, and all other files of rbee unless the record
// lists hives of other configs. It must be called only after rbee is uninstalled from every
// hive of the config.
func (c *Controller) purge(configPath string) (purged []string, err error) {
	paths := c.files.Paths
	others, err := c.files.record.Entries() // without the hives of this config, which are uninstalled
	if err != nil {
		return nil, err
	}
	files := []string{configPath, lockfile.Path(configPath), lockfile.Path(configPath) + ".lock"}
	if len(others) == 0 {
		files = append(files, paths.Recipes(), paths.Record(), paths.Record()+".lock", paths.CacheDir)
	}
	for _, p := range files {
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(p); err != nil {
			return purged, err
		}
		purged = append(purged, p)
	}
	for _, dir := range []string{paths.ConfigDir, paths.StateDir} {
		_ = os.Remove(dir) // fails unless it is empty
	}
	return purged, nil
}
