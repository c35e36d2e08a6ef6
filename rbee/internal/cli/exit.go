package cli

import (
	"context"
	"errors"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// The program's exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitDrift       = 2
	exitInvalid     = 3
	exitUnreachable = 4
	exitLocked      = 5
	exitUsage       = 64
	exitInterrupted = 130
)

// codeUsage is the error code of wrong usage.
const codeUsage operations.Code = "usage"

// exitMeanings describes the exit codes for `rbee help exit-codes`.
var exitMeanings = []struct {
	code    int
	meaning string
}{
	{exitOK, "success"},
	{exitFailed, "failure"},
	{exitDrift, "drift found, changes pending (sync --dry-run), or hive daemon not running (hive-status)"},
	{exitInvalid, "invalid config, lockfile or recipe"},
	{exitUnreachable, "a hive or the queen is unreachable and nothing else failed"},
	{exitLocked, "a hive is locked by another run"},
	{exitUsage, "wrong usage"},
	{exitInterrupted, "interrupted"},
}

// outcomeError is the error of a command whose report was printed.
type outcomeError operations.Outcome

func (e outcomeError) Error() string { return string(e) }

// usageError is the error of an invalid command line.
type usageError struct {
	message, hint string
	code          operations.Code // "" means codeUsage
}

func (e *usageError) Error() string { return e.message }

// hintedError is an error with a hint, which replaces the hint of package ui.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// exitCode returns the exit code of the program for the error of a command.
func exitCode(err error) int {
	var outcome outcomeError
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &outcome):
		switch operations.Outcome(outcome) {
		case operations.OutcomeOK:
			return exitOK
		case operations.OutcomeDrift:
			return exitDrift
		case operations.OutcomeInvalid:
			return exitInvalid
		case operations.OutcomeUnreachable:
			return exitUnreachable
		case operations.OutcomeLocked:
			return exitLocked
		default:
			return exitFailed
		}
	}
	switch operations.CodeOf(err) {
	case operations.CodeConfigInvalid:
		return exitInvalid
	case operations.CodeUnreachable:
		return exitUnreachable
	case operations.CodeLocked:
		return exitLocked
	case operations.CodeBadOperation, operations.CodeRemovedOperation:
		return exitUsage
	case operations.CodeCanceled:
		return exitInterrupted
	default:
		return exitFailed
	}
}

// classify converts an error to an [operations.Error].
func classify(err error) *operations.Error {
	var known *operations.Error
	if errors.As(err, &known) {
		return known
	}
	e := &operations.Error{Code: operations.CodeOf(err), Reason: operations.ReasonOf(err), Subject: operations.SubjectOf(err), Message: err.Error(), Err: err}
	if errors.Is(err, context.Canceled) {
		e.Code, e.Reason = operations.CodeCanceled, operations.ReasonCanceled
	}
	return e
}

// finish prints an error that was not printed yet and returns the exit code.
func (a *app) finish(ctx context.Context, err error) int {
	var outcome outcomeError
	if err != nil && !errors.As(err, &outcome) {
		a.showError(err)
	}
	if err != nil && ctx.Err() != nil {
		return exitInterrupted
	}
	return exitCode(err)
}

// showError writes an error to stdout as JSON, or to stderr as text.
func (a *app) showError(err error) {
	e, hint := classify(err), ""
	var usage *usageError
	var hinted *hintedError
	switch {
	case errors.As(err, &usage):
		e.Code, e.Reason, hint = codeUsage, operations.ReasonUsage, usage.hint
		if usage.code != "" {
			e.Code, e.Reason = usage.code, operations.ReasonRemovedOperation
		}
	case errors.As(err, &hinted):
		hint = hinted.hint
	}
	if a.asJSON() {
		_ = ui.JSONError(a.p.Stdout, e, hint) // a write error cannot be reported
		return
	}
	_ = ui.Failure(a.p.Stderr, a.style(a.p.Stderr), e, hint)
}
