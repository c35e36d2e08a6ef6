package model

import (
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
)

// notFound returns an error with code [operations.CodeNotFound] about a model.
func notFound(reason operations.Reason, model, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeNotFound, Reason: reason, Subject: operations.SubjectModel.WithName(model), Message: fmt.Sprintf(format, args...)}
}

// failure returns an error with code [operations.CodeFailed] about a model, which wraps err.
func failure(reason operations.Reason, model string, err error, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectModel.WithName(model), Message: fmt.Sprintf(format, args...), Err: err}
}
