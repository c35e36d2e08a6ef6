package operations

import "time"

// Outcome is the overall result of a report.
type Outcome string

// The outcomes, in order of precedence: the first outcome that applies is used.
const (
	OutcomeFailed      Outcome = "failed"      // at least one step failed
	OutcomeInvalid     Outcome = "invalid"     // the config is invalid
	OutcomeLocked      Outcome = "locked"      // a hive was locked by another run
	OutcomeDrift       Outcome = "drift"       // hives differ from the config, or changes are pending
	OutcomeUnreachable Outcome = "unreachable" // a hive was unreachable
	OutcomeOK          Outcome = "ok"          // no problems
)

// Report is the result of an operation. Its implementations are pointers to the report
// types of this package.
type Report interface {
	// Outcome returns the overall result.
	Outcome() Outcome
}

// Status values of reports.
const (
	StatusSuccess        = "success"         // no hive failed
	StatusPartial        = "partial"         // some hives failed
	StatusFailed         = "failed"          // all hives failed
	StatusChangesPending = "changes_pending" // a dry run found changes to make
	StatusInSync         = "in_sync"         // all hives match the config
	StatusDriftDetected  = "drift_detected"  // hives differ from the config
	StatusUnreachable    = "unreachable"     // some hives cannot be reached; the others are in sync
	StatusValid          = "valid"           // the config is valid
	StatusInvalid        = "invalid"         // the config is invalid
)

// HiveResult is the result of an operation for one hive.
type HiveResult string

// The results for a hive.
const (
	HiveInstalled        HiveResult = "installed"         // rbee was installed
	HiveUpdated          HiveResult = "updated"           // rbee was already installed; something was changed
	HiveAlreadyInstalled HiveResult = "already_installed" // no change was necessary
	HiveUninstalled      HiveResult = "uninstalled"       // rbee was removed
	HiveNotInstalled     HiveResult = "not_installed"     // rbee was not installed, so nothing was removed
	HivePending          HiveResult = "pending"           // changes are pending (dry run)
	HiveFailed           HiveResult = "failed"            // the operation or a step failed
	HiveUnreachable      HiveResult = "unreachable"       // the hive cannot be reached
	HiveLocked           HiveResult = "locked"            // another run held the lock of the hive
	HiveCanceled         HiveResult = "canceled"          // the operation was canceled before the hive was finished
)

// SyncReport is the report of [PackageSync] and [PackageInstall].
type SyncReport struct {
	Status  string       `json:"status"` // success, partial, failed, changes_pending
	DryRun  bool         `json:"dry_run"`
	Summary SyncSummary  `json:"summary"`
	Hives   []HiveReport `json:"hives"` // sorted by alias

	// Plan is the plan of the sync.
	Plan Plan `json:"plan"`

	// Warnings reports workers that do not use the hardware of the hive fully, such as
	// a CPU worker on a machine with a GPU. Warnings do not affect the outcome.
	Warnings []ValidateWarning `json:"warnings,omitempty"`
}

// SyncSummary counts the changes of a sync. In a dry run, it counts the pending changes.
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

// HiveReport is the part of a report that concerns one hive.
type HiveReport struct {
	Alias           string     `json:"alias"`
	Status          HiveResult `json:"status"`
	Workers         []string   `json:"workers"` // worker types installed after the operation, sorted
	DurationSeconds float64    `json:"duration_seconds"`

	// Steps lists the completed steps.
	Steps []Step `json:"steps,omitempty"`

	// FailedSteps lists the steps that failed or were skipped, with their errors.
	FailedSteps []FailedStep `json:"failed,omitempty"`

	// Error is set if the complete operation failed for the hive.
	Error *Error `json:"error,omitempty"`
}

// FailedStep is a step that failed, or that was skipped because an earlier step failed.
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

// hivesOutcome returns the outcome with the highest precedence among the hives.
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

// RollbackReport is the report of [PackageRollback].
type RollbackReport struct {
	Hive   string `json:"hive"`
	Worker string `json:"worker"`
	From   string `json:"from"` // the version before the rollback
	To     string `json:"to"`   // the version after the rollback
}

// Outcome implements [Report].
func (r *RollbackReport) Outcome() Outcome { return OutcomeOK }

// BundleReport is the report of [PackageBundle].
type BundleReport struct {
	Path      string `json:"path"`
	Bytes     int64  `json:"bytes"`
	SHA256    string `json:"sha256"`
	Artifacts int    `json:"artefacts"` // number of worker artifacts

	// Platforms lists the platforms for which the bundle contains rbee, and Workers the
	// workers in the bundle. Both are sorted.
	Platforms []string         `json:"platforms"`
	Workers   []BundleContents `json:"workers"`

	// Blocked lists the requirements of the config that the bundle does not contain.
	Blocked []Blocked `json:"blocked,omitempty"`

	DurationSeconds float64 `json:"duration_seconds"`
}

// BundleContents describes one version of a worker type in a bundle.
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

// UninstallReport is the report of [PackageUninstall].
type UninstallReport struct {
	Status  string           `json:"status"` // success, partial, failed
	Summary UninstallSummary `json:"summary"`
	Hives   []HiveReport     `json:"hives"` // sorted by alias

	// PurgedPaths lists the files and directories that were removed from this machine.
	PurgedPaths []string `json:"purged,omitempty"`
}

// UninstallSummary counts the results of an uninstall.
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

// StatusReport is the report of [PackageStatus].
type StatusReport struct {
	Status  string        `json:"status"` // in_sync, drift_detected, unreachable
	Summary StatusSummary `json:"summary"`
	Drift   []Drift       `json:"drift"` // sorted by hive, then in the order of the Issue constants

	// Warnings is as in [SyncReport], for the installed workers.
	Warnings []ValidateWarning `json:"warnings,omitempty"`

	// Hives describes each hive. Set only with [PackageStatus.Verbose].
	Hives []HiveDetail `json:"hives,omitempty"`
}

// StatusSummary counts hives and workers that differ from the config.
type StatusSummary struct {
	TotalHives       int     `json:"total_hives"` // selected hives of the config
	HivesOK          int     `json:"hives_ok"`
	HivesMissing     int     `json:"hives_missing"`
	HivesExtra       int     `json:"hives_extra"`
	HivesOutdated    int     `json:"hives_outdated"`
	HivesNewer       int     `json:"hives_newer,omitempty"` // hives whose rbee is newer than the caller's
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

// ValidateReport is the report of [PackageValidate].
type ValidateReport struct {
	Status   string            `json:"status"` // valid, invalid
	Warnings []ValidateWarning `json:"warnings"`
	Errors   []ValidateError   `json:"errors"`

	// Hives is the number of hives checked, and Workers the number of their workers.
	Hives   int `json:"hives"`
	Workers int `json:"workers"`
}

// ValidateWarning is a possible problem that does not prevent an installation.
type ValidateWarning struct {
	Hive    string `json:"hive,omitempty"`
	Warning string `json:"warning"`
}

// ValidateError is a problem that must be fixed before an installation.
type ValidateError struct {
	Hive  string `json:"hive,omitempty"`
	Error string `json:"error"`

	// File, Line and Column are as in [Problem].
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`

	// Hint suggests a fix. May be empty.
	Hint string `json:"hint,omitempty"`

	// Unreachable is the [Reason] why the hive cannot be reached. Empty for other
	// errors.
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

// MigrateReport is the report of [PackageMigrate].
type MigrateReport struct {
	Status     string            `json:"status"` // success, partial
	OutputPath string            `json:"output_path"`
	Hives      []HiveSummary     `json:"hives"`    // hives in the generated config
	Warnings   []ValidateWarning `json:"warnings"` // omitted hosts, with the reasons
	Summary    MigrateSummary    `json:"summary"`
}

// MigrateSummary counts the hives and workers that a migration found.
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

// HiveSummary is a hive as described by the config and the record of installed hives.
type HiveSummary struct {
	Alias     string          `json:"alias"`
	Hostname  string          `json:"hostname"`
	SSHUser   string          `json:"ssh_user,omitempty"`
	SSHPort   int             `json:"ssh_port,omitempty"`
	HivePort  int             `json:"hive_port,omitempty"`
	Labels    []string        `json:"labels,omitempty"`
	AutoStart bool            `json:"auto_start"`
	Workers   []WorkerSummary `json:"workers"`

	// InConfig reports whether the hive is in the config.
	InConfig bool `json:"in_config"`

	// InRecord reports whether the hive is in the record of installed hives.
	InRecord bool `json:"on_record"`

	// InstalledAt is the time of the last installation from this machine; zero if never.
	InstalledAt time.Time `json:"installed_at,omitzero"`
}

// WorkerSummary is a worker type and a version.
type WorkerSummary struct {
	Type    string `json:"type"`
	Version string `json:"version"`
}

// HiveListReport is the report of [HiveList].
type HiveListReport struct {
	Hives []HiveSummary `json:"hives"` // sorted by alias

	// Warnings is as in [SyncReport], from the last time the hives were read.
	Warnings []ValidateWarning `json:"warnings,omitempty"`
}

// Outcome returns [OutcomeOK].
func (r *HiveListReport) Outcome() Outcome { return OutcomeOK }

// HiveGetReport is the report of [HiveGet].
type HiveGetReport struct {
	Hive HiveSummary `json:"hive"`

	// Detail is the state of the hive, read from the machine.
	Detail HiveDetail `json:"detail"`
}

// Outcome implements [Report].
func (r *HiveGetReport) Outcome() Outcome {
	if r.Detail.Error != nil {
		return OutcomeUnreachable
	}
	return OutcomeOK
}

// HiveDetail is the state of a hive, read from the machine.
type HiveDetail struct {
	Alias     string `json:"alias"`
	Installed bool   `json:"installed"` // whether rbee is installed

	// Version is the version of rbee on the hive. Empty if rbee is not installed.
	Version string `json:"version,omitempty"`

	// Daemon is the state of the hive daemon; nil if rbee is not installed.
	Daemon *DaemonDetail `json:"daemon,omitempty"`

	// Workers lists the installed worker types, sorted.
	Workers []WorkerDetail `json:"workers"`

	// OS and Arch are the values of runtime.GOOS and runtime.GOARCH. Libc is, for
	// example, "glibc 2.36" or "musl"; it may be empty.
	OS   string `json:"os,omitempty"`
	Arch string `json:"arch,omitempty"`
	Libc string `json:"libc,omitempty"`

	// Hostname is the host name that the machine reports.
	Hostname string `json:"hostname,omitempty"`

	// Home is the directory of rbee on the machine.
	Home string `json:"home,omitempty"`

	// DiskFree is the free space on the file system of Home, in bytes.
	DiskFree uint64 `json:"disk_free,omitempty"`

	// Error is the reason why the state could not be read; nil on success.
	Error *Error `json:"error,omitempty"`
}

// WorkerDetail is an installed worker type.
type WorkerDetail struct {
	Type        string    `json:"type"`
	Version     string    `json:"version,omitempty"` // empty if rbee did not install the worker
	Bytes       int64     `json:"bytes,omitempty"`
	InstalledAt time.Time `json:"installed_at,omitzero"`

	// Problem describes a problem with the installed files. May be empty.
	Problem string `json:"problem,omitempty"`
}

// DaemonDetail is the state of a hive daemon.
type DaemonDetail struct {
	Running bool `json:"running"`

	// PID, Port, Version and Since (the start time) describe the running daemon. They
	// are zero if it is not running.
	PID     int       `json:"pid,omitempty"`
	Port    int       `json:"port,omitempty"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since,omitzero"`

	// Supervisor is the service manager of the daemon: "systemd", "launchd" or "none".
	Supervisor string `json:"supervisor,omitempty"`

	// Problem is the reason why the daemon does not respond. May be empty.
	Problem string `json:"problem,omitempty"`
}

// Values of [HiveDaemonReport.Status].
const (
	DaemonStarted        = "started"         // HiveStart started the daemon
	DaemonAlreadyRunning = "already_running" // HiveStart found the daemon running
	DaemonStopped        = "stopped"         // HiveStop stopped the daemon
	DaemonAlreadyStopped = "already_stopped" // HiveStop found the daemon stopped
	DaemonRunning        = "running"         // HiveStatus: the daemon is running
	DaemonNotRunning     = "not_running"     // HiveStatus: the daemon is not running
	DaemonNotInstalled   = "not_installed"   // rbee is not installed on the hive
)

// HiveDaemonReport is the report of [HiveStart], [HiveStop] and [HiveStatus].
type HiveDaemonReport struct {
	Alias  string       `json:"alias"`
	Status string       `json:"status"` // a Daemon constant, such as DaemonRunning
	Daemon DaemonDetail `json:"daemon"`
}

// Outcome returns [OutcomeDrift] if the daemon is not running or not installed, and
// [OutcomeOK] otherwise.
func (r *HiveDaemonReport) Outcome() Outcome {
	switch r.Status {
	case DaemonNotRunning, DaemonNotInstalled:
		return OutcomeDrift
	}
	return OutcomeOK
}
