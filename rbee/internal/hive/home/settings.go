package home

import (
	"os"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/atomicfile"
)

// Settings are what the hive was last told; nil if never.
func (d *Dir) Settings() (*wire.Settings, error) {
	var s wire.Settings
	if err := atomicfile.ReadJSON(d.Path(SettingsFile), &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// defaultPort is the port of a hive that was told none.
const defaultPort = 8600

// Port is where the daemon is to listen.
func (d *Dir) Port() int {
	if s, err := d.Settings(); err == nil && s.HivePort != 0 {
		return s.HivePort
	}
	return defaultPort
}

func (d *Dir) Getenv(name string) string {
	if name == "HOME" {
		home, _ := d.UserHome()
		return home
	}
	return os.Getenv(name)
}

const WorkerRecords = wire.RunDir + "/workers"

// Places of the runtime below the home.
const (
	WorkerLogs = wire.LogsDir + "/workers"
)
