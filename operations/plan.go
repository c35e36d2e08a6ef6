package operations

// Issue is a kind of drift.
type Issue string

// The kinds of drift.
const (
	IssueMissingHive    Issue = "missing_hive"     // the hive is in the config but rbee is not installed
	IssueExtraHive      Issue = "extra_hive"       // rbee is installed but the hive is not in the config
	IssueOutdatedHive   Issue = "outdated_hive"    // rbee or its settings differ from the config
	IssueNewerHive      Issue = "newer_hive"       // the rbee of the hive is newer than the caller's
	IssueHiveNotRunning Issue = "hive_not_running" // auto_start is set but the daemon does not respond
	IssueMissingWorker  Issue = "missing_worker"   // the worker is in the config but not installed
	IssueExtraWorker    Issue = "extra_worker"     // the worker is installed but not in the config
	IssueOutdatedWorker Issue = "outdated_worker"  // the version or the source differs from the config
	IssueCorruptWorker  Issue = "corrupt_worker"   // installed files are missing or modified
	IssueUnreachable    Issue = "unreachable"      // the hive cannot be reached, or its state cannot be read
)

// Drift is one difference between a hive and the config.
type Drift struct {
	// Hive is the alias of the hive.
	Hive string `json:"hive"`

	// Issue is the kind of difference.
	Issue Issue `json:"issue"`

	// Worker is the worker type. Empty if the hive itself differs.
	Worker string `json:"worker,omitempty"`

	// Details describes the difference for a user.
	Details string `json:"details"`

	// Error is the cause of [IssueUnreachable]; nil for other issues.
	Error *Error `json:"error,omitempty"`
}

// Action is the kind of a plan step.
type Action string

// The actions, in the order in which they are applied to one hive.
const (
	ActionInstallHive   Action = "install_hive"   // install rbee on a machine that does not have it
	ActionUpdateHive    Action = "update_hive"    // replace rbee
	ActionConfigureHive Action = "configure_hive" // change the settings of the hive
	ActionRemoveWorker  Action = "remove_worker"  // remove a worker
	ActionInstallWorker Action = "install_worker" // install a missing worker
	ActionUpdateWorker  Action = "update_worker"  // install another version of a worker, or repair it

	ActionRollbackHive   Action = "rollback_hive"   // restore the previous rbee
	ActionRollbackWorker Action = "rollback_worker" // restore the previous version of a worker

	ActionStartHive  Action = "start_hive"  // start or restart the daemon
	ActionStopHive   Action = "stop_hive"   // stop the daemon
	ActionRemoveHive Action = "remove_hive" // stop the daemon and remove rbee
)

// Step is one change to one hive.
type Step struct {
	// Hive is the alias of the hive.
	Hive string `json:"hive"`

	// Action is the kind of the change.
	Action Action `json:"action"`

	// Worker is the worker type. Empty for a step on the hive itself.
	Worker string `json:"worker,omitempty"`

	// From and Version are the versions before and after the step. Empty if not
	// applicable or not known.
	From    string `json:"from,omitempty"`
	Version string `json:"version,omitempty"`

	// Variant is the variant of the recipe, and VariantReason the reason why it was
	// selected. Empty if the recipe has only one variant.
	Variant       string `json:"variant,omitempty"`
	VariantReason string `json:"variant_reason,omitempty"`

	// Reason is the reason for the step.
	Reason string `json:"reason"`

	// Bytes is the number of bytes to transfer to the hive, sent by this machine or
	// downloaded by the hive. 0 if none, or if not known in advance.
	Bytes int64 `json:"bytes,omitempty"`

	// Digest is a SHA-256 in hex. If the step installs rbee, it is the digest of the
	// binary; if the step installs a worker, it identifies the installed files. Empty
	// if the step installs nothing, or if the digest is not known in advance.
	Digest string `json:"digest,omitempty"`

	// DownloadBytes is the part of Bytes that the hive downloads itself.
	DownloadBytes int64 `json:"download_bytes,omitempty"`
}

// Plan lists the changes that make hives match the config. It is sorted by hive, and
// within a hive in the order of execution.
type Plan struct {
	// Steps lists the changes. Empty if no change is necessary.
	Steps []Step `json:"steps"`

	// Drift lists all differences, including differences that no step fixes.
	Drift []Drift `json:"drift"`

	// Blocked lists the requirements of the config that no step can satisfy, such as a
	// worker type that cannot be installed on the platform of the hive.
	Blocked []Blocked `json:"blocked,omitempty"`

	// Upgrades lists the version constraints that now resolve to a different version, or
	// to different files of the same version.
	Upgrades []Upgrade `json:"upgrades,omitempty"`
}

// Upgrade is a version constraint of the config, such as "latest", that resolves to a
// different version than the one in hives.lock, or to different files of the same version
// because the recipe changed.
type Upgrade struct {
	Worker    string `json:"worker"`
	Requested string `json:"requested"` // the version constraint; for the tool "python", the required Python version

	// From and To are the versions before and after the upgrade. If they are equal,
	// each is followed by the difference in parentheses, such as "1.0 (wax 1.1)".
	From string `json:"from"`
	To   string `json:"to"`
}

// Blocked is a requirement of the config that rbee cannot satisfy.
type Blocked struct {
	// Hive is the alias of the hive.
	Hive string `json:"hive"`

	// Worker is the worker type. Empty if the requirement concerns the hive itself.
	Worker string `json:"worker,omitempty"`

	// Reason explains the cause and how to fix it.
	Reason string `json:"reason"`

	// Detail is the complete output of the program that failed. It may have several
	// lines and contains no passwords. May be empty.
	Detail string `json:"detail,omitempty"`

	// Error is the same information as an error, with code, reason and subject.
	Error *Error `json:"error,omitempty"`
}
