package plan

import (
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Desired is what hives are compared with, besides their config: everything that
// had to be looked up before a decision can be made without looking anywhere.
type Desired struct {
	// Version is the version of rbee that hives shall have.
	Version string

	// Binaries holds the rbee for each platform, by [wire.Platform.Key]. For a
	// platform that is missing, hives are compared by Version alone.
	Binaries map[string]DesiredBinary

	// Workers says what each worker wish of the config comes to.
	Workers map[WorkerKey]DesiredWorker
}

// binary returns the rbee for a machine; the zero value if there is none.
func (d *Desired) binary(s *wire.State) DesiredBinary { return d.Binaries[s.Platform.Key()] }

// DesiredBinary is the rbee for one platform, or why there is none.
type DesiredBinary struct {
	Version string
	SHA256  string // in hex
	Size    int64  // of the binary, in bytes

	// Err is why no binary can be had; the other fields are empty then.
	Err error
}

// WorkerKey is one worker wish of a hive.
type WorkerKey struct{ Hive, Type string }

// DesiredWorker is what a worker wish comes to, or why it cannot be fulfilled.
type DesiredWorker struct {
	// Version is the exact version, and Variant the name of the recipe's source
	// that was chosen, with the reason for that; both may be empty.
	Version         string
	Variant, Reason string

	// Pinned says that the hive's worker is kept at this version by a rollback, and
	// EndsPin that it is kept at another one no longer, once it has this version.
	Pinned, EndsPin bool

	// SHA256 tells this install from others: [wire.Digest] of Steps. For a server
	// inside rbee it is that of the platform's rbee, and empty if that is not
	// known.
	SHA256 string

	// Steps and Entry are what the hive is told. An artifact without an address
	// comes from this machine.
	Steps []wire.InstallStep
	Entry string

	// Files are the artifacts that are files on this machine, by SHA-256. Unstable are
	// those whose address may answer with something else one day, such as an archive
	// that is generated: this machine keeps and sends them.
	Files    map[string]string
	Unstable map[string]bool

	// Launch is how the hive shall run it; nil compares nothing.
	Launch *wire.Launch

	// Verify is the command that must pass on the hive; nil for none.
	Verify *wire.Verify

	// Warning says what is less than could be expected of the machine, such as an
	// engine that runs on the CPU although there is a GPU; empty for nothing.
	Warning string

	// Needs are what the machine must have; the zero value needs nothing.
	Needs catalog.Needs

	// Indirect says that the config names a release that stands for another version,
	// so that its version constraint cannot be compared with an installed version.
	// It is set where Err is.
	Indirect bool

	// Err is why there is no way to install it; the other fields are empty then.
	Err error
}

// differs reports whether something else is installed than what is wanted, as far
// as that is known.
func (w *DesiredWorker) differs(have wire.Worker) bool {
	return w.SHA256 != "" && have.SHA256 != w.SHA256
}

// builtin reports whether a worker is a server inside rbee.
func (w *DesiredWorker) builtin() bool {
	return slices.ContainsFunc(w.Steps, func(s wire.InstallStep) bool { return s.Kind == wire.StepBuiltin })
}

// ErrNotLocked says that what a wish stands for is not known, and was not to be
// looked up.
var ErrNotLocked error = notLockedError("it is not in the lock yet; sync puts it there")

// ErrRecipeChanged says that the lock has a version as other steps of the recipe came
// to it, and that these steps were not to be looked up.
var ErrRecipeChanged error = notLockedError("the recipe's steps are others than those that were locked; sync looks them up anew")

type notLockedError string

func (e notLockedError) Error() string { return string(e) }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e notLockedError) ErrorCode() string { return string(operations.ReasonNotLocked) }

// LookupError says that what a wish stands for, or what it consists of, could not
// be asked for.
type LookupError struct{ Err error }

func (e *LookupError) Error() string { return e.Err.Error() }

// Unwrap gives what went wrong.
func (e *LookupError) Unwrap() error { return e.Err }

// ErrorCode returns the reason as text, for [operations.ReasonOf]: that of Err, if it
// has one.
func (e *LookupError) ErrorCode() string {
	if reason := operations.ReasonOf(e.Err); reason != operations.ReasonFailed {
		return string(reason)
	}
	return string(operations.ReasonLookup)
}
