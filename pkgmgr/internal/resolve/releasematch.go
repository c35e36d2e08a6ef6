package resolve

import (
	"fmt"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
)

// consumer is a machine or platform that installs files of a release.
type consumer struct {
	name string // for messages

	// sources returns the sources of a version that the consumer may install. It returns no
	// sources if no version supports the consumer, and an error if only other versions
	// support it.
	sources func(version string) ([]catalog.Source, error)
}

// coverage describes whether a release has the files that consumers require.
type coverage struct {
	missing string // the first missing file and its consumer; empty if none is missing
	partial bool   // the release has all files for at least one consumer
}

// coverageOf compares the files of a release with the requirements of consumers.
func coverageOf(rel *release, version string, consumers []consumer) (c coverage) {
	for _, consumer := range consumers {
		sources, err := consumer.sources(version)
		if err == nil && len(sources) == 0 {
			continue
		}
		missing := "no source in the recipe"
		for i := range sources {
			if missing = rel.missingAsset(&sources[i]); missing == "" {
				break
			}
		}
		switch {
		case missing == "":
			c.partial = true
		case c.missing == "":
			c.missing = fmt.Sprintf("%s for %s", missing, consumer.name)
		}
	}
	return c
}

// missingAsset describes the first asset of a source that the release does not have. It
// returns "" if the release has all assets.
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
