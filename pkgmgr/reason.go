package pkgmgr

import (
	"errors"

	"github.com/rbee-keeper/rbee/operations"
)

// ReasonOf returns the reason and the subject of an error of this package or of a
// host; the subject may be empty. Typed errors of this package, such as [*UnfitError],
// are mapped to reasons here and nowhere else.
func ReasonOf(err error) (operations.Reason, operations.Subject) {
	worker := operations.SubjectWorker.Named
	var (
		own       *operations.Error
		noSources *NoSourcesError
		unknown   *UnknownVersionError
		platform  *NoPlatformError
		unfit     *UnfitError
		glibc     *GlibcError
		solution  *NoSolutionError
		binary    *NoBinaryError
		release   *noReleaseError
		lookup    *LookupError
	)
	switch {
	case errors.As(err, &own):
		return operations.ReasonOf(err), own.Subject
	case errors.As(err, &noSources):
		return operations.ReasonUnsupported, worker(noSources.Type)
	case errors.As(err, &unknown):
		return operations.ReasonUnknownVersion, worker(unknown.Type)
	case errors.As(err, &platform):
		return operations.ReasonUnfitMachine, worker(platform.Type)
	case errors.As(err, &unfit):
		return operations.ReasonUnfitMachine, worker(unfit.Type)
	case errors.As(err, &glibc):
		return operations.ReasonUnfitMachine, worker(glibc.Type)
	case errors.As(err, &solution):
		return operations.ReasonNoSolution, worker(solution.Type)
	case errors.As(err, &binary):
		return operations.ReasonNoBinary, operations.Subject{}
	case errors.As(err, &release):
		return operations.ReasonUnknownVersion, operations.Subject{}
	case errors.Is(err, ErrNotLocked), errors.Is(err, ErrRecipeChanged):
		return operations.ReasonNotLocked, operations.Subject{}
	case errors.Is(err, errOther):
		return operations.ReasonChecksum, operations.Subject{}
	case errors.As(err, &lookup) && operations.ReasonOf(err) == operations.ReasonFailed:
		return operations.ReasonLookup, operations.Subject{}
	default:
		return operations.ReasonOf(err), operations.Subject{}
	}
}
