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

// newBuildName is where new content of a version is put: the first build that is not
// there.
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

// buildsInUse tells from which builds of a type processes run or are being started;
// of one that failed and will be tried again, it is the build of the last try.
func (in *Installer) buildsInUse(typ string) (inUse func(build string) bool, err error) {
	programs, err := workers.Programs(in.Home.Path(home.WorkerRecords), typ)
	if err != nil {
		return nil, fmt.Errorf("finding the workers that run: %w", err)
	}
	return func(build string) bool {
		// The home may have had another name when the worker was started.
		part := "/" + wire.WorkersDir + "/" + typ + "/" + build + "/" + installed.PayloadDir + "/"
		for _, program := range programs {
			if strings.Contains(program, part) {
				return true
			}
		}
		return false
	}, nil
}

const stagingPrefix = ".staging-"

const oldPrefix = ".old-" // a tool that is making room for its successor
