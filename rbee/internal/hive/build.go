package hive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// A build is one content of a version: the name of its directory in
// workers/<type>/. That is the version itself, unless a build with that name is
// there, from which processes may run or be about to: they go on reading files by
// path. Then it is <version>@2, and so on; no version's name holds an @.
//
// No build takes the place of another. The entry point moves to the new one, and
// then those go that the records of workers do not name. A start works the other way
// round: it puts a build on record and then looks whether the entry point still
// leads there. Whichever comes first, no start loses its files.

// versionOf is the version of a build; empty if the name is not that of a build.
func versionOf(build string) string {
	version, number, numbered := strings.Cut(build, "@")
	if n, err := strconv.Atoi(number); numbered && (err != nil || n < 2) {
		return ""
	}
	if !validName(version) {
		return ""
	}
	return version
}

// freeBuild is where new content of a version is put: the first build that is not
// there.
func (in *Installer) freeBuild(typ, version string) (string, error) {
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
	programs, err := workers.Programs(in.Home.Path(workerRecords), typ)
	if err != nil {
		return nil, fmt.Errorf("finding the workers that run: %w", err)
	}
	return func(build string) bool {
		// The home may have had another name when the worker was started.
		part := "/" + wire.WorkersDir + "/" + typ + "/" + build + "/" + payloadDir + "/"
		for _, program := range programs {
			if strings.Contains(program, part) {
				return true
			}
		}
		return false
	}, nil
}
