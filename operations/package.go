package operations

import "strings"

// Scope selects the hives of a config, and limits how many of them an operation
// processes at the same time. The zero value selects all hives.
type Scope struct {
	// ConfigPath is the path of the config file. Empty means hives.conf in the
	// user's rbee config directory.
	ConfigPath string `json:"config_path,omitempty"`

	// Hives limits the operation to these aliases. Empty means all.
	Hives Aliases `json:"hive_alias,omitzero"`

	// Labels limits the operation to hives that have all of these labels.
	Labels []string `json:"labels,omitempty"`

	// Parallel is the maximum number of hives processed at the same time. 0 lets
	// rbee choose.
	Parallel int `json:"parallel,omitempty"`
}

func (s Scope) validate(kind Kind) error {
	if s.Parallel < 0 {
		return badOperation("%s: invalid field \"parallel\": got %d, want 0 (rbee chooses) or more", kind, s.Parallel)
	}
	for _, alias := range s.Hives {
		if alias == "" {
			return badOperation("%s: field \"hive_alias\" contains an empty alias", kind)
		}
	}
	return nil
}

// Change holds the options of operations that install software on hives.
type Change struct {
	// Push makes the queen download the artifacts of recipes and send them to the
	// hives. Use it for hives without internet access.
	Push bool `json:"push,omitempty"`

	// BundlePath is the path of a bundle that [PackageBundle] wrote. If it is not
	// empty, the queen sends all artifacts from the bundle and downloads nothing.
	BundlePath string `json:"bundle_path,omitempty"`

	// LockWaitSeconds is the time to wait for the lock of a hive, in seconds. 0
	// means 30 seconds; a negative number means do not wait.
	LockWaitSeconds float64 `json:"lock_wait_seconds,omitempty"`
}

// PackageSync makes hives match the config: it installs missing and outdated hives
// and workers, and starts the daemon of hives with auto_start. Its report is a
// [*SyncReport].
type PackageSync struct {
	Scope
	Change

	// DryRun computes the plan and returns it in the report without changing a hive.
	DryRun bool `json:"dry_run"`

	// RemoveExtra also removes hives and workers that are not in the config.
	RemoveExtra bool `json:"remove_extra"`

	// Force reinstalls components that are already installed.
	Force bool `json:"force"`

	// Downgrade also replaces rbee on hives whose rbee is newer than the caller's.
	Downgrade bool `json:"downgrade,omitempty"`

	// Upgrade resolves the version constraints of the config again instead of using
	// the versions in hives.lock. It applies to the worker types in UpgradeWorkers,
	// or to all of them if UpgradeWorkers is empty.
	Upgrade        bool     `json:"upgrade,omitempty"`
	UpgradeWorkers []string `json:"upgrade_workers,omitempty"`
}

// PackageInstall is a [PackageSync] that never removes anything.
type PackageInstall struct {
	Scope
	Change

	// Force reinstalls components that are already installed.
	Force bool `json:"force"`
}

// Sync returns the equivalent [PackageSync].
func (o PackageInstall) Sync() PackageSync {
	return PackageSync{Scope: o.Scope, Change: o.Change, Force: o.Force}
}

// PackageStatus reports every difference between the hives and the config. It does
// not change anything. Its report is a [*StatusReport].
type PackageStatus struct {
	Scope

	// Verbose adds the details of each hive to the report.
	Verbose bool `json:"verbose"`

	// Deep also compares the checksums of installed files and runs the verify
	// commands of workers.
	Deep bool `json:"deep,omitempty"`
}

// PackageUninstall stops hive daemons and removes rbee from the hives. Its report is
// an [*UninstallReport]. If no hives are selected, it covers the hives of the config
// and the recorded hives that were installed from it.
type PackageUninstall struct {
	Scope

	// Purge also removes the config file, the user's recipes and the record of
	// installed hives from this machine. It cannot be combined with a selection of
	// hives.
	Purge bool `json:"purge"`

	// Downgrade also uninstalls hives whose rbee is newer than the caller's. Before
	// that, it replaces their rbee with the caller's.
	Downgrade bool `json:"downgrade,omitempty"`

	// LockWaitSeconds is as in [Change].
	LockWaitSeconds float64 `json:"lock_wait_seconds,omitempty"`
}

// PackageValidate checks a config: its syntax, and for each hive the host name, the
// SSH connection, the worker types and versions, the GPU and the free disk space. Its
// report is a [*ValidateReport].
type PackageValidate struct {
	Scope
}

// PackageMigrate generates a config from the installed state of machines. It reads the
// recorded hives, the hives of the config, and the hosts given here. Its report is a
// [*MigrateReport].
type PackageMigrate struct {
	// OutputPath is the file to write. If it is an existing directory or ends in a
	// slash, hives.conf is written in it. Required.
	OutputPath string `json:"output_path"`

	// ConfigPath is as in [Scope]. The file may be missing.
	ConfigPath string `json:"config_path,omitempty"`

	// SSHConfig is a pattern that selects hosts of the user's ssh_config, such as
	// "gpu-*".
	SSHConfig string `json:"ssh_config,omitempty"`

	// Hosts lists additional hosts, each in the form [user@]host[:port].
	Hosts []string `json:"hosts,omitempty"`

	// Parallel is as in [Scope].
	Parallel int `json:"parallel,omitempty"`

	// Force overwrites an existing file.
	Force bool `json:"force,omitempty"`
}

// RollbackRbee is the value of [PackageRollback.Worker] that rolls back rbee itself.
const RollbackRbee = "rbee"

// PackageRollback restores the previous version of a worker type on a hive. The hive
// keeps that version until the worker type is upgraded. With [RollbackRbee] as Worker,
// it restores the previous rbee of the hive and restarts the daemon if it is running;
// the next sync replaces that rbee again unless it is newer than the caller's. Its report
// is a [*RollbackReport].
type PackageRollback struct {
	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`

	// Hive is the alias of the hive, and Worker the worker type or [RollbackRbee].
	// Required.
	Hive   string `json:"hive_alias"`
	Worker string `json:"worker"`

	// LockWaitSeconds is as in [Change].
	LockWaitSeconds float64 `json:"lock_wait_seconds,omitempty"`
}

// PackageBundle writes everything that a config needs into one file: rbee for each
// platform and all artifacts of the workers. A queen without internet access can
// install hives from it (see [Change.BundlePath]). Its report is a [*BundleReport].
type PackageBundle struct {
	Scope

	// OutputPath is the file to write. Required.
	OutputPath string `json:"output_path"`

	// Platforms lists the possible platforms of hives that cannot be reached, as
	// os/arch pairs such as "linux/amd64". The bundle contains every variant of their
	// workers for these platforms. Empty means linux/amd64.
	Platforms []string `json:"platforms,omitempty"`

	// Force overwrites an existing file.
	Force bool `json:"force,omitempty"`
}

// Kind returns [KindPackageRollback].
func (PackageRollback) Kind() Kind { return KindPackageRollback }

// Kind returns [KindPackageBundle].
func (PackageBundle) Kind() Kind { return KindPackageBundle }

// Validate implements [Operation].
func (o PackageRollback) Validate() error {
	return require(o.Kind(), "hive_alias", o.Hive, "worker", o.Worker)
}

// Validate implements [Operation].
func (o PackageBundle) Validate() error {
	for _, p := range o.Platforms {
		if system, arch, ok := strings.Cut(p, "/"); !ok || system == "" || arch == "" {
			return badOperation("%s: invalid platform %q: want os/arch, such as linux/amd64", o.Kind(), p)
		}
	}
	if err := require(o.Kind(), "output_path", o.OutputPath); err != nil {
		return err
	}
	return o.Scope.validate(o.Kind())
}

// MarshalJSON returns the wire form of the operation.
func (o PackageRollback) MarshalJSON() ([]byte, error) {
	type fields PackageRollback
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o PackageBundle) MarshalJSON() ([]byte, error) {
	type fields PackageBundle
	return marshal(o.Kind(), fields(o))
}

// Kind returns [KindPackageSync].
func (PackageSync) Kind() Kind { return KindPackageSync }

// Kind returns [KindPackageInstall].
func (PackageInstall) Kind() Kind { return KindPackageInstall }

// Kind returns [KindPackageStatus].
func (PackageStatus) Kind() Kind { return KindPackageStatus }

// Kind returns [KindPackageUninstall].
func (PackageUninstall) Kind() Kind { return KindPackageUninstall }

// Kind returns [KindPackageValidate].
func (PackageValidate) Kind() Kind { return KindPackageValidate }

// Kind returns [KindPackageMigrate].
func (PackageMigrate) Kind() Kind { return KindPackageMigrate }

// Validate implements [Operation].
func (o PackageSync) Validate() error {
	switch {
	case len(o.UpgradeWorkers) > 0 && !o.Upgrade:
		return badOperation("%s: field \"upgrade_workers\" requires \"upgrade\"", o.Kind())
	case o.Upgrade && o.BundlePath != "":
		return badOperation("%s: cannot combine \"upgrade\" with \"bundle_path\": the versions in a bundle are fixed", o.Kind())
	}
	return o.Scope.validate(o.Kind())
}

// Validate implements [Operation].
func (o PackageInstall) Validate() error { return o.Scope.validate(o.Kind()) }

// Validate implements [Operation].
func (o PackageStatus) Validate() error { return o.Scope.validate(o.Kind()) }

// Validate implements [Operation].
func (o PackageUninstall) Validate() error {
	if o.Purge && (len(o.Hives) > 0 || len(o.Labels) > 0) {
		return badOperation("%s: cannot combine \"purge\" with a selection of hives: it removes the config", o.Kind())
	}
	return o.Scope.validate(o.Kind())
}

// Validate implements [Operation].
func (o PackageValidate) Validate() error { return o.Scope.validate(o.Kind()) }

// Validate implements [Operation].
func (o PackageMigrate) Validate() error {
	if strings.TrimSpace(o.OutputPath) == "" {
		return badOperation("%s: field \"output_path\" is required", o.Kind())
	}
	return Scope{Parallel: o.Parallel}.validate(o.Kind())
}

// MarshalJSON returns the wire form of the operation.
func (o PackageSync) MarshalJSON() ([]byte, error) {
	type fields PackageSync
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o PackageInstall) MarshalJSON() ([]byte, error) {
	type fields PackageInstall
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o PackageStatus) MarshalJSON() ([]byte, error) {
	type fields PackageStatus
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o PackageUninstall) MarshalJSON() ([]byte, error) {
	type fields PackageUninstall
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o PackageValidate) MarshalJSON() ([]byte, error) {
	type fields PackageValidate
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o PackageMigrate) MarshalJSON() ([]byte, error) {
	type fields PackageMigrate
	return marshal(o.Kind(), fields(o))
}
