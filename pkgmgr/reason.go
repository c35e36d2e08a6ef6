package pkgmgr

import (
	"errors"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/resolve"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// ReasonOf returns the reason and the subject of an error of this package or of a
// host; the subject may be empty. Typed errors of this package, such as [*catalog.UnfitError],
// are mapped to reasons here and nowhere else.
func ReasonOf(err error) (operations.Reason, operations.Subject) {
	worker := operations.SubjectWorker.Named
	var (
		own       *operations.Error
		noRecipe  *catalog.UnknownTypeError
		noSources *catalog.NoSourcesError
		unknown   *catalog.UnknownVersionError
		platform  *catalog.NoPlatformError
		unfit     *catalog.UnfitError
		glibc     *lockfile.GlibcError
		solution  *resolve.NoSolutionError
		binary    *artifact.NoBinaryError
		release   *resolve.NoReleaseError
		lookup    *plan.LookupError
	)
	switch {
	case errors.As(err, &own):
		return operations.ReasonOf(err), own.Subject
	case errors.As(err, &noRecipe):
		return operations.ReasonUnknownRecipe, worker(noRecipe.Type)
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
	case errors.Is(err, plan.ErrNotLocked), errors.Is(err, plan.ErrRecipeChanged):
		return operations.ReasonNotLocked, operations.Subject{}
	case errors.As(err, &lookup) && operations.ReasonOf(err) == operations.ReasonFailed:
		return operations.ReasonLookup, operations.Subject{}
	default:
		return operations.ReasonOf(err), operations.Subject{}
	}
}
