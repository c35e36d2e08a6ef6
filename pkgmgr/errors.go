package pkgmgr

import (
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
)

// errNoBinaries is the error of an install of rbee by a fleet without a source of builds.
var errNoBinaries = &operations.Error{
	Code: operations.CodeFailed, Reason: operations.ReasonNoBinary, Message: "there is no rbee to bring to it: Options.Binaries is nil",
}

// buildMismatchError reports that a plan needs another build of rbee than the one that
// this fleet has for the platform.
type buildMismatchError struct {
	Version   string // of the build that the plan needs
	Want, Got string // SHA-256 of the builds
}

func (e *buildMismatchError) Error() string {
	return fmt.Sprintf("the plan needs rbee %s with SHA-256 %s, this rbee is %s", e.Version, e.Want, e.Got)
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *buildMismatchError) ErrorCode() string { return string(operations.ReasonOtherBuild) }
