package pkgmgr_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/resolve"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestReasonsOfTypedErrors checks the reason and the subject of every typed error of
// pkgmgr and the packages below it, and that both cross the wire.
func TestReasonsOfTypedErrors(t *testing.T) {
	t.Parallel()
	vllm := operations.SubjectWorker.Named("vllm")
	for _, test := range []struct {
		err     error
		reason  operations.Reason
		subject operations.Subject
	}{
		{&catalog.NoSourcesError{Type: "vllm"}, operations.ReasonUnsupported, vllm},
		{&catalog.UnknownVersionError{Type: "vllm"}, operations.ReasonUnknownVersion, vllm},
		{&catalog.NoPlatformError{Type: "vllm"}, operations.ReasonUnfitMachine, vllm},
		{&catalog.UnfitError{Type: "vllm"}, operations.ReasonUnfitMachine, vllm},
		{&lockfile.GlibcError{Type: "vllm"}, operations.ReasonUnfitMachine, vllm},
		{&resolve.NoSolutionError{Type: "vllm", Err: &uv.Error{}}, operations.ReasonNoSolution, vllm},
		{&artifact.NoBinaryError{Err: errors.New("x")}, operations.ReasonNoBinary, operations.Subject{}},
		{&fetch.APIError{Text: "x"}, operations.ReasonLookup, operations.Subject{}},
		{&fetch.MismatchError{}, operations.ReasonChecksum, operations.Subject{}},
		{plan.ErrNotLocked, operations.ReasonNotLocked, operations.Subject{}},
		{plan.ErrRecipeChanged, operations.ReasonNotLocked, operations.Subject{}},
		{&plan.LookupError{Err: errors.New("x")}, operations.ReasonLookup, operations.Subject{}},
		{&plan.LookupError{Err: &catalog.UnfitError{Type: "vllm"}}, operations.ReasonUnfitMachine, vllm},
	} {
		err := fmt.Errorf("wrapped: %w", test.err)
		if reason, subject := operations.ReasonOf(err), operations.SubjectOf(err); reason != test.reason || subject != test.subject {
			t.Errorf("%T: reason %q and subject %+v, want %q and %+v", test.err, reason, subject, test.reason, test.subject)
		}
		sent := wire.CauseOf(err).Error(err.Error())
		if reason, subject := operations.ReasonOf(sent), operations.SubjectOf(sent); reason != test.reason || subject != test.subject || sent.Error() != err.Error() {
			t.Errorf("%T over the wire: %v with reason %q and subject %+v, want %q and %+v", test.err, sent, reason, subject, test.reason, test.subject)
		}
	}
	var none *wire.Cause
	if reason := operations.ReasonOf(none.Error("x")); reason != operations.ReasonFailed {
		t.Errorf("reason without a cause = %q, want %q", reason, operations.ReasonFailed)
	}
}
