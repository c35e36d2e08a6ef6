package pkgmgr_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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
// pkgmgr and the packages below it, and that package wire preserves both.
func TestReasonsOfTypedErrors(t *testing.T) {
	t.Parallel()
	vllm := operations.SubjectWorker.WithName("vllm")
	for _, tt := range []struct {
		err     error
		reason  operations.Reason
		subject operations.Subject
	}{
		{&catalog.NoSourcesError{Type: "vllm"}, operations.ReasonUnsupported, vllm},
		{&catalog.UnknownVersionError{Type: "vllm"}, operations.ReasonUnknownVersion, vllm},
		{&catalog.UnsupportedPlatformError{Type: "vllm"}, operations.ReasonIncompatibleMachine, vllm},
		{&catalog.UnsupportedMachineError{Type: "vllm"}, operations.ReasonIncompatibleMachine, vllm},
		{&lockfile.GlibcError{Type: "vllm"}, operations.ReasonIncompatibleMachine, vllm},
		{&resolve.NoSolutionError{Type: "vllm", Err: &uv.Error{}}, operations.ReasonNoSolution, vllm},
		{&artifact.NoBinaryError{Err: errors.New("x")}, operations.ReasonNoBinary, operations.Subject{}},
		{&fetch.APIError{Text: "x"}, operations.ReasonLookup, operations.Subject{}},
		{&fetch.MismatchError{}, operations.ReasonChecksum, operations.Subject{}},
		{plan.ErrNotLocked, operations.ReasonNotLocked, operations.Subject{}},
		{plan.ErrRecipeChanged, operations.ReasonNotLocked, operations.Subject{}},
		{&plan.LookupError{Err: errors.New("x")}, operations.ReasonLookup, operations.Subject{}},
		{&plan.LookupError{Err: &catalog.UnsupportedMachineError{Type: "vllm"}}, operations.ReasonIncompatibleMachine, vllm},
	} {
		err := fmt.Errorf("wrapped: %w", tt.err)
		if reason, subject := operations.ReasonOf(err), operations.SubjectOf(err); reason != tt.reason || subject != tt.subject {
			t.Errorf("%T: reason %q and subject %+v, want %q and %+v", tt.err, reason, subject, tt.reason, tt.subject)
		}
		sent := wire.CauseOf(err).Error(err.Error())
		if reason, subject := operations.ReasonOf(sent), operations.SubjectOf(sent); reason != tt.reason || subject != tt.subject || sent.Error() != err.Error() {
			t.Errorf("%T over the wire: %v with reason %q and subject %+v, want %q and %+v", tt.err, sent, reason, subject, tt.reason, tt.subject)
		}
	}
	var none *wire.Cause
	if reason := operations.ReasonOf(none.Error("x")); reason != operations.ReasonFailed {
		t.Errorf("reason without a cause = %q, want %q", reason, operations.ReasonFailed)
	}
}

// TestReasonsOfDownloads checks that a failed download has the reason of its cause, if the
// cause has one.
func TestReasonsOfDownloads(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		cause error
		want  operations.Reason
	}{
		{"status 404", &fetch.StatusError{Status: 404}, operations.ReasonDownload},
		{"stall", &fetch.StallError{Limit: time.Minute}, operations.ReasonDownload},
		{"connection refused", syscall.ECONNREFUSED, operations.ReasonDownload},
		{"wrong content", &fetch.MismatchError{}, operations.ReasonChecksum},
		{"full disk", syscall.ENOSPC, operations.ReasonDiskFull},
		{"file permissions", syscall.EACCES, operations.ReasonPermissionDenied},
		{"canceled", context.Canceled, operations.ReasonCanceled},
	} {
		if got := operations.ReasonOf(&fetch.TransferError{Name: "x", Err: tt.cause}); got != tt.want {
			t.Errorf("%s: ReasonOf(TransferError) = %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestReasonOfDownload checks the reason of a download from a server without the file, and
// from an address without a server.
func TestReasonOfDownload(t *testing.T) {
	t.Parallel()
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	stopped := httptest.NewServer(http.NotFoundHandler())
	stopped.Close()
	for name, address := range map[string]string{"404": empty.URL, "connection refused": stopped.URL} {
		err := new(fetch.Client).Download(t.Context(), fetch.File{URL: address, Sum: strings.Repeat("1", 64), Path: filepath.Join(t.TempDir(), "x")})
		if got := operations.ReasonOf(err); err == nil || got != operations.ReasonDownload {
			t.Errorf("%s: ReasonOf(Download()) = %q, want %q; %v", name, got, operations.ReasonDownload, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := new(fetch.Client).Download(ctx, fetch.File{URL: empty.URL, Sum: strings.Repeat("1", 64), Path: filepath.Join(t.TempDir(), "x")})
	if got := operations.ReasonOf(err); got != operations.ReasonCanceled {
		t.Errorf("canceled: ReasonOf(Download()) = %q, want %q; %v", got, operations.ReasonCanceled, err)
	}
}
