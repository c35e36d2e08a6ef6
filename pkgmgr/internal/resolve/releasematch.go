package resolve

import (
	"fmt"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
)

// need is what a machine takes from a release.
type need struct {
	who string // for messages

	// sources are those of which it takes one, for a version: none if there is nothing
	// for it whatever the version. The error says that there is none for this version.
	sources func(version string) ([]catalog.Source, error)
}

// coverage tells how much of what machines need is in a release.
type coverage struct {
	lacks string // what is missing first, and for whom; empty if nothing is
	some  bool   // something that is needed is there
}

// cover compares a release with what is needed.
func cover(rel *release, version string, needs []need) (c coverage) {
	for _, n := range needs {
		sources, err := n.sources(version)
		if err == nil && len(sources) == 0 {
			continue
		}
		lacks := "no source in the recipe"
		for i := range sources {
			if lacks = rel.lacks(&sources[i]); lacks == "" {
				break
			}
		}
		switch {
		case lacks == "":
			c.some = true
		case c.lacks == "":
			c.lacks = fmt.Sprintf("%s for %s", lacks, n.who)
		}
	}
	return c
}

// lacks names the first file that a source takes from the release and that is not
// there; it is empty if all are.
func (r *release) lacks(s *catalog.Source) string {
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
