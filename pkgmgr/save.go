package pkgmgr

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// Save writes the lock, if it was loaded from a file, and notes in [Options.Record] which
// hives were installed and removed, if the config was loaded from a file. Call it with nil
// between [Fleet.Plan] and [Fleet.Apply], so that the lock has everything that hives get
// even if the program ends early, and with the result of Apply afterwards. Changes of the
// lock in a plan that another Fleet made are merged by Apply, and so saved afterwards.
func (f *Fleet) Save(reports []operations.HiveReport) error {
	err := f.opts.Lock.Save()
	if len(reports) == 0 {
		return err
	}
	return errors.Join(err, f.remember(reports))
}

// remember brings the record to what the machines are now known to be.
func (f *Fleet) remember(reports []operations.HiveReport) error {
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
			// What it was before is known, what it is now is not: nothing is forgotten.
		case results[s.Hive.Alias] == operations.HiveUninstalled, s.State.Rbee == nil:
			removed = append(removed, s.Hive)
		case !s.Extra && !onRecord(entries, s.Hive, path):
			installed = append(installed, s.Hive)
		}
	}
	return f.opts.Record.Update(installed, removed, path, time.Now())
}

func onRecord(entries []RecordEntry, h config.Hive, configPath string) bool {
	for _, e := range entries {
		if e.Alias == h.Alias && e.Hive().Address() == h.Address() && e.Config == configPath && e.HivePort == h.HivePort {
			return true
		}
	}
	return false
}
