package operations

import (
	"errors"
	"fmt"
	"strings"
)

// Code is the general category of an error. [Reason] is the specific cause.
type Code string

// The error codes.
const (
	CodeFailed           Code = "failed"            // the operation failed
	CodeBadOperation     Code = "bad_operation"     // the operation is invalid
	CodeRemovedOperation Code = "removed_operation" // the operation was removed from rbee
	CodeUnsupported      Code = "unsupported"       // this rbee does not support the operation
	CodeConfigInvalid    Code = "config_invalid"    // hives.conf or a recipe is invalid
	CodeNotFound         Code = "not_found"         // the hive, file, worker or model does not exist
	CodeUnreachable      Code = "unreachable"       // the hive or the queen cannot be reached
	CodeLocked           Code = "locked"            // another run holds the lock of the hive
	CodeCanceled         Code = "canceled"          // the caller canceled the operation
)

// Error is the error type of all operations. It has a JSON form.
type Error struct {
	// Code is the general category of the error.
	Code Code `json:"code"`

	// Reason is the specific cause. Every error of rbee has one.
	Reason Reason `json:"reason,omitempty"`

	// Subject is the object that the error concerns. It is the zero value if the error
	// concerns only the hive, or no object.
	Subject Subject `json:"subject,omitzero"`

	// Hive is the alias of the hive. Empty if the error does not concern a hive.
	Hive string `json:"hive,omitempty"`

	// Message states what failed and why.
	Message string `json:"message"`

	// Detail is the complete output of the program that failed. It may have several
	// lines and contains no passwords. May be empty.
	Detail string `json:"detail,omitempty"`

	// Problems lists all problems of a config, for [CodeConfigInvalid].
	Problems []Problem `json:"problems,omitempty"`

	// Err is the cause. It is not part of the JSON form. May be nil.
	Err error `json:"-"`
}

// Error returns the message, preceded by the hive and followed by the problems, if any.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Hive != "" {
		fmt.Fprintf(&b, "hive %s: ", e.Hive)
	}
	b.WriteString(e.Message)
	for _, p := range e.Problems {
		b.WriteString("\n  ")
		b.WriteString(p.String())
	}
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// FileError returns an error that concerns a local file. The message is the action that
// failed, such as "cannot read the config", followed by the text of err. The reason is
// ReasonOf(err).
func FileError(path, action string, err error) *Error {
	return &Error{Code: CodeFailed, Reason: ReasonOf(err), Subject: SubjectFile.WithName(path), Message: action + ": " + err.Error(), Err: err}
}

// CodeOf returns the code of the first [*Error] in the chain of err. It returns
// [CodeFailed] for any other error, and "" for nil.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	default:
		return CodeFailed
	}
}

// Problem is one problem in a config or recipe file.
type Problem struct {
	// File, Line and Column are the position. Line and Column start at 1; 0 means not
	// known.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`

	// Hive is the alias of the hive. Empty if the problem does not concern a hive.
	Hive string `json:"hive,omitempty"`

	// Message describes the problem.
	Message string `json:"message"`

	// Hint suggests a fix, such as the nearest known key. May be empty.
	Hint string `json:"hint,omitempty"`
}

// String returns the problem in the form "file:line:column: message (hint)". It omits
// parts that are empty.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
			if p.Column > 0 {
				fmt.Fprintf(&b, ":%d", p.Column)
			}
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		fmt.Fprintf(&b, " (%s)", p.Hint)
	}
	return b.String()
}
