package hive

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// A build is one content of a version: the name of its directory in
// workers/<type>/. That is the version itself, unless the version had another
// content from which processes still run, for they go on reading files by path. Then
// it is <version>@2, and so on; no version's name holds an @.

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

// freeBuild is where new content of a version may be put: the first build that no
// process runs from, whether it is there or not.
func (h *Hive) freeBuild(typ, version string) (string, error) {
	inUse, err := h.buildsInUse(typ)
	if err != nil {
		return "", err
	}
	build := version
	for n := 2; inUse(build); n++ {
		build = fmt.Sprintf("%s@%d", version, n)
	}
	return build, nil
}

// buildsInUse tells from which builds of a type processes run, or may do so again.
func (h *Hive) buildsInUse(typ string) (inUse func(build string) bool, err error) {
	programs, err := workers.Programs(h.path(workerRecords), typ)
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
