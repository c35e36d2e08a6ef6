package operations

import "time"

// Outcome is what a report comes to, for a program that only wants to know
// whether to worry.
type Outcome string

// The outcomes. Where several fit, the first of this list that applies wins.
const (
	OutcomeFailed      Outcome = "failed"      // some of it was tried and did not work
	OutcomeInvalid     Outcome = "invalid"     // the config is wrong
	OutcomeLocked      Outcome = "locked"      // a hive was locked by another run, nothing else failed
	OutcomeDrift       Outcome = "drift"       // hives differ from the config, or changes are pending
	OutcomeUnreachable Outcome = "unreachable" // a hive was unreachable, nothing else is wrong
	OutcomeOK          Outcome = "ok"          // all is well
)

// Report is what an operation ends with. The pointers to this package's report
// types are the only reports there are.
type Report interface {
	// Outcome sums the report up.
	Outcome() Outcome
}

// Status values of reports.
const (
	StatusSuccess        = "success"         // all was done, or nothing had to be
	StatusPartial        = "partial"         // some hives are done, some failed
	StatusFailed         = "failed"          // no hive could be done
	StatusChangesPending = "changes_pending" // a dry run found something to do
	StatusInSync         = "in_sync"         // hives are what the config says
	StatusDriftDetected  = "drift_detected"  // hives differ from the config
	StatusUnreachable    = "unreachable"     // some hives could not be read, the others are in sync
	StatusValid          = "valid"
	StatusInvalid        = "invalid"
)

// HiveResult is how one hive came out of an operation that changes hives.
type HiveResult string

// The results of hives.
const (
	HiveInstalled        HiveResult = "installed"         // rbee is new there
	HiveUpdated          HiveResult = "updated"           // rbee was there, something was changed
	HiveAlreadyInstalled HiveResult = "already_installed" // nothing had to change
	HiveUninstalled      HiveResult = "uninstalled"       // rbee was removed
	HiveNotInstalled     HiveResult = "not_installed"     // there was nothing to remove
	HivePending          HiveResult = "pending"           // a dry run would change it
	HiveFailed           HiveResult = "failed"            // Error says why
	HiveUnreachable      HiveResult = "unreachable"       // Error says why
	HiveLocked           HiveResult = "locked"            // another run held its lock for too long
	HiveCanceled         HiveResult = "canceled"          // the run was ended before this hive was done
)

// SyncReport is what [PackageSync] and [PackageInstall] end with.
type SyncReport struct {
	Status  string       `json:"status"` // success, partial, failed, changes_pending
	DryRun  bool         `json:"dry_run"`
	Summary SyncSummary  `json:"summary"`
	Hives   []HiveReport `json:"hives"` // sorted by alias

	// Plan is what was decided.
	Plan Plan `json:"plan"`

	// Warnings are about workers that are less than the machine allows, such as
	// one that runs on the CPU although the machine has a GPU. They change no
	// outcome.
	Warnings []ValidateWarning `json:"warnings,omitempty"`
}

// SyncSummary counts what a sync did. In a dry run the counts say what it would do.
type SyncSummary struct {
	HivesInstalled          int     `json:"hives_installed"`
	HivesUpdated            int     `json:"hives_updated"`
	HivesAlreadyInstalled   int     `json:"hives_already_installed"`
	HivesRemoved            int     `json:"hives_removed"`
	HivesFailed             int     `json:"hives_failed"`
	HivesUnreachable        int     `json:"hives_unreachable"`
	WorkersInstalled        int     `json:"workers_installed"` // new or updated
	WorkersAlreadyInstalled int     `json:"workers_already_installed"`
	WorkersRemoved          int     `json:"workers_removed"`
	WorkersFailed           int     `json:"workers_failed"`
	DurationSeconds         float64 `json:"duration_seconds"`
}

// HiveReport is one hive's part of a report.
type HiveReport struct {
	Alias           string     `json:"alias"`
	Status          HiveResult `json:"status"`
	Workers         []string   `json:"workers"` // worker types installed there now, sorted
	DurationSeconds float64    `json:"duration_seconds"`

	// Steps are those that were done.
	Steps []Step `json:"steps,omitempty"`

	// Failed are those that were not, each with its error.
	Failed []FailedStep `json:"failed,omitempty"`

	// Error is set for a hive that failed as a whole.
	Error *Error `json:"error,omitempty"`
}

// FailedStep is a step that did not work, or that was not begun because of one
// before it.
type FailedStep struct {
	Step  Step   `json:"step"`
	Error *Error `json:"error"`
}

// Outcome implements [Report].
func (r *SyncReport) Outcome() Outcome {
	if r.DryRun && len(r.Plan.Steps) > 0 {
		return OutcomeDrift
	}
	if len(r.Plan.Blocked) > 0 {
		return OutcomeFailed
	}
	return hivesOutcome(r.Hives)
}

// hivesOutcome is the worst of the hives' results.
func hivesOutcome(hives []HiveReport) Outcome {
	out := OutcomeOK
	for _, h := range hives {
		switch h.Status {
		case HiveFailed, HiveCanceled:
			return OutcomeFailed
		case HiveLocked:
			out = OutcomeLocked
		case HiveUnreachable:
			if out == OutcomeOK {
				out = OutcomeUnreachable
			}
		}
	}
	return out
}

// RollbackReport is what [PackageRollback] ends with.
type RollbackReport struct {
	Hive   string `json:"hive"`
	Worker string `json:"worker"`
	From   string `json:"from"` // the version that was installed
	To     string `json:"to"`   // the one that is now
}

// Outcome implements [Report].
func (r *RollbackReport) Outcome() Outcome { return OutcomeOK }

// BundleReport is what [PackageBundle] ends with.
type BundleReport struct {
	Path      string `json:"path"`
	Bytes     int64  `json:"bytes"`
	SHA256    string `json:"sha256"`
	Artifacts int    `json:"artefacts"` // files of workers

	// Platforms are those that rbee itself is in for, and Workers what is in of
	// workers, sorted.
	Platforms []string         `json:"platforms"`
	Workers   []BundleContents `json:"workers"`

	// Blocked are the wishes that are not in, with the reason.
	Blocked []Blocked `json:"blocked,omitempty"`

	DurationSeconds float64 `json:"duration_seconds"`
}

// BundleContents is a version of a worker type in a bundle.
type BundleContents struct {
	Worker   string `json:"worker"`
	Version  string `json:"version"`
	Variant  string `json:"variant,omitempty"`
	Platform string `json:"platform"`
	Bytes    int64  `json:"bytes"`
}

// Outcome implements [Report].
func (r *BundleReport) Outcome() Outcome {
	if len(r.Blocked) > 0 {
		return OutcomeFailed
	}
	return OutcomeOK
}

// UninstallReport is what [PackageUninstall] ends with.
type UninstallReport struct {
	Status  string           `json:"status"` // success, partial, failed
	Summary UninstallSummary `json:"summary"`
	Hives   []HiveReport     `json:"hives"` // sorted by alias

	// Purged are the files and directories removed from this machine.
	Purged []string `json:"purged,omitempty"`
}

// UninstallSummary counts what an uninstall did.
type UninstallSummary struct {
	HivesUninstalled  int     `json:"hives_uninstalled"`
	HivesNotInstalled int     `json:"hives_not_installed"`
	HivesFailed       int     `json:"hives_failed"`
	HivesUnreachable  int     `json:"hives_unreachable"`
	WorkersRemoved    int     `json:"workers_removed"`
	DurationSeconds   float64 `json:"duration_seconds"`
}

// Outcome implements [Report].
func (r *UninstallReport) Outcome() Outcome { return hivesOutcome(r.Hives) }

// StatusReport is what [PackageStatus] ends with.
type StatusReport struct {
	Status  string        `json:"status"` // in_sync, drift_detected, unreachable
	Summary StatusSummary `json:"summary"`
	Drift   []Drift       `json:"drift"` // sorted by hive, then as in Issue's order

	// Warnings are as in [SyncReport], about workers that are installed.
	Warnings []ValidateWarning `json:"warnings,omitempty"`

	// Hives tells what each hive has; only with Verbose.
	Hives []HiveDetail `json:"hives,omitempty"`
}

// StatusSummary counts hives and workers that differ from the config.
type StatusSummary struct {
	TotalHives       int     `json:"total_hives"` // hives of the config that were asked for
	HivesOK          int     `json:"hives_ok"`
	HivesMissing     int     `json:"hives_missing"`
	HivesExtra       int     `json:"hives_extra"`
	HivesOutdated    int     `json:"hives_outdated"`
	HivesNewer       int     `json:"hives_newer,omitempty"` // their rbee is newer than the caller's
	HivesNotRunning  int     `json:"hives_not_running"`
	HivesUnreachable int     `json:"hives_unreachable"`
	WorkersMissing   int     `json:"workers_missing"`
	WorkersExtra     int     `json:"workers_extra"`
	WorkersOutdated  int     `json:"workers_outdated"`
	WorkersCorrupt   int     `json:"workers_corrupt"`
	DurationSeconds  float64 `json:"duration_seconds"`
}

// Outcome implements [Report].
func (r *StatusReport) Outcome() Outcome {
	out := OutcomeOK
	for _, d := range r.Drift {
		if d.Issue != IssueUnreachable {
			return OutcomeDrift
		}
		out = OutcomeUnreachable
	}
	return out
}

// ValidateReport is what [PackageValidate] ends with.
type ValidateReport struct {
	Status   string            `json:"status"` // valid, invalid
	Warnings []ValidateWarning `json:"warnings"`
	Errors   []ValidateError   `json:"errors"`

	// Hives counts the hives that were checked, Workers the workers they want.
	Hives   int `json:"hives"`
	Workers int `json:"workers"`
}

// ValidateWarning is something that may be meant, or may become a problem.
type ValidateWarning struct {
	Hive    string `json:"hive,omitempty"`
	Warning string `json:"warning"`
}

// ValidateError is something that has to be mended before an install.
type ValidateError struct {
	Hive  string `json:"hive,omitempty"`
	Error string `json:"error"`

	// File, Line and Column are as in [Problem].
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`

	// Hint says what would be right. May be empty.
	Hint string `json:"hint,omitempty"`

	// Unreachable is the reason why the hive could not be reached, where that
	// is the error; else empty.
	Unreachable string `json:"unreachable,omitempty"`
}

// Outcome implements [Report].
func (r *ValidateReport) Outcome() Outcome {
	out := OutcomeOK
	for _, e := range r.Errors {
		if e.Unreachable == "" {
			return OutcomeInvalid
		}
		out = OutcomeUnreachable
	}
	return out
}

// MigrateReport is what [PackageMigrate] ends with.
type MigrateReport struct {
	Status     string            `json:"status"` // success, partial
	OutputPath string            `json:"output_path"`
	Hives      []HiveSummary     `json:"hives"`    // those in the config that was written
	Warnings   []ValidateWarning `json:"warnings"` // hosts that were left out, and why
	Summary    MigrateSummary    `json:"summary"`
}

// MigrateSummary counts what a migrate found.
type MigrateSummary struct {
	Hives            int `json:"hives"`
	Workers          int `json:"workers"`
	HivesUnreachable int `json:"hives_unreachable"`
}

// Outcome implements [Report].
func (r *MigrateReport) Outcome() Outcome {
	if r.Summary.HivesUnreachable > 0 {
		return OutcomeUnreachable
	}
	return OutcomeOK
}

// HiveSummary is a hive as config and record know it.
type HiveSummary struct {
	Alias     string          `json:"alias"`
	Hostname  string          `json:"hostname"`
	SSHUser   string          `json:"ssh_user,omitempty"`
	SSHPort   int             `json:"ssh_port,omitempty"`
	HivePort  int             `json:"hive_port,omitempty"`
	Labels    []string        `json:"labels,omitempty"`
	AutoStart bool            `json:"auto_start"`
	Workers   []WorkerSummary `json:"workers"`

	// InConfig and OnRecord say where the hive is known from.
	InConfig bool `json:"in_config"`
	OnRecord bool `json:"on_record"`

	// InstalledAt is when this machine last installed there; zero if never.
	InstalledAt time.Time `json:"installed_at,omitzero"`
}

// WorkerSummary is a worker type at a version.
type WorkerSummary struct {
	Type    string `json:"type"`
	Version string `json:"version"`
}

// HiveListReport is what [HiveList] ends with.
type HiveListReport struct {
	Hives []HiveSummary `json:"hives"` // sorted by alias

	// Warnings are as in [SyncReport], as they were when the hives were last read.
	Warnings []ValidateWarning `json:"warnings,omitempty"`
}

// Outcome implements [Report]; it is always ok.
func (r *HiveListReport) Outcome() Outcome { return OutcomeOK }

// HiveGetReport is what [HiveGet] ends with.
type HiveGetReport struct {
	Hive HiveSummary `json:"hive"`

	// Detail is what the machine itself answered.
	Detail HiveDetail `json:"detail"`
}

// Outcome implements [Report].
func (r *HiveGetReport) Outcome() Outcome {
	if r.Detail.Error != nil {
		return OutcomeUnreachable
	}
	return OutcomeOK
}

// HiveDetail is what a machine says of itself.
type HiveDetail struct {
	Alias     string `json:"alias"`
	Installed bool   `json:"installed"`

	// Version is the version of rbee there; empty if it is not installed.
	Version string `json:"version,omitempty"`

	// Daemon is the hive daemon; nil if rbee is not installed.
	Daemon *DaemonDetail `json:"daemon,omitempty"`

	// Workers are the worker types installed, sorted.
	Workers []WorkerDetail `json:"workers"`

	// OS, Arch and Libc describe the platform, as Go names them; Libc is
	// "glibc 2.36", "musl" or empty.
	OS   string `json:"os,omitempty"`
	Arch string `json:"arch,omitempty"`
	Libc string `json:"libc,omitempty"`

	// Hostname is the machine's own name for itself.
	Hostname string `json:"hostname,omitempty"`

	// Home is rbee's directory on the machine.
	Home string `json:"home,omitempty"`

	// DiskFree is the free space where Home is, in bytes.
	DiskFree uint64 `json:"disk_free,omitempty"`

	// Error is why the machine could not be read; nil if it could.
	Error *Error `json:"error,omitempty"`
}

// WorkerDetail is a worker type that is installed.
type WorkerDetail struct {
	Type        string    `json:"type"`
	Version     string    `json:"version,omitempty"` // empty: not known, rbee did not install it
	Bytes       int64     `json:"bytes,omitempty"`
	InstalledAt time.Time `json:"installed_at,omitzero"`

	// Problem says what is wrong with the installed files; empty if nothing is.
	Problem string `json:"problem,omitempty"`
}

// DaemonDetail is the state of a hive daemon.
type DaemonDetail struct {
	Running bool `json:"running"`

	// PID, Port, Version and Since describe the running daemon; zero if it
	// does not run.
	PID     int       `json:"pid,omitempty"`
	Port    int       `json:"port,omitempty"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"`

	// Supervisor is what keeps it running: "systemd", "launchd", or "none".
	Supervisor string `json:"supervisor,omitempty"`

	// Problem says why a daemon that should run does not answer. May be empty.
	Problem string `json:"problem,omitempty"`
}

// Results of [HiveStart], [HiveStop] and [HiveStatus].
const (
	DaemonStarted        = "started"
	DaemonAlreadyRunning = "already_running"
	DaemonStopped        = "stopped"
	DaemonAlreadyStopped = "already_stopped"
	DaemonRunning        = "running"
	DaemonNotRunning     = "not_running"
	DaemonNotInstalled   = "not_installed"
)

// HiveDaemonReport is what [HiveStart], [HiveStop] and [HiveStatus] end with.
type HiveDaemonReport struct {
	Alias  string       `json:"alias"`
	Status string       `json:"status"` // one of the Daemon constants
	Daemon DaemonDetail `json:"daemon"`
}

// Outcome implements [Report]. A daemon that does not run is drift.
func (r *HiveDaemonReport) Outcome() Outcome {
	switch r.Status {
	case DaemonNotRunning, DaemonNotInstalled:
		return OutcomeDrift
	}
	return OutcomeOK
}
