// Package config reads and writes hives.conf, the desired state of a fleet: its hives and
// the workers to install on each hive.
//
// [Load] and [Parse] accept TOML and YAML. They are strict: an unknown key is an error. They
// report all problems with line, column and a hint. [Format] writes a config.
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
// Every error is an [*operations.Error]: [operations.CodeNotFound] if the file does not
// exist, [operations.CodeConfigInvalid] with all problems in the order of the file, or
// [operations.CodeFailed] if the file cannot be read.
func Load(path string) (*Config, error) {
	data, err := strict.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonConfigMissing, Subject: operations.SubjectFile.WithName(path), Message: fmt.Sprintf("config file %s does not exist", path), Err: err}
	case err != nil:
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Subject: operations.SubjectFile.WithName(path), Message: fmt.Sprintf("cannot read config file: %v", err), Err: err}
	}
	c, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	c.Path = path
	return c, nil
}

// Parse parses a config. The name of the file determines the syntax, as for [Load], and is part
// of each problem. A config without hives is valid. The error is an [*operations.Error] with
// [operations.CodeConfigInvalid] and all problems.
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
	return nil, strict.Invalid(operations.ReasonConfigInvalid, "invalid config "+name, strict.Problems(name, problems, alias))
}

// Config is the desired state of a fleet: its hives and their workers. [Load] and [Parse]
// return a valid Config.
type Config struct {
	// Path is the path of the config file; empty for a config created in memory.
	Path string

	// Hives are in the order of the file.
	Hives []Hive
}
