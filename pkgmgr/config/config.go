// Package config reads hives.conf, the desired state of a fleet: which machines are
// hives, and which workers are installed on each.
//
// [Load] and [Parse] accept TOML and YAML, are strict (an unknown key is an error), and
// report every problem with its line, column and, where there is one, the nearest known
// key. [Format] writes a config.
package config

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

// Load reads a config file: YAML if its name ends in .yaml or .yml, else TOML.
//
// Every error is an [*operations.Error]: [operations.CodeNotFound] if there is
// no such file, [operations.CodeConfigInvalid] with all problems, in the order
// of the file, if it is wrong, and [operations.CodeFailed] if it cannot be read.
func Load(path string) (*Config, error) {
	data, err := strict.ReadFile(path)
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

// Parse reads a config from memory. The name tells the syntax, as for [Load],
// and stands in the problems. A config without any hive is valid. The error is
// an [*operations.Error] with [operations.CodeConfigInvalid] and all problems.
func Parse(name string, data []byte) (*Config, error) {
	var file configFile
	problems := strict.Read(strict.SyntaxOf(name), data, &file)
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
	return nil, strict.Invalid(operations.ReasonConfigInvalid, name+" is not a valid config", strict.Problems(name, problems, alias))
}

// Config is the desired state: which hives there are and which workers belong
// on them. [Load] and [Parse] make valid ones.
type Config struct {
	// Path is the file it was read from; empty for a config made in memory.
	Path string

	// Hives are in the order of the file.
	Hives []Hive
}
