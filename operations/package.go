package operations

import "strings"

// Scope says which hives of a config an operation is about, and how many of
// them are worked on at once. The zero value means all hives.
type Scope struct {
	// ConfigPath is the config file; empty means the default place,
	// hives.conf in the user's rbee config directory.
	ConfigPath string `json:"config_path,omitempty"`

	// Hives limits the operation to these aliases. Empty means all.
	Hives Aliases `json:"hive_alias,omitzero"`

	// Labels limits the operation to hives that carry all of these labels.
	Labels []string `json:"labels,omitempty"`

	// Parallel is how many hives are worked on at once; 0 lets rbee choose.
	Parallel int `json:"parallel,omitempty"`
}

func (s Scope) validate(kind Kind) error {
	if s.Parallel < 0 {
		return badOperation("%s: field \"parallel\" is %d, want 0 (rbee chooses) or more", kind, s.Parallel)
	}
	for _, alias := range s.Hives {
		if alias == "" {
			return badOperation("%s: field \"hive_alias\" holds an empty alias", kind)
		}
	}
	return nil
}

// Change says how an operation changes machines. The zero value is the default.
type Change struct {
	// Push makes the queen fetch what recipes name by URL and send it to the
	// hives, for hives without a way to the internet.
	Push bool `json:"push,omitempty"`

	// BundlePath is a file that [PackageBundle] wrote. All that is installed is
	// taken from it and sent, so that nothing is fetched from anywhere. Empty for
	// none.
	BundlePath string `json:"bundle_path,omitempty"`

	// LockWaitSeconds is how long to wait for a hive on which another run
	// works: 0 means 30 seconds, a negative number not to wait.
	LockWaitSeconds float64 `json:"lock_wait_seconds,omitempty"`
}

// PackageSync brings hives to what the config says: missing and outdated hives
// and workers are installed, and hives with auto_start are started. It ends in
// a [*SyncReport].
type PackageSync struct {
	Scope
	Change

	// DryRun plans and changes nothing: the report holds the plan.
	DryRun bool `json:"dry_run"`

	// RemoveExtra also removes hives and workers that the config does not name.
	RemoveExtra bool `json:"remove_extra"`

	// Force installs again what is installed already.
	Force bool `json:"force"`

	// Downgrade replaces the rbee of hives that have a newer one than the caller.
	// Without it they keep theirs.
	Downgrade bool `json:"downgrade,omitempty"`

	// Upgrade looks for newer versions than those that the lock beside the config
	// holds, of the worker types in UpgradeWorkers, or of all if that is empty.
	Upgrade        bool     `json:"upgrade,omitempty"`
	UpgradeWorkers []string `json:"upgrade_workers,omitempty"`
}

// PackageInstall is a [PackageSync] that never removes anything.
type PackageInstall struct {
	Scope
	Change

	// Force installs again what is installed already.
	Force bool `json:"force"`
}

// Sync is the sync that an install stands for.
func (o PackageInstall) Sync() PackageSync {
	return PackageSync{Scope: o.Scope, Change: o.Change, Force: o.Force}
}

// PackageStatus finds every difference between hives and config and changes
// nothing. It ends in a [*StatusReport].
type PackageStatus struct {
	Scope

	// Verbose adds what each hive has to the report.
	Verbose bool `json:"verbose"`

	// Deep reads installed files again, compares their checksums, and runs the
	// verify commands of workers. That takes as long as those do.
	Deep bool `json:"deep,omitempty"`
}

// PackageUninstall stops hives and removes all of rbee from their machines. It
// ends in an [*UninstallReport]. Without hives named, it covers the config's
// hives and those on record that were installed from it.
type PackageUninstall struct {
	Scope

	// Purge removes the config file, the user's own recipes and the records
	// of hives from this machine too. It is refused together with a
	// selection of hives.
	Purge bool `json:"purge"`

	// Downgrade also removes hives that have a newer rbee than the caller, which does not
	// understand it: that rbee is replaced first.
	Downgrade bool `json:"downgrade,omitempty"`

	// LockWaitSeconds is as in [Change].
	LockWaitSeconds float64 `json:"lock_wait_seconds,omitempty"`
}

// PackageValidate checks a config: its syntax, and each hive's name, SSH,
// worker types and versions, GPU and disk. It ends in a [*ValidateReport].
type PackageValidate struct {
	Scope
}

// PackageMigrate writes a config from what machines have. It looks at the hives
// on record, those of the config, and the hosts named here. It ends in a
// [*MigrateReport].
type PackageMigrate struct {
	// OutputPath is the file to write, or a directory (an existing one, or a
	// path that ends in a slash) in which hives.conf is written. Required.
	OutputPath string `json:"output_path"`

	// ConfigPath is as in [Scope]; a config that does not exist is no error.
	ConfigPath string `json:"config_path,omitempty"`

	// SSHConfig is a pattern of aliases in the user's ssh_config, such as "gpu-*".
	SSHConfig string `json:"ssh_config,omitempty"`

	// Hosts are further hosts to look at, each [user@]host[:port].
	Hosts []string `json:"hosts,omitempty"`

	// Parallel is as in [Scope].
	Parallel int `json:"parallel,omitempty"`

	// Force overwrites a file that exists.
	Force bool `json:"force,omitempty"`
}

// RollbackRbee is the Worker of a [PackageRollback] that restores the previous rbee of a
// hive.
const RollbackRbee = "rbee"

// PackageRollback makes the version of a worker type that a hive had before be the
// one that is installed there. The hive keeps it until the type is upgraded. With
// [RollbackRbee] as Worker it restores the previous rbee of the hive, and restarts the
// daemon if it runs; the next sync replaces that rbee again unless it is newer. It
// ends in a [*RollbackReport].
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

// PackageBundle writes all that a config needs into one file, from which a
// machine without the internet can install it: rbee for each platform, and every
// artifact of the workers. It ends in a [*BundleReport].
type PackageBundle struct {
	Scope

	// OutputPath is the file to write. Required.
	OutputPath string `json:"output_path"`

	// Platforms are os/arch pairs, such as "linux/amd64". For a hive that cannot
	// be read, every variant of its workers for these is put in; empty means
	// linux/amd64.
	Platforms []string `json:"platforms,omitempty"`

	// Force overwrites a file that exists.
	Force bool `json:"force,omitempty"`
}

// Kind is [KindPackageRollback].
func (PackageRollback) Kind() Kind { return KindPackageRollback }

// Kind is [KindPackageBundle].
func (PackageBundle) Kind() Kind { return KindPackageBundle }

// Validate implements [Operation].
func (o PackageRollback) Validate() error {
	return require(o.Kind(), "hive_alias", o.Hive, "worker", o.Worker)
}

// Validate implements [Operation].
func (o PackageBundle) Validate() error {
	for _, p := range o.Platforms {
		if system, arch, ok := strings.Cut(p, "/"); !ok || system == "" || arch == "" {
			return badOperation("%s: platform %q is none, want such as linux/amd64", o.Kind(), p)
		}
	}
	if err := require(o.Kind(), "output_path", o.OutputPath); err != nil {
		return err
	}
	return o.Scope.validate(o.Kind())
}

// MarshalJSON writes the wire form.
func (o PackageRollback) MarshalJSON() ([]byte, error) {
	type fields PackageRollback
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o PackageBundle) MarshalJSON() ([]byte, error) {
	type fields PackageBundle
	return tagged(o.Kind(), fields(o))
}

// Kind is [KindPackageSync].
func (PackageSync) Kind() Kind { return KindPackageSync }

// Kind is [KindPackageInstall].
func (PackageInstall) Kind() Kind { return KindPackageInstall }

// Kind is [KindPackageStatus].
func (PackageStatus) Kind() Kind { return KindPackageStatus }

// Kind is [KindPackageUninstall].
func (PackageUninstall) Kind() Kind { return KindPackageUninstall }

// Kind is [KindPackageValidate].
func (PackageValidate) Kind() Kind { return KindPackageValidate }

// Kind is [KindPackageMigrate].
func (PackageMigrate) Kind() Kind { return KindPackageMigrate }

// Validate implements [Operation].
func (o PackageSync) Validate() error {
	switch {
	case len(o.UpgradeWorkers) > 0 && !o.Upgrade:
		return badOperation("%s: field \"upgrade_workers\" goes with upgrade only", o.Kind())
	case o.Upgrade && o.BundlePath != "":
		return badOperation("%s: a bundle has the versions that it has: upgrade does not go with it", o.Kind())
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
		return badOperation("%s: purge removes the config, so it goes with all hives only", o.Kind())
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

// MarshalJSON writes the wire form.
func (o PackageSync) MarshalJSON() ([]byte, error) {
	type fields PackageSync
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o PackageInstall) MarshalJSON() ([]byte, error) {
	type fields PackageInstall
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o PackageStatus) MarshalJSON() ([]byte, error) {
	type fields PackageStatus
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o PackageUninstall) MarshalJSON() ([]byte, error) {
	type fields PackageUninstall
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o PackageValidate) MarshalJSON() ([]byte, error) {
	type fields PackageValidate
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o PackageMigrate) MarshalJSON() ([]byte, error) {
	type fields PackageMigrate
	return tagged(o.Kind(), fields(o))
}
