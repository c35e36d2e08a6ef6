package resolve

import (
	"fmt"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
)

// consumer is what a machine takes from a release.
type consumer struct {
	name string // for messages

	// sources are those of which it takes one, for a version: none if there is nothing
	// for it whatever the version. The error says that there is none for this version.
	sources func(version string) ([]catalog.Source, error)
}

// coverage tells how much of what machines need is in a release.
type coverage struct {
	missing string // what is missing first, and for whom; empty if nothing is
	partial bool   // something that is needed is there
}

// coverageOf compares a release with what is needed.
func coverageOf(rel *release, version string, needs []consumer) (c coverage) {
	for _, n := range needs {
		sources, err := n.sources(version)
		if err == nil && len(sources) == 0 {
			continue
		}
		lacks := "no source in the recipe"
		for i := range sources {
			if lacks = rel.missingAsset(&sources[i]); lacks == "" {
				break
			}
		}
		switch {
		case lacks == "":
			c.partial = true
		case c.missing == "":
			c.missing = fmt.Sprintf("%s for %s", lacks, n.name)
		}
	}
	return c
}

// missing names the first file that a source takes from the release and that is not
// there; it is empty if all are.
func (r *release) missingAsset(s *catalog.Source) string {
	for _, step := range s.Steps {
		if step.Origin.Asset == "" {
			continue
		}
		if _, ok := r.asset(step.Origin.Asset); !ok {
			return "no asset " + step.Origin.Asset
		}
	}
	return ""
}
