package installed

import (
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// A build is an installed copy of a version, named by its directory in workers/<type>/.
// The name is the version itself or, if that directory exists, <version>@2, <version>@3
// and so on: processes may still read files of the existing build by path. A version
// never contains an @.
//
// A build never replaces another one. An install links the entry point to the new build
// and then removes the builds that no worker record uses. A start uses the opposite order:
// it records the build and then checks that the entry point still links to it. Therefore, a
// concurrent install never removes the files of a started worker.

// VersionOf returns the version of a build; empty if build is not a valid name.
func VersionOf(build string) string {
	version, number, numbered := strings.Cut(build, "@")
	if n, err := strconv.Atoi(number); numbered && (err != nil || n < 2) {
		return ""
	}
	if !wire.ValidName(version) {
		return ""
	}
	return version
}
