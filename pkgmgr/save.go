package pkgmgr

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// Save writes the lockfile, if it was loaded from a file. If the config was loaded from a
// file, it also records the installed and removed hives in [Options.Record].
//
// Call Save with nil between [Fleet.Plan] and [Fleet.Apply], so that the lockfile is complete
// even if the program exits during Apply. Call Save again with the result of Apply: it
// updates the record, and Apply may have changed the lockfile.
func (f *Fleet) Save(reports []operations.HiveReport) error {
	err := f.opts.Lock.Save()
	if len(reports) == 0 {
		return err
	}
	return errors.Join(err, f.updateRecord(reports))
}

// updateRecord updates the record with the current state of the machines.
func (f *Fleet) updateRecord(reports []operations.HiveReport) error {
	if f.configPath == "" { // entries belong to a config file
		return nil
	}
	path, err := filepath.Abs(f.configPath)
	if err != nil {
		return err
	}
	results := map[string]operations.HiveResult{}
	for _, r := range reports {
		results[r.Alias] = r.Status
	}
	entries, err := f.opts.Record.Entries()
	if err != nil {
		return err
	}
	var installed, removed []config.Hive
	for _, s := range f.States() {
		switch {
		case s.State == nil:
		case s.State.Rbee == nil && (results[s.Hive.Alias] == operations.HiveFailed || results[s.Hive.Alias] == operations.HiveCanceled):
			// The current state of the machine is not known: keep the entry.
		case results[s.Hive.Alias] == operations.HiveUninstalled, s.State.Rbee == nil:
			removed = append(removed, s.Hive)
		case !s.Extra && !isRecorded(entries, s.Hive, path):
			installed = append(installed, s.Hive)
		}
	}
	return f.opts.Record.Update(installed, removed, path, time.Now())
}

// isRecorded reports whether the record contains a hive with its current settings.
func isRecorded(entries []RecordEntry, h config.Hive, configPath string) bool {
	for _, e := range entries {
		if e.Alias == h.Alias && e.Hive().Address() == h.Address() && e.Config == configPath && e.HivePort == h.HivePort {
			return true
		}
	}
	return false
}
