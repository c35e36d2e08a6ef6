package operations

import (
	"errors"
	"fmt"
	"strings"
)

// Code classifies an error, so that programs need not read its words.
type Code string

// The codes of errors.
const (
	CodeFailed           Code = "failed"            // something that was tried did not work
	CodeBadOperation     Code = "bad_operation"     // the operation itself is wrong
	CodeRemovedOperation Code = "removed_operation" // rbee no longer has this operation
	CodeUnsupported      Code = "unsupported"       // this rbee cannot do it
	CodeConfigInvalid    Code = "config_invalid"    // hives.conf or a recipe is wrong
	CodeNotFound         Code = "not_found"         // a hive, file or worker that was named does not exist
	CodeUnreachable      Code = "unreachable"       // a hive cannot be reached
	CodeLocked           Code = "locked"            // another run works on the hive
	CodeCanceled         Code = "canceled"          // the caller ended the operation
)

// Error is an error as it crosses the wire: classified, about one hive or none.
type Error struct {
	// Code classifies the error.
	Code Code `json:"code"`

	// Reason states the cause within the code. Errors of rbee always have one.
	Reason Reason `json:"reason,omitempty"`

	// Subject is what the error concerns; the zero value if that is nothing in
	// particular, or the hive alone.
	Subject Subject `json:"subject,omitzero"`

	// Hive is the alias of the hive that it concerns; empty for none.
	Hive string `json:"hive,omitempty"`

	// Message says what was tried and what came back.
	Message string `json:"message"`

	// Detail is the complete output of the program that failed, in several lines;
	// empty if there is none. It holds no passwords.
	Detail string `json:"detail,omitempty"`

	// Problems lists everything that is wrong with a config, for
	// [CodeConfigInvalid].
	Problems []Problem `json:"problems,omitempty"`

	// Err is the cause, for errors.Is and errors.As in the same process.
	Err error `json:"-"`
}

// Error gives the message, with the hive before it and problems below it.
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

// Unwrap gives the cause, or nil.
func (e *Error) Unwrap() error { return e.Err }

// FileError returns an error about a file of this machine: what could not be done with
// it, and the reason that err has.
func FileError(path, what string, err error) *Error {
	return &Error{Code: CodeFailed, Reason: ReasonOf(err), Subject: SubjectFile.Named(path), Message: what + ": " + err.Error(), Err: err}
}

// CodeOf is the code of the first [*Error] in err's chain, [CodeFailed] for any
// other error, and empty for nil.
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

// Problem is one thing wrong with a file that a person wrote.
type Problem struct {
	// File, Line and Column say where; lines and columns count from 1, and 0
	// means that the place is not known.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`

	// Hive is the alias of the hive that it concerns; empty for none.
	Hive string `json:"hive,omitempty"`

	// Message says what is wrong.
	Message string `json:"message"`

	// Hint says what would be right, such as the nearest known key. May be empty.
	Hint string `json:"hint,omitempty"`
}

// String writes "file:line:column: message (hint)", leaving out what is not known.
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
