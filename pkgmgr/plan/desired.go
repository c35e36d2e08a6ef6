package plan

import (
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Desired is the part of the desired state that is not in the config: the builds of
// rbee, and the versions that the workers in the config resolve to.
type Desired struct {
	// Version is the version of rbee that hives should run.
	Version string

	// Binaries contains the build of rbee for each platform, by [wire.Platform.Key].
	// If a platform is missing, its hives are compared by Version only.
	Binaries map[string]DesiredBinary

	// Workers contains the resolved version of each worker in the config.
	Workers map[WorkerKey]DesiredWorker
}

// binary returns the build of rbee for a machine, or the zero value if it is not known.
func (d *Desired) binary(s *wire.State) DesiredBinary { return d.Binaries[s.Platform.Key()] }

// DesiredBinary is the build of rbee for one platform, or the reason why it is not
// available.
type DesiredBinary struct {
	Version string
	SHA256  string // in hex
	Size    int64  // of the binary, in bytes

	// Err is the reason why no binary is available. The other fields are empty then.
	Err error
}

// WorkerKey identifies a worker in the config of a hive.
type WorkerKey struct{ Hive, Type string }

// DesiredWorker is the resolved version of a worker in the config, or the reason why it
// cannot be installed.
type DesiredWorker struct {
	// Version is the exact version. Variant is the name of the chosen source of the
	// recipe, and Reason explains the choice. Variant and Reason may be empty.
	Version         string
	Variant, Reason string

	// Pinned means that a rollback pinned the worker of the hive to this version.
	//
	// Unpin means that the worker is pinned to another version. Installing this version
	// removes the pin.
	Pinned, Unpin bool

	// SHA256 identifies the installed files, as [wire.Digest] of Steps and Entry. For
	// a server inside rbee it is the SHA-256 of the rbee binary, which is empty if the
	// binary is not known.
	SHA256 string

	// Steps are the install steps and Entry is the path of the program. The client sends
	// artifacts without a URL to the hive.
	Steps []wire.InstallStep
	Entry string

	// Files maps the SHA-256 of artifacts to files on the client. Unstable contains the
	// SHA-256 of artifacts whose URL may later return different content, such as a
	// generated archive. The client caches these artifacts and sends them to hives.
	Files    map[string]string
	Unstable map[string]bool

	// Launch contains the settings with which the hive starts the worker. If it is nil,
	// Launch and Verify are not compared.
	Launch *wire.Launch

	// Verify is the command that must succeed on the hive; nil for none.
	Verify *wire.Verify

	// Warning describes a limitation of the installation on the hive, such as an engine
	// that runs on the CPU of a machine with a GPU; empty for none.
	Warning string

	// Needs are the requirements on the machine. The zero value has none.
	Needs catalog.Needs

	// Indirect means that the config names a release that resolves to another version,
	// so that the version constraint cannot be compared with an installed version. It
	// is set only if Err is set.
	Indirect bool

	// Err is the reason why the worker cannot be installed. The other fields, except
	// Needs and Indirect, are empty then.
	Err error
}

// differs reports whether the installed files differ from the desired files. It returns
// false if the desired files are not known.
func (w *DesiredWorker) differs(have wire.Worker) bool {
	return w.SHA256 != "" && have.SHA256 != w.SHA256
}

// isBuiltin reports whether the worker is a server inside rbee.
func (w *DesiredWorker) isBuiltin() bool {
	return slices.ContainsFunc(w.Steps, func(s wire.InstallStep) bool { return s.Kind == wire.StepBuiltin })
}

// ErrNotLocked reports that the lockfile has no version for a version constraint, and that the
// version cannot be looked up because [Options.Fetch] is false.
var ErrNotLocked error = notLockedError("the version is not locked yet; run `rbee sync` to lock it")

// ErrRecipeChanged reports that the install steps of the recipe changed after the version
// was locked, and that they cannot be resolved again because [Options.Fetch] is false.
var ErrRecipeChanged error = notLockedError("the recipe changed since it was locked; run `rbee sync` to lock it again")

type notLockedError string

func (e notLockedError) Error() string { return string(e) }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e notLockedError) ErrorCode() string { return string(operations.ReasonNotLocked) }

// LookupError reports that the version or the files of a worker could not be looked up.
type LookupError struct{ Err error }

func (e *LookupError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *LookupError) Unwrap() error { return e.Err }

// ErrorCode returns the reason as text, for [operations.ReasonOf]: the reason of Err or,
// if Err has none, [operations.ReasonLookup].
func (e *LookupError) ErrorCode() string {
	if reason := operations.ReasonOf(e.Err); reason != operations.ReasonFailed {
		return string(reason)
	}
	return string(operations.ReasonLookup)
}
