package strict

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// ReadFile reads a config or recipe file. It returns an error if the file is larger than
// [MaxFile].
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("%s is larger than %d MiB", path, MaxFile>>20)
	}
	return data, err
}

// SyntaxOf returns the syntax of a file: YAML if its name ends in .yaml or .yml, else TOML.
func SyntaxOf(name string) Syntax {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml":
		return YAML
	default:
		return TOML
	}
}

// Problems converts the problems of a file. If hive is not nil, it returns the name of the hive
// for a [Problem].Item.
func Problems(file string, problems []Problem, hive func(item int) string) []operations.Problem {
	var result []operations.Problem
	for _, p := range problems {
		o := operations.Problem{File: file, Line: p.Line, Column: p.Column, Message: p.Message, Hint: p.Hint}
		if hive != nil {
			o.Hive = hive(p.Item)
		}
		result = append(result, o)
	}
	return result
}

// Invalid returns the error for a file with problems. It appends the number of problems to
// the message.
func Invalid(reason operations.Reason, message string, problems []operations.Problem) *operations.Error {
	count := "1 problem"
	if len(problems) != 1 {
		count = fmt.Sprintf("%d problems", len(problems))
	}
	return &operations.Error{Code: operations.CodeConfigInvalid, Reason: reason, Message: message + ": " + count, Problems: problems}
}

// MaxFile is the maximum size of a config or recipe file, in bytes.
const MaxFile = 4 << 20
