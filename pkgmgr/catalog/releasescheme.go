package catalog

import (
	"fmt"
	"path"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

// releaseScheme checks the keys that say which releases of a repository are
// versions, and sets the fields of v.
func (c *recipeCheck) releaseScheme(e *versionsEntry, v *Versions) {
	v.Prereleases, v.Match = e.Prereleases.V, e.Match.V
	if e.Package.Set {
		c.refuse("package", "it is for releases: github: owner/name", map[string]strict.Pos{
			"prereleases": e.Prereleases.Pos, "match": e.Match.Pos, "pointer": e.Pointer.Pos,
		})
	}
	if e.Match.Set && (e.Match.V == "" || !validPattern(e.Match.V)) {
		c.report(e.Match.Pos, `expected a pattern such as "b[0-9]*"`, "invalid match %q", e.Match.V)
	}
	if e.Pointer.Pos.Line == 0 {
		return
	}
	p := &e.Pointer.V
	v.Pointer = &Pointer{Tag: p.Tag.V, Asset: p.Asset.V}
	if p.Tag.Set && !validTag(p.Tag.V) {
		c.report(p.Tag.Pos, "such as v{version}", "tag %q does not have {version} once", p.Tag.V)
	}
	if p.Asset.Set && (p.Asset.V == "" || strings.ContainsAny(p.Asset.V, `/\*?[`)) {
		c.report(p.Asset.Pos, "expected the name of a file, such as nightly-tag.txt", "invalid asset %q", p.Asset.V)
	}
	if e.Match.Pos.Line == 0 {
		c.report(e.Pointer.Pos, `add match: and a pattern of the versions, such as "b[0-9]*"`, "pointer needs match")
		return
	}
	if p.Tag.Set && validTag(p.Tag.V) && validPattern(v.Match) {
		sample := fillTag(p.Tag.V, "1.2.3")
		if _, ok := v.VersionOf(sample); ok {
			c.report(p.Tag.Pos, "narrow match", "match %q also matches %s, which is a pointer", v.Match, sample)
		}
	}
}

// validPattern reports whether [path.Match] can read a pattern.
func validPattern(pattern string) bool {
	_, err := path.Match(pattern, "")
	return err == nil
}

// validTag reports whether a tag has the placeholder {version} exactly once and
// no other.
func validTag(tag string) bool {
	return strings.Count(tag, "{version}") == 1 && strings.Count(tag, "{") == 1
}

// fillTag returns the tag of a version.
func fillTag(tag, version string) string { return strings.ReplaceAll(tag, "{version}", version) }

// CutTag returns the version in a tag; ok is false if the tag has another form.
func CutTag(form, tag string) (exact string, ok bool) {
	before, after, _ := strings.Cut(form, "{version}")
	if exact, ok = strings.CutPrefix(tag, before); !ok {
		return "", false
	}
	exact, ok = strings.CutSuffix(exact, after)
	return exact, ok && version.Valid(exact) && strings.ContainsAny(exact, "0123456789")
}

// Matches reports whether a version matches the recipe's pattern.
func (v *Versions) Matches(version string) bool {
	if v.Match == "" {
		return true
	}
	ok, err := path.Match(v.Match, version)
	return ok && err == nil
}

// PointerTag returns the tag of the pointer release that an exact version in a
// config names, such as v0.5.0 for "v0.5.0" and for "0.5.0"; ok is false if it
// names a version itself or neither.
func (v *Versions) PointerTag(exact string) (tag string, ok bool) {
	if v == nil || v.Pointer == nil {
		return "", false
	}
	if _, own := v.VersionOf(exact); own {
		return "", false
	}
	if _, ok := CutTag(v.Pointer.Tag, exact); ok {
		return exact, true
	}
	bare := exact != "" && exact[0] >= '0' && exact[0] <= '9' && version.Valid(exact)
	return fillTag(v.Pointer.Tag, exact), bare
}

// Indirect reports whether a version constraint names a pointer release, so that
// it cannot be compared with an installed version.
func (v *Versions) Indirect(wish string) bool {
	if v == nil || !version.IsExact(wish) {
		return false
	}
	set, err := version.ParseRange(wish)
	if err != nil {
		return false
	}
	_, ok := v.PointerTag(set.Exact())
	return ok
}

// CheckRange returns an error if a range compares with versions that the
// repository does not have: "v0.5.0" is lower than "b1", whatever it stands for.
func (v *Versions) CheckRange(wish string) error {
	if wish == version.Latest || wish == "" || v.Match == "" {
		return nil
	}
	set, err := version.ParseRange(wish)
	if err != nil {
		return err
	}
	for _, compared := range set.Versions() {
		if !v.Matches(compared) {
			return fmt.Errorf("invalid version range %q: want versions of %s such as %s%s", wish, v.GitHub, v.Match, v.PointerHint())
		}
	}
	return nil
}

// PointerHint returns how a pointer release is written, for a hint.
func (v *Versions) PointerHint() string {
	if v.Pointer == nil {
		return ""
	}
	return ", or one release such as " + fillTag(v.Pointer.Tag, "1.2.3")
}

// Exact is the version that a wish names: people write versions as they are tagged
// too, or with the v that the package index takes off as well.
func (v *Versions) Exact(wish string) string {
	if v.Package != "" {
		if bare := strings.TrimPrefix(wish, "v"); bare != "" && bare[0] >= '0' && bare[0] <= '9' {
			return bare
		}
		return wish
	}
	if version, ok := v.VersionOf(wish); ok {
		return version
	}
	return wish
}

// TagOf is how a version is tagged.
func (v *Versions) TagOf(version string) string { return fillTag(v.Tag, version) }

// VersionOf is the version that a tag means.
func (v *Versions) VersionOf(tag string) (version string, ok bool) {
	version, ok = CutTag(v.Tag, tag)
	return version, ok && v.Matches(version)
}

// PointerTarget returns the version in the text file of a pointer release, which
// must consist of one tag.
func (v *Versions) PointerTarget(text string) (version string, ok bool) {
	return v.VersionOf(strings.TrimSpace(text))
}

// SourceArchiveName is how the source code of a release is called.
func SourceArchiveName(v *Versions, version string) string {
	return path.Base(v.GitHub) + "-" + version + ".tar.gz"
}
