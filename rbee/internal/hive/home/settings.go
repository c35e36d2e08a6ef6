package home

import (
	"errors"
	"os"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// Settings returns the stored settings of the hive. A missing file is an error.
func (d *Dir) Settings() (*wire.Settings, error) {
	var s wire.Settings
	if err := statefile.Read(d.Path(SettingsFile), &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// defaultPort is the port of the daemon if the settings contain no port.
const defaultPort = 8600

// Port returns the port on which the daemon listens. It fails if the settings need a newer
// rbee.
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

// Getenv returns an environment variable of this process. For HOME it returns
// [Dir.UserHome].
func (d *Dir) Getenv(name string) string {
	if name == "HOME" {
		home, _ := d.UserHome()
		return home
	}
	return os.Getenv(name)
}

// Paths of worker records and logs below the rbee directory.
const (
	WorkerRecords = wire.RunDir + "/workers"
	WorkerLogs    = wire.LogsDir + "/workers"
)
