package model

import (
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
)

func notFound(reason operations.Reason, model, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeNotFound, Reason: reason, Subject: operations.SubjectModel.Named(model), Message: fmt.Sprintf(format, args...)}
}

func failure(reason operations.Reason, model string, err error, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectModel.Named(model), Message: fmt.Sprintf(format, args...), Err: err}
}
