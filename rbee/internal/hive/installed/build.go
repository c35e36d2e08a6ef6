package installed

import (
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
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

// VersionOf returns the version of a build; empty if the name is not that of a build.
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
