package strict

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// ReadFile reads a file that a person wrote, and refuses one too large to be it.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("%s has more than %d MiB", path, MaxFile>>20)
	}
	return data, err
}

func SyntaxOf(name string) Syntax {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml":
		return YAML
	default:
		return TOML
	}
}

// Problems gives problems the file's name, and the hive's where hive, if not
// nil, knows it.
func Problems(file string, found []Problem, hive func(item int) string) []operations.Problem {
	var problems []operations.Problem
	for _, p := range found {
		o := operations.Problem{File: file, Line: p.Line, Column: p.Column, Message: p.Message, Hint: p.Hint}
		if hive != nil {
			o.Hive = hive(p.Item)
		}
		problems = append(problems, o)
	}
	return problems
}

// Invalid returns the error of a file with problems.
func Invalid(reason operations.Reason, message string, problems []operations.Problem) *operations.Error {
	count := "1 problem"
	if len(problems) != 1 {
		count = fmt.Sprintf("%d problems", len(problems))
	}
	return &operations.Error{Code: operations.CodeConfigInvalid, Reason: reason, Message: message + ": " + count, Problems: problems}
}

// MaxFile is the size in bytes that no config and no recipe has.
const MaxFile = 4 << 20
