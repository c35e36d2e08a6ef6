package operations

// Issue is a kind of drift: one way in which a hive differs from the config.
type Issue string

// The kinds of drift.
const (
	IssueMissingHive    Issue = "missing_hive"     // in the config, rbee is not on the machine
	IssueExtraHive      Issue = "extra_hive"       // rbee was installed there, the config does not name it
	IssueOutdatedHive   Issue = "outdated_hive"    // another rbee or other settings than wanted
	IssueNewerHive      Issue = "newer_hive"       // the rbee of the hive is newer than this one
	IssueHiveNotRunning Issue = "hive_not_running" // auto_start is set, the daemon does not answer
	IssueMissingWorker  Issue = "missing_worker"   // in the config, not installed
	IssueExtraWorker    Issue = "extra_worker"     // installed, not in the config
	IssueOutdatedWorker Issue = "outdated_worker"  // another version or another source than wanted
	IssueCorruptWorker  Issue = "corrupt_worker"   // installed files are missing or changed
	IssueUnreachable    Issue = "unreachable"      // the hive could not be read; nothing is known of it
)

// Drift is one difference between a hive and the config.
type Drift struct {
	// Hive is the alias of the hive.
	Hive string `json:"hive"`

	// Issue is the kind of difference.
	Issue Issue `json:"issue"`

	// Worker is the worker type, for drift of a worker; else empty.
	Worker string `json:"worker,omitempty"`

	// Details describes the difference in words.
	Details string `json:"details"`

	// Error is why the hive is unreachable; nil for every other issue.
	Error *Error `json:"error,omitempty"`
}

// Action is what one step of a plan does to a hive.
type Action string

// The actions, in the order in which they are done on one hive.
const (
	ActionInstallHive   Action = "install_hive"   // bring rbee to a machine without it
	ActionUpdateHive    Action = "update_hive"    // replace the machine's rbee
	ActionConfigureHive Action = "configure_hive" // change the hive's settings
	ActionRemoveWorker  Action = "remove_worker"  // remove a worker
	ActionInstallWorker Action = "install_worker" // install a worker that is missing
	ActionUpdateWorker  Action = "update_worker"  // replace a worker by another version, or repair it

	ActionRollbackHive   Action = "rollback_hive"   // restore the rbee that the machine had before
	ActionRollbackWorker Action = "rollback_worker" // go back to the version before

	ActionStartHive  Action = "start_hive"  // start the daemon, or restart it as another one
	ActionStopHive   Action = "stop_hive"   // stop the daemon
	ActionRemoveHive Action = "remove_hive" // stop the daemon and remove all of rbee
)

// Step is one change to one hive.
type Step struct {
	// Hive is the alias of the hive.
	Hive string `json:"hive"`

	// Action is what is done.
	Action Action `json:"action"`

	// Worker is the worker type, for steps on a worker; else empty.
	Worker string `json:"worker,omitempty"`

	// From and Version are the version before and after; empty where there is
	// none or it is not known.
	From    string `json:"from,omitempty"`
	Version string `json:"version,omitempty"`

	// Variant is which of a recipe's sources is installed, and VariantReason why
	// it is that one; empty where there is no choice.
	Variant       string `json:"variant,omitempty"`
	VariantReason string `json:"variant_reason,omitempty"`

	// Reason says why the step is needed.
	Reason string `json:"reason"`

	// Bytes is how many bytes go to the hive for this step, from this machine
	// or by its own download, as far as it is known beforehand; 0 if nothing
	// does or it is not known.
	Bytes int64 `json:"bytes,omitempty"`

	// Digest identifies what is installed, as a SHA-256 in hex: for rbee that of the
	// binary, for a worker that of the installation. Empty where nothing is installed,
	// or where it is not known beforehand.
	Digest string `json:"digest,omitempty"`

	// DownloadBytes is the part of Bytes that the hive downloads itself; the rest is
	// sent to it.
	DownloadBytes int64 `json:"download_bytes,omitempty"`
}

// Plan is the decision what to do, made before anything is done: sorted by
// hive, and within a hive in the order of doing.
type Plan struct {
	// Steps are the changes; empty when nothing needs to change.
	Steps []Step `json:"steps"`

	// Drift is every difference that was found, whether a step mends it or not.
	Drift []Drift `json:"drift"`

	// Blocked are the wishes that no step can fulfil, such as a worker type
	// whose recipe has no way to install it.
	Blocked []Blocked `json:"blocked,omitempty"`

	// Upgrades are the wishes that stand for another version, or for other files
	// of the same one, from now on.
	Upgrades []Upgrade `json:"upgrades,omitempty"`
}

// Upgrade is a wish of the config, such as "latest", that stands for another
// version than the lock said, or for other files of the same version because the
// recipe's steps have changed.
type Upgrade struct {
	Worker    string `json:"worker"`
	Requested string `json:"requested"` // for the tool "python" the version of Python that is wanted

	// From and To are versions. Where they are the same, what differs follows in
	// parentheses, such as "1.0 (wax 1.1)".
	From string `json:"from"`
	To   string `json:"to"`
}

// Blocked is something the config wants and rbee cannot do.
type Blocked struct {
	// Hive is the alias of the hive.
	Hive string `json:"hive"`

	// Worker is the worker type, if it concerns one; else empty.
	Worker string `json:"worker,omitempty"`

	// Reason says why it cannot be done and what would help.
	Reason string `json:"reason"`

	// Detail is the complete output of the program that failed, in several lines;
	// empty if there is none. It holds no passwords.
	Detail string `json:"detail,omitempty"`

	// Error is the same as an error, with its code, reason and subject.
	Error *Error `json:"error,omitempty"`
}
