package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// newBuildName returns the first unused name for a build of a version.
func (in *Installer) newBuildName(typ, version string) (string, error) {
	build := version
	for n := 2; ; n++ {
		_, err := os.Lstat(in.Store.BuildDir(typ, build))
		if errors.Is(err, fs.ErrNotExist) {
			return build, nil
		}
		if err != nil {
			return "", err
		}
		build = fmt.Sprintf("%s@%d", version, n)
	}
}

// buildsInUse returns a function that reports whether worker processes use a build of a
// type, including processes that are starting and failed processes that will be restarted.
func (in *Installer) buildsInUse(typ string) (inUse func(build string) bool, err error) {
	programs, err := workers.Programs(in.Home.Path(home.WorkerRecords), typ)
	if err != nil {
		return nil, fmt.Errorf("cannot find the running workers: %w", err)
	}
	return func(build string) bool {
		// Compare only the path below the rbee directory, because the rbee directory may
		// have been renamed.
		part := "/" + wire.WorkersDir + "/" + typ + "/" + build + "/" + installed.PayloadDir + "/"
		for _, program := range programs {
			if strings.Contains(program, part) {
				return true
			}
		}
		return false
	}, nil
}

// Prefixes of temporary directories.
const (
	stagingPrefix = ".staging-" // a build or tool that is being created or removed
	oldPrefix     = ".old-"     // a tool that is being replaced
)
