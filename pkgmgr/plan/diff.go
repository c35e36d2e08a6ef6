// Package plan decides: it compares the desired state of hives with what they report, and
// makes the steps between the two. It is pure: it reads no file, no clock and no network.
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

// HiveState is one hive with what its machine answered.
type HiveState struct {
	Hive config.Hive

	// Extra means that the hive is on record but not in the config.
	Extra bool

	// State is the machine's answer; nil if it could not be read.
	State *wire.State

	// Err is why it could not be read; nil if it could.
	Err *operations.Error
}

// Options say which differences a plan mends. The zero value installs what
// is missing and outdated, and removes nothing.
type Options struct {
	// RemoveExtra also removes workers and hives that the config does not name.
	RemoveExtra bool

	// Force installs again what is installed already.
	Force bool

	// Downgrade replaces a newer rbee of a hive by the one of [Desired].
	Downgrade bool

	// Fetch allows to look up what is not known on this machine: an rbee for
	// another platform, the versions that are published, the files of a version.
	// Without it hives are compared by what is known.
	Fetch bool

	// Upgrade looks for newer versions than those of the lock, of the worker
	// types in UpgradeTypes, or of all if that is empty. It needs Fetch.
	Upgrade      bool
	UpgradeTypes []string
}

// Diff compares hives with what the config and want say, and decides what to do.
// It is a pure function: equal arguments give equal plans, sorted by hive. A hive
// that could not be read is reported and gets no step.
func Diff(states []HiveState, want Desired, o Options) *Plan {
	plan := empty()
	sorted := slices.Clone(states)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Hive.Alias < sorted[j].Hive.Alias })
	for _, s := range sorted {
		plan.Hives = append(plan.Hives, hiveOf(s, want))
		d := hiveDiff{hive: s.Hive, state: s.State, want: want, opts: o, plan: plan}
		d.newer = s.State != nil && newerHive(s.State, cmp.Or(want.binary(s.State).Version, want.Version)) != "" && !o.Downgrade
		switch {
		case s.Extra:
			d.extraHive(s.Err)
		case s.State == nil:
			d.unreachable(s.Err)
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

// hiveDiff collects what is to be said about one hive.
type hiveDiff struct {
	hive  config.Hive
	state *wire.State
	want  Desired
	opts  Options
	plan  *Plan // gets installations and builds
	newer bool  // the rbee of the hive is newer, and stays

	steps   []operations.Step
	drift   []operations.Drift
	blocked []operations.Blocked
}

func (d *hiveDiff) found(issue operations.Issue, worker, format string, args ...any) {
	d.drift = append(d.drift, operations.Drift{
		Hive: d.hive.Alias, Issue: issue, Worker: worker, Details: fmt.Sprintf(format, args...),
	})
}

func (d *hiveDiff) step(s operations.Step) {
	s.Hive = d.hive.Alias
	d.steps = append(d.steps, s)
}

// block blocks a hive, or a worker of it.
func (d *hiveDiff) block(worker string, reason operations.Reason, message string) {
	d.blocked = append(d.blocked, operations.Blocked{
		Hive: d.hive.Alias, Worker: worker, Reason: message,
		Error: &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: d.subject(worker), Hive: d.hive.Alias, Message: message},
	})
}

// subject returns the worker, or the hive where worker is empty.
func (d *hiveDiff) subject(worker string) operations.Subject {
	if worker == "" {
		return operations.SubjectHive.Named(d.hive.Alias)
	}
	return operations.SubjectWorker.Named(worker)
}

// blockFor blocks a worker because of an error, with the output of a program that
// failed.
func (d *hiveDiff) blockFor(worker string, err error) {
	b := operations.Blocked{
		Hive: d.hive.Alias, Worker: worker, Reason: err.Error(),
		Error: &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Subject: d.subject(worker), Hive: d.hive.Alias, Message: err.Error(), Err: err,
		},
	}
	if own := (*operations.Error)(nil); errors.As(err, &own) {
		b.Reason, b.Error = own.Message, own
	}
	var run *uv.Error
	if errors.As(err, &run) {
		b.Detail = run.Output
	}
	d.blocked = append(d.blocked, b)
}

func (d *hiveDiff) unreachable(err *operations.Error) {
	details := "Hive was not read"
	if err != nil {
		details = "Hive unreachable: " + err.Message
	}
	d.found(operations.IssueUnreachable, "", "%s", details)
	d.drift[len(d.drift)-1].Error = err
}

func (d *hiveDiff) extraHive(err *operations.Error) {
	switch {
	case d.state == nil:
		if d.found(operations.IssueExtraHive, "", "Hive not in config, and it could not be read"); d.opts.RemoveExtra {
			d.unreachable(err)
		}
	case d.state.Rbee == nil && len(d.state.Workers) == 0:
		// Somebody removed it already: there is nothing extra about it.
	default:
		d.found(operations.IssueExtraHive, "", "Hive not in config")
		if d.opts.RemoveExtra {
			steps, err := RemoveSteps(d.hive.Alias, d.state, d.want.Version, "not in config", d.opts.Downgrade)
			if err != nil {
				d.blockFor("", err)
			}
			for _, s := range steps {
				d.step(s)
			}
		}
	}
}

// compare is the whole comparison for a hive of the config that was read.
func (d *hiveDiff) compare() {
	ready, restart := d.compareHive()
	for _, w := range d.hive.Workers {
		d.compareWorker(w, ready)
	}
	for _, have := range d.state.Workers {
		if d.wanted(have.Type) {
			continue
		}
		d.found(operations.IssueExtraWorker, have.Type, "Extra worker '%s'", have.Type)
		if d.opts.RemoveExtra && ready {
			d.step(operations.Step{Action: operations.ActionRemoveWorker, Worker: have.Type, From: have.Version, Reason: "not in config"})
		}
	}
	d.checkDisk()
	if ready {
		d.compareDaemon(restart)
	}
}

// compareHive looks at rbee itself. ready is false if no rbee is there and none
// can be brought, so that nothing else can be done either; restart says that
// what the daemon runs is about to be replaced.
func (d *hiveDiff) compareHive() (ready, restart bool) {
	binary, known := d.want.Binaries[d.state.Platform.Key()]
	rbeeVersion := cmp.Or(binary.Version, d.want.Version)
	update := operations.Step{
		Action: operations.ActionUpdateHive, From: InstalledVersion(d.state), Version: rbeeVersion, Bytes: binary.Size,
	}
	if reason := newerHive(d.state, rbeeVersion); reason != "" && !d.opts.Downgrade {
		d.found(operations.IssueNewerHive, "", "%s", reason)
		if !d.state.Compatible() || d.state.Broken != "" {
			d.blockFor("", &operations.Error{
				Code: operations.CodeUnsupported, Reason: operations.ReasonNewerHive, Subject: operations.SubjectHive.Named(d.hive.Alias), Hive: d.hive.Alias,
				Message: reason,
			})
			return false, false
		}
		return true, d.compareSettings()
	}
	noReason, no := noRbee(d.state, binary, known)
	switch reason := outdated(d.state, binary, rbeeVersion); {
	case d.state.Rbee == nil:
		d.found(operations.IssueMissingHive, "", "Hive not installed")
		if no != "" {
			d.block("", noReason, no)
			return false, false
		}
		d.step(operations.Step{
			Action: operations.ActionInstallHive, Version: rbeeVersion, Bytes: binary.Size, Digest: d.plan.build(d.state.Platform, binary), Reason: "not installed",
		})
		return true, true
	case reason != "":
		d.found(operations.IssueOutdatedHive, "", "%s", reason)
		if no != "" {
			d.block("", noReason, no)
			return d.state.Compatible() && d.state.Broken == "", false
		}
		update.Reason, update.Digest = reason, d.plan.build(d.state.Platform, binary)
		d.step(update)
		return true, true
	case d.opts.Force && no == "":
		update.Reason, update.Digest = "forced", d.plan.build(d.state.Platform, binary)
		d.step(update)
		return true, true
	}
	return true, d.compareSettings()
}

// compareSettings looks at the settings of a hive whose rbee stays, and reports whether
// the daemon must be restarted to use others.
func (d *hiveDiff) compareSettings() (restart bool) {
	reason := settingsDiffer(d.state.Settings, d.hive.Settings())
	if reason == "" {
		return false
	}
	d.found(operations.IssueOutdatedHive, "", "%s", reason)
	d.step(operations.Step{Action: operations.ActionConfigureHive, Reason: reason})
	have := d.state.Settings
	return have == nil || have.HivePort != d.hive.HivePort || have.AutoStart != d.hive.AutoStart
}

// newerHive describes how the rbee of a hive is newer than the one that it would get;
// empty if it is not. Versions count where both are numbers, such as v1.2.3.
func newerHive(s *wire.State, own string) string {
	switch {
	case s.Rbee == nil:
		return ""
	case s.Schema > wire.Schema:
		return fmt.Sprintf("rbee %s on the hive is newer than this one: its protocol has schema %d, this one has %d", InstalledVersion(s), s.Schema, wire.Schema)
	case numbered.MatchString(s.Rbee.Version) && numbered.MatchString(own) && version.Compare(s.Rbee.Version, own) > 0:
		return fmt.Sprintf("rbee %s on the hive is newer than this one, %s", s.Rbee.Version, own)
	}
	return ""
}

// numbered matches versions of rbee that can be compared.
var numbered = regexp.MustCompile(`^v?[0-9]+\.[0-9]+`)

// noRbee says why no rbee can be brought to a machine, or none that would run;
// empty if one can.
func noRbee(s *wire.State, b DesiredBinary, known bool) (operations.Reason, string) {
	switch {
	case s.Noexec != "":
		return operations.ReasonUnfitMachine, catalog.NoexecMessage(s)
	case b.Err != nil:
		return operations.ReasonOf(b.Err), b.Err.Error()
	case !known:
		return operations.ReasonNoBinary, fmt.Sprintf("there is no rbee for %s to bring to it", s.Platform.Key())
	}
	return "", ""
}

// outdated says why the installed rbee must be replaced; empty if it need not.
func outdated(s *wire.State, want DesiredBinary, version string) string {
	switch {
	case s.Rbee == nil:
		return ""
	case s.Broken != "":
		return "The installed rbee does not work: " + s.Broken
	case !s.Compatible():
		return fmt.Sprintf("The installed rbee %s speaks another protocol than this one", InstalledVersion(s))
	case want.SHA256 != "" && s.Rbee.SHA256 != want.SHA256 && s.Rbee.Version == version:
		return fmt.Sprintf("rbee %s is another build than this one", version)
	case want.SHA256 != "" && s.Rbee.SHA256 != want.SHA256, want.SHA256 == "" && version != "" && s.Rbee.Version != version:
		return fmt.Sprintf("rbee is %s, want %s", cmp.Or(s.Rbee.Version, "unknown"), version)
	}
	return ""
}

// settingsDiffer says how stored settings differ from the config's; empty if
// they do not.
func settingsDiffer(have *wire.Settings, want wire.Settings) string {
	if have == nil {
		return "The hive does not know its settings"
	}
	var differ []string
	if have.Alias != want.Alias {
		differ = append(differ, fmt.Sprintf("alias is %s, want %s", have.Alias, want.Alias))
	}
	if have.HivePort != want.HivePort {
		differ = append(differ, fmt.Sprintf("hive_port is %d, want %d", have.HivePort, want.HivePort))
	}
	if have.AutoStart != want.AutoStart {
		differ = append(differ, fmt.Sprintf("auto_start is %t, want %t", have.AutoStart, want.AutoStart))
	}
	if !slices.Equal(have.Labels, want.Labels) {
		differ = append(differ, fmt.Sprintf("labels are [%s], want [%s]", strings.Join(have.Labels, " "), strings.Join(want.Labels, " ")))
	}
	return strings.Join(differ, "; ")
}

// compareDaemon looks at the daemon. restart says that it must be started anew
// because what it runs is replaced.
func (d *hiveDiff) compareDaemon(restart bool) {
	daemon := d.state.Daemon
	stale := daemon.Running && !restart && d.state.Rbee != nil && daemon.SHA256 != "" && daemon.SHA256 != d.state.Rbee.SHA256
	switch {
	case !daemon.Running && !d.hive.AutoStart:
	case !daemon.Running:
		reason := "auto_start"
		if d.state.Rbee != nil {
			d.found(operations.IssueHiveNotRunning, "", "Hive not running%s", text.After(": ", daemon.Problem))
			reason = "not running"
		}
		d.step(operations.Step{Action: operations.ActionStartHive, Reason: reason})
	case stale:
		d.found(operations.IssueOutdatedHive, "", "The daemon still runs the rbee that was replaced")
		d.step(operations.Step{Action: operations.ActionStartHive, Reason: "the daemon runs an old rbee"})
	case restart:
		d.step(operations.Step{Action: operations.ActionStartHive, Reason: "run what was updated"})
	}
}

func (d *hiveDiff) wanted(workerType string) bool {
	return slices.ContainsFunc(d.hive.Workers, func(w config.Worker) bool { return w.Type == workerType })
}

// compareWorker looks at one wanted worker.
func (d *hiveDiff) compareWorker(w config.Worker, ready bool) {
	i := slices.IndexFunc(d.state.Workers, func(have wire.Worker) bool { return have.Type == w.Type })
	want := d.want.Workers[WorkerKey{d.hive.Alias, w.Type}]
	if i < 0 {
		d.found(operations.IssueMissingWorker, w.Type, "Worker '%s' not installed", w.Type)
		d.installWorker(w, want, operations.Step{Action: operations.ActionInstallWorker, Reason: "not installed"}, ready)
		return
	}
	have := d.state.Workers[i]
	if d.opts.Force || have.Version == want.Version && (have.Corrupt != "" || have.Foreign || have.SHA256 != want.SHA256) {
		d.plan.reinstall(d.hive.Alias, w.Type)
	}
	if d.newer && want.builtin() && have.Corrupt == "" {
		return // it is part of the hive's own rbee
	}
	step := operations.Step{Action: operations.ActionUpdateWorker, From: have.Version}
	var unknown *LookupError
	if errors.As(want.Err, &unknown) && have.Corrupt == "" {
		// What is there may be right or not.
		d.blockFor(w.Type, want.Err)
		return
	}
	switch issue, reason := workerDiffers(have, w, want); {
	case reason != "":
		d.found(issue, w.Type, "Worker '%s' %s", w.Type, reason)
		step.Reason = reason
		d.installWorker(w, want, step, ready)
	case d.opts.Force && want.Err == nil:
		step.Reason = "forced"
		d.installWorker(w, want, step, ready)
	}
}

// workerDiffers says how an installed worker differs from the wish; reason is
// empty if it does not.
func workerDiffers(have wire.Worker, wish config.Worker, want DesiredWorker) (issue operations.Issue, reason string) {
	switch {
	case have.Corrupt != "":
		return operations.IssueCorruptWorker, "is damaged: " + have.Corrupt
	case have.Foreign && wish.Version == version.Latest:
		return "", "" // put there by hand and adopted: whatever it is, it is the latest we know
	case have.Foreign:
		return operations.IssueOutdatedWorker, fmt.Sprintf("was not installed by rbee, want version %s", wish.Version)
	case want.Err != nil && !want.Indirect && version.IsExact(wish.Version) && !Satisfies(wish.Version, have.Version):
		return operations.IssueOutdatedWorker, fmt.Sprintf("is %s, want %s", have.Version, wish.Version)
	case errors.Is(want.Err, ErrRecipeChanged):
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s was locked before the recipe's steps changed", have.Version)
	case want.Err != nil:
		return "", ""
	case have.Version != want.Version:
		return operations.IssueOutdatedWorker, fmt.Sprintf("is %s, want %s", have.Version, want.Version)
	case want.differs(have) && have.Variant != want.Variant:
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s is %s, want %s", have.Version, cmp.Or(have.Variant, "without a variant"), cmp.Or(want.Variant, "none"))
	case want.differs(have):
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s is of another source than the recipe's", have.Version)
	case launchDiffers(have, want.Launch):
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s is started otherwise than the recipe says", have.Version)
	case want.Launch != nil && !want.Verify.Equal(have.Verify):
		return operations.IssueOutdatedWorker, fmt.Sprintf("%s has another verify command than the recipe", have.Version)
	}
	return "", ""
}

// launchDiffers reports whether an installed worker is started otherwise than the recipe
// says; nil compares nothing. Fields that the recipe does not set do not count, unless an
// earlier rbee installed the worker.
func launchDiffers(have wire.Worker, want *wire.Launch) bool {
	switch {
	case want == nil:
		return false
	case have.LaunchDigest != "":
		return have.LaunchDigest != want.Digest()
	}
	return !want.Equal(have.Launch)
}

// Satisfies reports whether an exact wish is one for a version, however it is written.
func Satisfies(wish, exact string) bool {
	set, err := version.ParseRange(wish)
	return err == nil && set.Has(exact)
}

// IsAdopted reports whether a wish is fulfilled by what somebody else put there.
func IsAdopted(s *wire.State, wish config.Worker) bool {
	return wish.Version == version.Latest && slices.ContainsFunc(s.Workers, func(w wire.Worker) bool {
		return w.Type == wish.Type && w.Foreign && w.Corrupt == ""
	})
}

func (d *hiveDiff) installWorker(w config.Worker, want DesiredWorker, step operations.Step, ready bool) {
	if want.Err != nil {
		d.blockFor(w.Type, want.Err)
		return
	}
	if !ready {
		return // the block on the hive itself says it all
	}
	if lacks := catalog.Unmet(want.Needs, d.state); len(lacks) > 0 {
		d.block(w.Type, operations.ReasonUnfitMachine, fmt.Sprintf("worker '%s' would not run there: %s", w.Type, strings.Join(lacks, "; ")))
		return
	}
	if d.newer && want.builtin() {
		want.Version, want.SHA256 = d.state.Rbee.Version, d.state.Rbee.SHA256
	}
	step.Worker, step.Version = w.Type, want.Version
	step.Bytes, _ = transferBytes(want.Steps, d.state)
	step.Variant, step.VariantReason = want.Variant, want.Reason
	step.Digest = d.plan.install(w.Type, want)
	d.step(step)
}

// checkDisk blocks the installs of a machine whose disk has no room for them all.
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
			"%s has %s free, and what is to be installed there needs %s", d.state.Home, bytesize.Format(d.state.DiskFree), bytesize.Format(need)))
		return true
	})
}

// InstalledVersion returns the version of the rbee that a machine has; empty if it
// has none.
func InstalledVersion(s *wire.State) string {
	if s.Rbee == nil {
		return ""
	}
	return s.Rbee.Version
}

// Orders within one hive.
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

// RemoveSteps returns the steps that remove all of rbee from a machine; version is that
// of the rbee that is brought there where it takes one to remove the rest. The error is
// an [*operations.Error] with [operations.ReasonNewerHive] if the machine has a newer rbee
// that does not understand this one, unless downgrade allows to replace it.
func RemoveSteps(alias string, s *wire.State, version, reason string, downgrade bool) ([]operations.Step, error) {
	if s.Rbee == nil && len(s.Workers) == 0 {
		return nil, nil
	}
	remove := operations.Step{Action: operations.ActionRemoveHive, From: InstalledVersion(s), Reason: reason}
	if s.Rbee != nil && s.Broken == "" && s.Compatible() {
		return []operations.Step{remove}, nil
	}
	if newer := newerHive(s, version); newer != "" && !downgrade {
		return nil, &operations.Error{
			Code: operations.CodeUnsupported, Reason: operations.ReasonNewerHive, Subject: operations.SubjectHive.Named(alias), Hive: alias, Message: newer,
		}
	}
	return []operations.Step{{
		Action: operations.ActionUpdateHive, From: remove.From, Version: cmp.Or(version, "this one"), Reason: "needed to uninstall",
	}, remove}, nil
}
