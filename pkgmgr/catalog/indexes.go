package catalog

import (
	"net/url"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

// Index is an additional package index of a Python environment.
type Index struct {
	// URL is the address, such as https://host/path. The placeholder {version} is replaced
	// with the installed version.
	URL string

	// Packages are the names of the packages to install from this index.
	Packages []string
}

// indexEntry is the syntax of an [Index].
type indexEntry struct {
	Pos      strict.Pos
	URL      strict.Value[string]                 `key:"url,required" like:"https://example.com/simple"`
	Packages strict.Value[[]strict.Value[string]] `key:"packages,required" like:"[vllm]"`
}

// parseIndexes parses package indexes. It returns nil for an empty list.
func (c *recipeParser) parseIndexes(all []indexEntry) []Index {
	var indexes []Index
	for i := range all {
		e := &all[i]
		u, err := url.Parse(placeholder.ReplaceAllString(e.URL.V, "x"))
		switch {
		case !e.URL.Set:
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.ContainsAny(e.URL.V, " \t"):
			c.report(e.URL.Pos, "want https://host/path", "invalid index %q", redactURL(u, e.URL.V))
		case u.User != nil:
			c.report(e.URL.Pos, "remove the part before the @", "index contains a user name or password")
		}
		c.checkPlaceholders(e.URL, c.placeholders)
		index := Index{URL: e.URL.V}
		for _, name := range e.Packages.V {
			if !packageName.MatchString(name.V) {
				c.report(name.Pos, "want letters, digits, dot, dash and underscore", "invalid package name %q", name.V)
			}
			index.Packages = append(index.Packages, name.V)
		}
		indexes = append(indexes, index)
	}
	return indexes
}
