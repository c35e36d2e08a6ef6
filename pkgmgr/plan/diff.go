// Package plan computes the steps that bring hives to their desired state. It compares
// the desired state with the state that the hives report. It is pure: it does not use
// files, the clock or the network.
package plan

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/text"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// HiveState is a hive and the state of its machine.
type HiveState struct {
	Hive config.Hive

	// Extra means that the hive is in the record but not in the config.
	Extra bool

	// State is the state that the machine reported; nil if it could not be read.
	State *wire.State

	// Err is the reason why the state could not be read; nil if it was read.
	Err *operations.Error
}

// Options selects the differences that a plan fixes. The zero value installs missing
// components, updates outdated ones, and removes nothing.
type Options struct {
	// RemoveExtra also removes workers and hives that are not in the config.
	RemoveExtra bool

	// Force reinstalls components that are already installed.
	Force bool

	// Downgrade replaces a newer rbee on a hive with the build in [Desired.Binaries].
	Downgrade bool

	// Fetch allows network lookups: a build of rbee for another platform, the
	// published versions of a worker, and the files of a version. Without it, only
	// local information is used.
	Fetch bool

	// Upgrade looks for versions newer than the locked ones, for the worker types in
	// UpgradeTypes, or for all if UpgradeTypes is empty. It requires Fetch.
	Upgrade      bool
	UpgradeTypes []string
}

// Diff compares hives with their config and with want, and returns a plan that fixes
// the differences. It is a pure function: equal arguments return equal plans, sorted by
// hive. A hive that could not be read is reported as drift and gets no step.
func Diff(states []HiveState, want Desired, o Options) *Plan {
	plan := newPlan()
	sorted := slices.Clone(states)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Hive.Alias < sorted[j].Hive.Alias })
	for _, s := range sorted {
		plan.Hives = append(plan.Hives, hiveOf(s, want))
		d := hiveDiff{hive: s.Hive, state: s.State, want: want, opts: o, plan: plan}
		d.newer = s.State != nil && newerReason(s.State, cmp.Or(want.binary(s.State).Version, want.Version)) != "" && !o.Downgrade
		switch {
		case s.Extra:
			d.compareExtraHive(s.Err)
		case s.State == nil:
			d.addUnreachable(s.Err)
		default:
			d.compare()
		}
		d.sort()
		plan.Steps = append(plan.Steps, d.steps...)
		plan.Drift = append(plan.Drift, d.drift...)
		plan.Blocked = append(plan.Blocked, d.blocked...)
	}
	plan.dropUnused()
	return plan
}

// hiveDiff compares one hive and collects the steps, the drift and the blocked changes.
type hiveDiff struct {
	hive  config.Hive
	state *wire.State
	want  Desired
	opts  Options
	plan  *Plan // collects the installations and builds
	newer bool  // the rbee on the hive is newer and is not replaced

	steps   []operations.Step
	drift   []operations.Drift
	blocked []operations.Blocked
}

// addDrift adds a difference.
func (d *hiveDiff) addDrift(issue operations.Issue, worker, format string, args ...any) {
	d.drift = append(d.drift, operations.Drift{
		Hive: d.hive.Alias, Issue: issue, Worker: worker, Details: fmt.Sprintf(format, args...),
	})
}

// addStep adds a step for the hive.
func (d *hiveDiff) addStep(s operations.Step) {
	s.Hive = d.hive.Alias
	d.steps = append(d.steps, s)
}

// block records that a worker cannot be changed or, if worker is empty, the hive.
func (d *hiveDiff) block(worker string, reason operations.Reason, message string) {
	d.blocked = append(d.blocked, operations.Blocked{
		Hive: d.hive.Alias, Worker: worker, Reason: message,
		Error: &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: d.subject(worker), Hive: d.hive.Alias, Message: message},
	})
}

// subject returns the worker, or the hive if worker is empty.
func (d *hiveDiff) subject(worker string) operations.Subject {
	if worker == "" {
		return operations.SubjectHive.WithName(d.hive.Alias)
	}
	return operations.SubjectWorker.WithName(worker)
}

// blockError works like block, but takes the reason from an error. If uv failed, it also
// records the output of uv.
func (d *hiveDiff) blockError(worker string, err error) {
	b := operations.Blocked{
		Hive: d.hive.Alias, Worker: worker, Reason: err.Error(),
		Error: &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Subject: d.subject(worker), Hive: d.hive.Alias, Message: err.Error(), Err: err,
		},
	}
	if opErr := (*operations.Error)(nil); errors.As(err, &opErr) {
		b.Reason, b.Error = opErr.Message, opErr
	}
	var uvErr *uv.Error
	if errors.As(err, &uvErr) {
		b.Detail = uvErr.Output
	}
	d.blocked = append(d.blocked, b)
}

// addUnreachable adds the drift of a hive that could not be read.
func (d *hiveDiff) addUnreachable(err *operations.Error) {
	details := "Hive was not read"
	if err != nil {
		details = "Hive unreachable: " + err.Message
	}
	d.addDrift(operations.IssueUnreachable, "", "%s", details)
	d.drift[len(d.drift)-1].Error = err
}

// compareExtraHive compares a hive that is in the record but not in the config.
func (d *hiveDiff) compareExtraHive(err *operations.Error) {
	switch {
	case d.state == nil:
		if d.addDrift(operations.IssueExtraHive, "", "Hive not in config and unreachable"); d.opts.RemoveExtra {
			d.addUnreachable(err)
		}
	case d.state.Rbee == nil && len(d.state.Workers) == 0:
		// The hive has already been removed.
	default:
		d.addDrift(operations.IssueExtraHive, "", "Hive not in config")
		if d.opts.RemoveExtra {
			steps, err := RemoveSteps(d.hive.Alias, d.state, d.want.Version, "not in config", d.opts.Downgrade)
			if err != nil {
				d.blockError("", err)
			}
			for _, s := range steps {
				d.addStep(s)
			}
		}
	}
}

// compare compares a hive that is in the config and whose state is known.
func (d *hiveDiff) compare() {
	ready, restart := d.compareHive()
	for _, w := range d.hive.Workers {
		d.compareWorker(w, ready)
	}
	for _, have := range d.state.Workers {
		if d.inConfig(have.Type) {
			continue
		}
		d.addDrift(operations.IssueExtraWorker, have.Type, "Extra worker '%s'", have.Type)
		if d.opts.RemoveExtra && ready {
			d.addStep(operations.Step{Action: operations.ActionRemoveWorker, Worker: have.Type, From: have.Version, Reason: "not in config"})
		}
	}
	d.checkDisk()
	if ready {
		d.compareDaemon(restart)
	}
}

// compareHive compares rbee itself. ready is false if the hive has no usable rbee and
// none can be installed, so that no other step is possible. restart is true if the daemon
// must be restarted because its binary or its settings change.
func (d *hiveDiff) compareHive() (ready, restart bool) {
	binary, known := d.want.Binaries[d.state.Platform.Key()]
	rbeeVersion := cmp.Or(binary.Version, d.want.Version)
	update := operations.Step{
		Action: operations.ActionUpdateHive, From: InstalledVersion(d.state), Version: rbeeVersion, Bytes: binary.Size,
	}
	if reason := newerReason(d.state, rbeeVersion); reason != "" && !d.opts.Downgrade {
		d.addDrift(operations.IssueNewerHive, "", "%s", reason)
		if !d.state.Compatible() || d.state.Broken != "" {
			d.blockError("", &operations.Error{
				Code: operations.CodeUnsupported, Reason: operations.ReasonNewerHive, Subject: operations.SubjectHive.WithName(d.hive.Alias), Hive: d.hive.Alias,
				Message: reason,
			})
			return false, false
		}
		return true, d.compareSettings()
	}
	problemReason, problem := installProblem(d.state, binary, known)
	switch reason := outdatedReason(d.state, binary, rbeeVersion); {
	case d.state.Rbee == nil:
		d.addDrift(operations.IssueMissingHive, "", "Hive not installed")
		if problem != "" {
			d.block("", problemReason, problem)
			return false, false
		}
		d.addStep(operations.Step{
			Action: operations.ActionInstallHive, Version: rbeeVersion, Bytes: binary.Size, Digest: d.plan.build(d.state.Platform, binary), Reason: "not installed",
		})
		return true, true
	case reason != "":
		d.addDrift(operations.IssueOutdatedHive, "", "%s", reason)
		if problem != "" {
			d.block("", problemReason, problem)
			return d.state.Compatible() && d.state.Broken == "", false
		}
		update.Reason, update.Digest = reason, d.plan.build(d.state.Platform, binary)
		d.addStep(update)
		return true, true
	case d.opts.Force && problem == "":
		update.Reason, update.Digest = "forced", d.plan.build(d.state.Platform, binary)
		d.addStep(update)
		return true, true
	}
	return true, d.compareSettings()
}

// compareSettings compares the settings of a hive whose rbee is not replaced, and reports
// whether the daemon must be restarted to use the new ones.
func (d *hiveDiff) compareSettings() (restart bool) {
	reason := settingsDiff(d.state.Settings, d.hive.Settings())
	if reason == "" {
		return false
	}
	d.addDrift(operations.IssueOutdatedHive, "", "%s", reason)
	d.addStep(operations.Step{Action: operations.ActionConfigureHive, Reason: reason})
	have := d.state.Settings
	return have == nil || have.HivePort != d.hive.HivePort || have.AutoStart != d.hive.AutoStart
}

// newerReason returns why the rbee of a hive counts as newer than version own, or "" if
// it does not. Versions are only compared if both are numeric, such as v1.2.3.
func newerReason(s *wire.State, own string) string {
	switch {
	case s.Rbee == nil:
		return ""
	case s.Schema > wire.Schema:
		return fmt.Sprintf("rbee %s on the hive is newer than this one: its protocol has schema %d, this one has %d", InstalledVersion(s), s.Schema, wire.Schema)
	case numericVersion.MatchString(s.Rbee.Version) && numericVersion.MatchString(own) && version.Compare(s.Rbee.Version, own) > 0:
		return fmt.Sprintf("rbee %s on the hive is newer than this one, %s", s.Rbee.Version, own)
	}
	return ""
}

// numericVersion matches versions of rbee that can be compared.
var numericVersion = regexp.MustCompile(`^v?[0-9]+\.[0-9]+`)

// installProblem returns why rbee cannot be installed on a machine, or "" if it can.
func installProblem(s *wire.State, b DesiredBinary, known bool) (operations.Reason, string) {
	switch {
	case s.Noexec != "":
		return operations.ReasonIncompatibleMachine, catalog.NoexecMessage(s)
	case b.Err != nil:
		return operations.ReasonOf(b.Err), b.Err.Error()
	case !known:
		return operations.ReasonNoBinary, fmt.Sprintf("no rbee build for %s is available", s.Platform.Key())
	}
	return "", ""
}

// outdatedReason returns why the installed rbee must be replaced, or "" if it need not.
func outdatedReason(s *wire.State, want DesiredBinary, version string) string {
	switch {
	case s.Rbee == nil:
		return ""
	case s.Broken != "":
		return "The installed rbee does not work: " + s.Broken
	case !s.Compatible():
		return fmt.Sprintf("The installed rbee %s uses an incompatible protocol version", InstalledVersion(s))
	case want.SHA256 != "" && s.Rbee.SHA256 != want.SHA256 && s.Rbee.Version == version:
		return fmt.Sprintf("rbee %s is a different build", version)
	case want.SHA256 != "" && s.Rbee.SHA256 != want.SHA256, want.SHA256 == "" && version != "" && s.Rbee.Version != version:
		return fmt.Sprintf("rbee is %s, want %s", cmp.Or(s.Rbee.Version, "unknown"), version)
	}
	return ""
}

// settingsDiff describes how the stored settings differ from the settings in the config.
// It returns "" if they are equal.
func settingsDiff(have *wire.Settings, want wire.Settings) string {
	if have == nil {
		return "The hive has no stored settings"
	}
	var diffs []string
	if have.Alias != want.Alias {
		diffs = append(diffs, fmt.Sprintf("alias is %s, want %s", have.Alias, want.Alias))
	}
	if have.HivePort != want.HivePort {
		diffs = append(diffs, fmt.Sprintf("hive_port is %d, want %d", have.HivePort, want.HivePort))
	}
	if have.AutoStart != want.AutoStart {
		diffs = append(diffs, fmt.Sprintf("auto_start is %t, want %t", have.AutoStart, want.AutoStart))
	}
	if !slices.Equal(have.Labels, want.Labels) {
		diffs = append(diffs, fmt.Sprintf("labels are [%s], want [%s]", strings.Join(have.Labels, " "), strings.Join(want.Labels, " ")))
	}
	return strings.Join(diffs, "; ")
}

// compareDaemon compares the hive daemon. restart means that an earlier step requires a
// restart.
func (d *hiveDiff) compareDaemon(restart bool) {
	daemon := d.state.Daemon
	stale := daemon.Running && !restart && d.state.Rbee != nil && daemon.SHA256 != "" && daemon.SHA256 != d.state.Rbee.SHA256
	switch {
	case !daemon.Running && !d.hive.AutoStart:
	case !daemon.Running:
		reason := "auto_start"
		if d.state.Rbee != nil {
			d.addDrift(operations.IssueHiveNotRunning, "", "Hive not running%s", text.WithPrefix(": ", daemon.Problem))
			reason = "not running"
		}
		d.addStep(operations.Step{Action: operations.ActionStartHive, Reason: reason})
	case stale:
		d.addDrift(operations.IssueOutdatedHive, "", "The hive daemon still runs the previous rbee")
		d.addStep(operations.Step{Action: operations.ActionStartHive, Reason: "the daemon runs the previous rbee"})
	case restart:
		d.addStep(operations.Step{Action: operations.ActionStartHive, Reason: "restart to apply the changes"})
	}
}

// inConfig reports whether the config installs a worker type on the hive.
func (d *hiveDiff) inConfig(workerType string) bool {
	return slices.ContainsFunc(d.hive.Workers, func(w config.Worker) bool { return w.Type == workerType })
}

// compareWorker compares a worker of the config. ready is the result of compareHive.
func (d *hiveDiff) compareWorker(w config.Worker, ready bool) {
	i := slices.IndexFunc(d.state.Workers, func(have wire.Worker) bool { return have.Type == w.Type })
	want := d.want.Workers[WorkerKey{d.hive.Alias, w.Type}]
	if i < 0 {
		d.addDrift(operations.IssueMissingWorker, w.Type, "Worker '%s' not installed", w.Type)
		d.installWorker(w, want, operations.Step{Action: operations.ActionInstallWorker, Reason: "not installed"}, ready)
		return
	}
	have := d.state.Workers[i]
	if d.opts.Force || have.Version == want.Version && (have.Corrupt != "" || have.Unmanaged || have.SHA256 != want.SHA256) {
		d.plan.reinstall(d.hive.Alias, w.Type)
	}
	if d.newer && want.isBuiltin() && have.Corrupt == "" {
		return // it is part of the rbee on the hive
	}
	step := operations.Step{Action: operations.ActionUpdateWorker, From: have.Version}
	var lookupErr *LookupError
	if errors.As(want.Err, &lookupErr) && have.Corrupt == "" {
		// It is not known whether the installed version is the desired one.
		d.blockError(w.Type, want.Err)
		return
	}
	switch issue, reason := workerDiff(have, w, want); {
	case reason != "":
		d.addDrift(issue, w.Type, "Worker '%s' %s", w.Type, reason)
		step.Reason = reason
		d.installWorker(w, want, step, ready)
	case d.opts.Force && want.Err == nil:
		step.Reason = "forced"
		d.installWorker(w, want, step, ready)
	}
}

// workerDiff returns how an installed worker differs from the config and from want.
// reason is empty if it does not.
func workerDiff(have wire.Worker, configured config.Worker, want DesiredWorker) (issue operations.Issue, reason string) {
	switch {
	case have.Corrupt != "":
		return operations.IssueCorruptWorker, "is damaged: " + have.Corrupt
	case have.Unmanaged && configured.Version == version.Latest:
		return "", "" // adopted: its version is not known, and "latest" accepts any
	case have.Unmanaged:
		return operations.IssueOutdatedWorker, fmt.Sprintf("was not installed by rbee, want version %s", configured.Version)
	case want.Err != nil && !want.Indirect && version.IsExact(configured.Version) && !Satisfies(configured.Version, have.Version):
		return operations.IssueOutdatedWorker, fmt.Sprintf("is %s, want %s", have.Version, configured.Version)
	case errors.Is(want.Err, ErrRecipeChanged):
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s was locked before the recipe changed", have.Version)
	case want.Err != nil:
		return "", ""
	case have.Version != want.Version:
		return operations.IssueOutdatedWorker, fmt.Sprintf("is %s, want %s", have.Version, want.Version)
	case want.differs(have) && have.Variant != want.Variant:
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s is %s, want %s", have.Version, cmp.Or(have.Variant, "without a variant"), cmp.Or(want.Variant, "none"))
	case want.differs(have):
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s was installed from a different source than the recipe's", have.Version)
	case launchDiffers(have, want.Launch):
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s has different launch settings than the recipe", have.Version)
	case want.Launch != nil && !want.Verify.Equal(have.Verify):
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s has a different verify command than the recipe", have.Version)
	}
	return "", ""
}

// launchDiffers reports whether the launch settings of an installed worker differ from want,
// the settings of the recipe. It returns false if want is nil. If the worker has a launch
// digest, fields that the recipe does not set are ignored.
func launchDiffers(have wire.Worker, want *wire.Launch) bool {
	switch {
	case want == nil:
		return false
	case have.LaunchDigest != "":
		return have.LaunchDigest != want.Digest()
	}
	return !want.Equal(have.Launch)
}

// Satisfies reports whether version exact satisfies a version constraint. It returns
// false if the constraint is invalid.
func Satisfies(constraint, exact string) bool {
	versionRange, err := version.ParseRange(constraint)
	return err == nil && versionRange.Has(exact)
}

// IsAdopted reports whether a worker that rbee did not install satisfies the config. It
// does if its files are intact and the config requests the latest version.
func IsAdopted(s *wire.State, configured config.Worker) bool {
	return configured.Version == version.Latest && slices.ContainsFunc(s.Workers, func(w wire.Worker) bool {
		return w.Type == configured.Type && w.Unmanaged && w.Corrupt == ""
	})
}

// installWorker adds a step that installs a worker, or records why it cannot be
// installed.
func (d *hiveDiff) installWorker(w config.Worker, want DesiredWorker, step operations.Step, ready bool) {
	if want.Err != nil {
		d.blockError(w.Type, want.Err)
		return
	}
	if !ready {
		return // the hive itself is blocked
	}
	if unmet := catalog.UnmetRequirements(want.Needs, d.state); len(unmet) > 0 {
		d.block(w.Type, operations.ReasonIncompatibleMachine, fmt.Sprintf("worker type '%s' cannot run on this hive: %s", w.Type, strings.Join(unmet, "; ")))
		return
	}
	if d.newer && want.isBuiltin() {
		want.Version, want.SHA256 = d.state.Rbee.Version, d.state.Rbee.SHA256
	}
	step.Worker, step.Version = w.Type, want.Version
	step.Bytes, _ = transferBytes(want.Steps, d.state)
	step.Variant, step.VariantReason = want.Variant, want.Reason
	step.Digest = d.plan.install(w.Type, want)
	d.addStep(step)
}

// checkDisk blocks all worker installs of the hive if its disk space is not sufficient
// for all of them.
func (d *hiveDiff) checkDisk() {
	var need uint64
	for _, s := range d.steps {
		if s.Action == operations.ActionInstallWorker || s.Action == operations.ActionUpdateWorker {
			need += DiskNeed(d.want.Workers[WorkerKey{d.hive.Alias, s.Worker}], d.state)
		}
	}
	if d.state.DiskFree == 0 || need <= d.state.DiskFree {
		return
	}
	d.steps = slices.DeleteFunc(d.steps, func(s operations.Step) bool {
		if s.Action != operations.ActionInstallWorker && s.Action != operations.ActionUpdateWorker {
			return false
		}
		d.block(s.Worker, operations.ReasonDiskFull, fmt.Sprintf(
			"insufficient disk space in %s: %s free, %s needed", d.state.Home, bytesize.Format(d.state.DiskFree), bytesize.Format(need)))
		return true
	})
}

// InstalledVersion returns the version of rbee on a machine, or "" if it is not
// installed.
func InstalledVersion(s *wire.State) string {
	if s.Rbee == nil {
		return ""
	}
	return s.Rbee.Version
}

// The order of steps and drift within a hive.
var (
	actionOrder = []operations.Action{
		operations.ActionInstallHive, operations.ActionUpdateHive, operations.ActionConfigureHive, operations.ActionRemoveWorker,
		operations.ActionInstallWorker, operations.ActionUpdateWorker, operations.ActionStartHive,
		operations.ActionStopHive, operations.ActionRemoveHive,
	}
	issueOrder = []operations.Issue{
		operations.IssueUnreachable, operations.IssueMissingHive, operations.IssueExtraHive,
		operations.IssueOutdatedHive, operations.IssueNewerHive, operations.IssueHiveNotRunning, operations.IssueMissingWorker,
		operations.IssueExtraWorker, operations.IssueOutdatedWorker, operations.IssueCorruptWorker,
	}
)

func (d *hiveDiff) sort() {
	sort.SliceStable(d.steps, func(i, j int) bool {
		a, b := &d.steps[i], &d.steps[j]
		return cmp.Or(cmp.Compare(slices.Index(actionOrder, a.Action), slices.Index(actionOrder, b.Action)), cmp.Compare(a.Worker, b.Worker)) < 0
	})
	sort.SliceStable(d.drift, func(i, j int) bool {
		a, b := &d.drift[i], &d.drift[j]
		return cmp.Or(cmp.Compare(slices.Index(issueOrder, a.Issue), slices.Index(issueOrder, b.Issue)), cmp.Compare(a.Worker, b.Worker)) < 0
	})
	sort.SliceStable(d.blocked, func(i, j int) bool { return d.blocked[i].Worker < d.blocked[j].Worker })
}

// RemoveSteps returns the steps that remove rbee and all workers from a machine. If the
// machine has no usable rbee, the first step installs the given version, which is empty if
// it is not known. The error is an [*operations.Error] with [operations.ReasonNewerHive] if
// the machine has a newer, incompatible rbee and downgrade is false.
func RemoveSteps(alias string, s *wire.State, version, reason string, downgrade bool) ([]operations.Step, error) {
	if s.Rbee == nil && len(s.Workers) == 0 {
		return nil, nil
	}
	remove := operations.Step{Action: operations.ActionRemoveHive, From: InstalledVersion(s), Reason: reason}
	if s.Rbee != nil && s.Broken == "" && s.Compatible() {
		return []operations.Step{remove}, nil
	}
	if newer := newerReason(s, version); newer != "" && !downgrade {
		return nil, &operations.Error{
			Code: operations.CodeUnsupported, Reason: operations.ReasonNewerHive, Subject: operations.SubjectHive.WithName(alias), Hive: alias, Message: newer,
		}
	}
	return []operations.Step{{
		Action: operations.ActionUpdateHive, From: remove.From, Version: version, Reason: "a working rbee is needed to uninstall",
	}, remove}, nil
}
