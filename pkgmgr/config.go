package pkgmgr

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

// maxFile is the size in bytes that no config and no recipe has.
const maxFile = 4 << 20

// Load reads a config file: YAML if its name ends in .yaml or .yml, else TOML.
//
// Every error is an [*operations.Error]: [operations.CodeNotFound] if there is
// no such file, [operations.CodeConfigInvalid] with all problems, in the order
// of the file, if it is wrong, and [operations.CodeFailed] if it cannot be read.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonConfigMissing, Subject: operations.SubjectFile.Named(path), Message: fmt.Sprintf("there is no config file %s", path), Err: err}
	case err != nil:
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Subject: operations.SubjectFile.Named(path), Message: fmt.Sprintf("cannot read the config file: %v", err), Err: err}
	}
	c, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	c.Path = path
	return c, nil
}

// readFile reads a file that a person wrote, and refuses one too large to be it.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d MiB", path, maxFile>>20)
	}
	return data, err
}

// Parse reads a config from memory. The name tells the syntax, as for [Load],
// and stands in the problems. A config without any hive is valid. The error is
// an [*operations.Error] with [operations.CodeConfigInvalid] and all problems.
func Parse(name string, data []byte) (*Config, error) {
	var file configFile
	problems := strict.Read(syntaxOf(name), data, &file)
	c, more := file.config()
	problems = append(problems, more...)
	if len(problems) == 0 {
		return c, nil
	}
	strict.Sort(problems)
	alias := func(item int) string {
		if item >= 0 && item < len(file.Hives.V) && ValidAlias(file.Hives.V[item].Alias.V) {
			return file.Hives.V[item].Alias.V
		}
		return ""
	}
	return nil, invalid(operations.ReasonConfigInvalid, name+" is not a valid config", toProblems(name, problems, alias))
}

func syntaxOf(name string) strict.Syntax {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml":
		return strict.YAML
	default:
		return strict.TOML
	}
}

// toProblems gives problems the file's name, and the hive's where hive, if not
// nil, knows it.
func toProblems(file string, found []strict.Problem, hive func(item int) string) []operations.Problem {
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

func invalid(reason operations.Reason, message string, problems []operations.Problem) *operations.Error {
	count := "1 problem"
	if len(problems) != 1 {
		count = fmt.Sprintf("%d problems", len(problems))
	}
	return &operations.Error{Code: operations.CodeConfigInvalid, Reason: reason, Message: message + ": " + count, Problems: problems}
}
