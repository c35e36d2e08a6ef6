package catalog

import (
	"net/url"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

// Index is a package index that a Python environment uses besides the usual one.
type Index struct {
	// URL is its address, https://host/path. {version} stands for the version that is
	// installed.
	URL string

	// Packages are the names of the packages that come from this index.
	Packages []string
}

// indexEntry is an [Index] as it is written.
type indexEntry struct {
	Pos      strict.Pos
	URL      strict.Value[string]                 `key:"url,required" like:"https://example.com/simple"`
	Packages strict.Value[[]strict.Value[string]] `key:"packages,required" like:"[vllm]"`
}

// indexes checks package indexes; nil if there are none.
func (c *recipeCheck) indexes(all []indexEntry) []Index {
	var indexes []Index
	for i := range all {
		e := &all[i]
		u, err := url.Parse(placeholder.ReplaceAllString(e.URL.V, "x"))
		switch {
		case !e.URL.Set:
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.ContainsAny(e.URL.V, " \t"):
			c.report(e.URL.Pos, "expected https://host/path", "invalid index %q", redacted(u, e.URL.V))
		case u.User != nil:
			c.report(e.URL.Pos, "remove the part before the @", "the index has a user name or password")
		}
		c.placeholders(e.URL, c.words)
		index := Index{URL: e.URL.V}
		for _, name := range e.Packages.V {
			if !packageName.MatchString(name.V) {
				c.report(name.Pos, "expected letters, digits, dot, dash and underscore", "invalid package name %q", name.V)
			}
			index.Packages = append(index.Packages, name.V)
		}
		indexes = append(indexes, index)
	}
	return indexes
}
