package pkgmgr

import (
	"context"
	"errors"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
)

// hiveError returns err as an [*operations.Error] of a hive. Its code is
// [operations.CodeCanceled] if err is [context.Canceled], else code. If uv failed, the
// error includes the output of uv.
func hiveError(h config.Hive, code operations.Code, err error) *operations.Error {
	reason, subject := operations.ReasonOf(err), operations.SubjectOf(err)
	switch {
	case errors.Is(err, context.Canceled):
		code, reason = operations.CodeCanceled, operations.ReasonCanceled
	case code == operations.CodeUnreachable && reason == operations.ReasonFailed:
		reason = operations.ConnectionReason(err)
	}
	if subject == (operations.Subject{}) {
		subject = operations.SubjectHive.WithName(h.Alias)
	}
	e := &operations.Error{Code: code, Reason: reason, Subject: subject, Hive: h.Alias, Message: err.Error(), Err: err}
	var uvErr *uv.Error
	if errors.As(err, &uvErr) {
		e.Detail = uvErr.Output
	}
	return e
}

// stepError returns the error of a failed step. Its subject is the subject of err or, if
// err has none, the worker of the step.
func stepError(h config.Hive, step operations.Step, err error) *operations.Error {
	e := hiveError(h, operations.CodeFailed, err)
	if step.Worker != "" && e.Subject.Kind == operations.SubjectHive {
		e.Subject = operations.SubjectWorker.WithName(step.Worker)
	}
	return e
}
