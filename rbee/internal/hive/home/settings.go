package home

import (
	"errors"
	"os"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// Settings returns what the hive was last told. It fails if it was never told.
func (d *Dir) Settings() (*wire.Settings, error) {
	var s wire.Settings
	if err := statefile.Read(d.Path(SettingsFile), &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// defaultPort is the port of a hive that was told none.
const defaultPort = 8600

// Port returns where the daemon is to listen. It fails if a newer rbee wrote the settings
// so that this one cannot read them.
func (d *Dir) Port() (int, error) {
	s, err := d.Settings()
	var newer *wire.NewerSchemaError
	switch {
	case errors.As(err, &newer):
		return 0, err
	case err == nil && s.HivePort != 0:
		return s.HivePort, nil
	}
	return defaultPort, nil
}

// Getenv returns a variable of this process's environment, with HOME as [Dir.UserHome].
func (d *Dir) Getenv(name string) string {
	if name == "HOME" {
		home, _ := d.UserHome()
		return home
	}
	return os.Getenv(name)
}

// Places of the workers below the home.
const (
	WorkerRecords = wire.RunDir + "/workers"
	WorkerLogs    = wire.LogsDir + "/workers"
)
