package pkgmgr

import (
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// recordWarning is a warning about a hive.
type recordWarning struct {
	Config  string `json:"config"` // absolute path of the config
	Hive    string `json:"hive"`   // alias
	Warning string `json:"warning"`
}

// Warnings returns the warnings that [Record.SetWarnings] stored for the config at
// configPath; nil for none.
func (r Record) Warnings(configPath string) ([]operations.ValidateWarning, error) {
	f, err := r.read()
	var list []operations.ValidateWarning
	for _, w := range f.Warnings {
		if w.Config == configPath {
			list = append(list, operations.ValidateWarning{Hive: w.Hive, Warning: w.Warning})
		}
	}
	return list, err
}

// SetWarnings replaces the warnings about the hives with these aliases in the config at
// configPath. It writes the file only if the warnings change.
func (r Record) SetWarnings(aliases []string, configPath string, warnings []operations.ValidateWarning) error {
	if r.Path == "" {
		return nil
	}
	if same, err := r.sameWarnings(aliases, configPath, warnings); same || err != nil {
		return err
	}
	unlock, err := atomicfile.Lock(r.Path)
	if err != nil {
		return operations.FileError(r.Path, "cannot lock the record of hives", err)
	}
	defer unlock()
	f, err := r.read()
	if err != nil {
		return err
	}
	f.Warnings = slices.DeleteFunc(f.Warnings, func(w recordWarning) bool {
		return w.Config == configPath && slices.Contains(aliases, w.Hive)
	})
	for _, w := range warnings {
		f.Warnings = append(f.Warnings, recordWarning{Config: configPath, Hive: w.Hive, Warning: w.Warning})
	}
	return r.write(f)
}

// sameWarnings reports whether the record contains exactly these warnings about the hives
// with these aliases.
func (r Record) sameWarnings(aliases []string, configPath string, warnings []operations.ValidateWarning) (bool, error) {
	stored, err := r.Warnings(configPath)
	stored = slices.DeleteFunc(stored, func(w operations.ValidateWarning) bool { return !slices.Contains(aliases, w.Hive) })
	return slices.Equal(stored, warnings), err
}

// dropWarnings removes the warnings about hives of the config at configPath.
func (f *recordFile) dropWarnings(hives []config.Hive, configPath string) {
	f.Warnings = slices.DeleteFunc(f.Warnings, func(w recordWarning) bool {
		return w.Config == configPath && slices.ContainsFunc(hives, func(h config.Hive) bool { return h.Alias == w.Hive })
	})
}
