package controller

import (
	"context"
	"sort"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// summary returns the summary of a hive.
func summary(h config.Hive, inConfig bool) operations.HiveSummary {
	s := operations.HiveSummary{
		Alias: h.Alias, Hostname: h.Hostname, SSHUser: h.SSHUser, SSHPort: h.SSHPort, HivePort: h.HivePort,
		Labels: h.Labels, AutoStart: h.AutoStart, InConfig: inConfig, Workers: []operations.WorkerSummary{},
	}
	for _, w := range h.Workers {
		s.Workers = append(s.Workers, operations.WorkerSummary{Type: w.Type, Version: w.Version})
	}
	return s
}

// summaries returns the hives of the config, and the other hives that the record lists for the
// config.
func (c *Controller) summaries(d *desiredState) ([]operations.HiveSummary, error) {
	entries, err := c.files.record.Entries()
	if err != nil {
		return nil, err
	}
	list := []operations.HiveSummary{}
	add := func(h config.Hive, inConfig bool) {
		s := summary(h, inConfig)
		for _, e := range entries {
			if e.Hive().Address() == h.Address() && e.Config == d.path {
				s.InRecord, s.InstalledAt = true, e.InstalledAt
			}
		}
		list = append(list, s)
	}
	for _, h := range d.config.Hives {
		add(h, true)
	}
	for _, h := range d.extra {
		add(h, false)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Alias < list[j].Alias })
	return list, nil
}

func (c *Controller) hiveList(op operations.HiveList) (*operations.HiveListReport, error) {
	d, err := c.files.read(op.ConfigPath)
	if err != nil {
		return nil, err
	}
	list, err := c.summaries(d)
	if err != nil {
		return nil, err
	}
	warnings, err := c.files.record.Warnings(d.path)
	return &operations.HiveListReport{Hives: list, Warnings: warnings}, err
}

// readHive reads the state of one hive. The caller closes the fleet.
func (c *Controller) readHive(ctx context.Context, alias, configPath string, events operations.Handler) (*desiredState, *pkgmgr.Fleet, plan.HiveState, error) {
	var state plan.HiveState
	d, err := c.files.read(configPath)
	if err != nil {
		return nil, nil, state, err
	}
	fleet, err := c.openFleet(d, operations.Scope{Hives: operations.Aliases{alias}}, false, events)
	if err != nil {
		return nil, nil, state, err
	}
	fleet.Read(ctx, pkgmgr.ReadOptions{})
	return d, fleet, fleet.States()[0], nil
}

func (c *Controller) hiveGet(ctx context.Context, op operations.HiveGet, events operations.Handler) (*operations.HiveGetReport, error) {
	d, fleet, state, err := c.readHive(ctx, op.Alias, op.ConfigPath, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	list, err := c.summaries(d)
	if err != nil {
		return nil, err
	}
	r := &operations.HiveGetReport{Detail: state.Detail()}
	for _, s := range list {
		if s.Alias == op.Alias {
			r.Hive = s
		}
	}
	return r, nil
}

func (c *Controller) hiveStatus(ctx context.Context, op operations.HiveStatus, events operations.Handler) (*operations.HiveDaemonReport, error) {
	_, fleet, state, err := c.readHive(ctx, op.Alias, op.ConfigPath, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	if state.Err != nil {
		return nil, state.Err
	}
	r := &operations.HiveDaemonReport{Alias: op.Alias, Status: operations.DaemonNotRunning, Daemon: *state.State.Daemon.Detail()}
	switch {
	case state.State.Rbee == nil:
		r.Status = operations.DaemonNotInstalled
	case state.State.Daemon.Running:
		r.Status = operations.DaemonRunning
	}
	return r, nil
}

// hiveDaemon starts or stops the daemon of one hive.
func (c *Controller) hiveDaemon(ctx context.Context, alias, configPath string, action operations.Action, events operations.Handler) (*operations.HiveDaemonReport, error) {
	_, fleet, before, err := c.readHive(ctx, alias, configPath, events)
	if err != nil {
		return nil, err
	}
	defer fleet.Close()
	switch {
	case before.Err != nil:
		return nil, before.Err
	case before.State.Rbee == nil:
		return nil, &operations.Error{
			Code: operations.CodeNotFound, Reason: operations.ReasonNotInstalled, Subject: operations.SubjectHive.WithName(alias), Hive: alias, Message: "rbee is not installed on the hive",
		}
	}
	result := fleet.Daemon(ctx, action, pkgmgr.ApplyOptions{})[0]
	if result.Error != nil {
		return nil, result.Error
	}
	after := fleet.States()[0]
	r := &operations.HiveDaemonReport{Alias: alias, Daemon: *after.State.Daemon.Detail()}
	previous := before.State.Daemon
	switch {
	case action == operations.ActionStartHive && previous.Running && previous.PID == after.State.Daemon.PID:
		r.Status = operations.DaemonAlreadyRunning
	case action == operations.ActionStartHive:
		r.Status = operations.DaemonStarted
	case previous.Running || previous.PID != 0:
		r.Status = operations.DaemonStopped
	default:
		r.Status = operations.DaemonAlreadyStopped
	}
	return r, nil
}
