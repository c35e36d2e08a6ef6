package pkgmgr

import (
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// recordWarning is a warning about a hive of a config.
type recordWarning struct {
	Config  string `json:"config"` // absolute path
	Hive    string `json:"hive"`   // its alias
	Warning string `json:"warning"`
}

// Warnings lists what [Record.SetWarnings] stored for the hives of the config at
// this path; nil for none.
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

// SetWarnings replaces the warnings about the hives with these aliases, which are
// of the config at this path. The file is only written if that changes it.
func (r Record) SetWarnings(aliases []string, configPath string, warnings []operations.ValidateWarning) error {
	if r.Path == "" {
		return nil
	}
	if same, err := r.sameWarnings(aliases, configPath, warnings); same || err != nil {
		return err
	}
	unlock, err := atomicfile.Lock(r.Path)
	if err != nil {
		return operations.FileError(r.Path, "locking the record of hives", err)
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

// sameWarnings reports whether the record has exactly these warnings about some
// hives.
func (r Record) sameWarnings(aliases []string, configPath string, warnings []operations.ValidateWarning) (bool, error) {
	now, err := r.Warnings(configPath)
	now = slices.DeleteFunc(now, func(w operations.ValidateWarning) bool { return !slices.Contains(aliases, w.Hive) })
	return slices.Equal(now, warnings), err
}

// dropWarnings removes the warnings about hives of a config.
func (f *recordFile) dropWarnings(hives []config.Hive, configPath string) {
	f.Warnings = slices.DeleteFunc(f.Warnings, func(w recordWarning) bool {
		return w.Config == configPath && slices.ContainsFunc(hives, func(h config.Hive) bool { return h.Alias == w.Hive })
	})
}
