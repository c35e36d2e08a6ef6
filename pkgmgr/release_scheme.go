package pkgmgr

import (
	"fmt"
	"path"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
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
		if _, ok := v.versionOf(sample); ok {
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

// cutTag returns the version in a tag; ok is false if the tag has another form.
func cutTag(form, tag string) (version string, ok bool) {
	before, after, _ := strings.Cut(form, "{version}")
	if version, ok = strings.CutPrefix(tag, before); !ok {
		return "", false
	}
	version, ok = strings.CutSuffix(version, after)
	return version, ok && ValidVersion(version) && strings.ContainsAny(version, "0123456789")
}

// matches reports whether a version matches the recipe's pattern.
func (v *Versions) matches(version string) bool {
	if v.Match == "" {
		return true
	}
	ok, err := path.Match(v.Match, version)
	return ok && err == nil
}

// pointerTag returns the tag of the pointer release that an exact version in a
// config names, such as v0.5.0 for "v0.5.0" and for "0.5.0"; ok is false if it
// names a version itself or neither.
func (v *Versions) pointerTag(version string) (tag string, ok bool) {
	if v == nil || v.Pointer == nil {
		return "", false
	}
	if _, own := v.versionOf(version); own {
		return "", false
	}
	if _, ok := cutTag(v.Pointer.Tag, version); ok {
		return version, true
	}
	bare := version != "" && version[0] >= '0' && version[0] <= '9' && ValidVersion(version)
	return fillTag(v.Pointer.Tag, version), bare
}

// indirect reports whether a version constraint names a pointer release, so that
// it cannot be compared with an installed version.
func (v *Versions) indirect(wish string) bool {
	if v == nil || !exactWish(wish) {
		return false
	}
	set, err := ParseRange(wish)
	if err != nil {
		return false
	}
	_, ok := v.pointerTag(set.Exact())
	return ok
}

// checkRange returns an error if a range compares with versions that the
// repository does not have: "v0.5.0" is lower than "b1", whatever it stands for.
func (v *Versions) checkRange(wish string) error {
	if wish == Latest || wish == "" || v.Match == "" {
		return nil
	}
	set, err := ParseRange(wish)
	if err != nil {
		return err
	}
	for _, t := range set.terms {
		if !v.matches(t.version) {
			return fmt.Errorf("invalid version range %q: want versions of %s such as %s%s", wish, v.GitHub, v.Match, v.orPointer())
		}
	}
	return nil
}

// orPointer returns how a pointer release is written, for a hint.
func (v *Versions) orPointer() string {
	if v.Pointer == nil {
		return ""
	}
	return ", or one release such as " + fillTag(v.Pointer.Tag, "1.2.3")
}
