package model

import (
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
)

func notFound(format string, args ...any) error {
	return &operations.Error{Code: operations.CodeNotFound, Message: fmt.Sprintf(format, args...)}
}

func failure(err error, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeFailed, Message: fmt.Sprintf(format, args...), Err: err}
}
