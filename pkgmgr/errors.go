package pkgmgr

import (
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
)

// errNoBinaries reports that rbee cannot be installed without [Options.Binaries].
var errNoBinaries = &operations.Error{
	Code: operations.CodeFailed, Reason: operations.ReasonNoBinary, Message: "cannot install rbee: Options.Binaries is nil",
}

// buildMismatchError reports that a plan requires a different build of rbee than this fleet
// has for the platform.
type buildMismatchError struct {
	Version   string // of the build that the plan requires
	Want, Got string // SHA-256 of the builds
}

func (e *buildMismatchError) Error() string {
	return fmt.Sprintf("the plan requires rbee %s with SHA-256 %s, but this build has SHA-256 %s", e.Version, e.Want, e.Got)
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *buildMismatchError) ErrorCode() string { return string(operations.ReasonBuildMismatch) }
