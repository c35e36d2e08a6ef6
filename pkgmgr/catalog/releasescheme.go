package catalog

import (
	"fmt"
	"path"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

// parseReleaseScheme parses the keys that determine which releases of a repository are versions.
// It sets the fields of v.
func (c *recipeParser) parseReleaseScheme(e *versionsEntry, v *Versions) {
	v.Prereleases, v.Match = e.Prereleases.V, e.Match.V
	if e.Package.Set {
		c.rejectKeys("package", "it requires github: owner/name", map[string]strict.Pos{
			"prereleases": e.Prereleases.Pos, "match": e.Match.Pos, "pointer": e.Pointer.Pos,
		})
	}
	if e.Match.Set && (e.Match.V == "" || !validPattern(e.Match.V)) {
		c.report(e.Match.Pos, `want a pattern such as "b[0-9]*"`, "invalid match %q", e.Match.V)
	}
	if e.Pointer.Pos.Line == 0 {
		return
	}
	p := &e.Pointer.V
	v.Pointer = &Pointer{Tag: p.Tag.V, Asset: p.Asset.V}
	if p.Tag.Set && !validTag(p.Tag.V) {
		c.report(p.Tag.Pos, "want {version} exactly once, for example v{version}", "invalid tag %q", p.Tag.V)
	}
	if p.Asset.Set && (p.Asset.V == "" || strings.ContainsAny(p.Asset.V, `/\*?[`)) {
		c.report(p.Asset.Pos, "want a file name such as nightly-tag.txt", "invalid asset %q", p.Asset.V)
	}
	if e.Match.Pos.Line == 0 {
		c.report(e.Pointer.Pos, `add match: with a pattern for versions such as "b[0-9]*"`, "pointer requires match")
		return
	}
	if p.Tag.Set && validTag(p.Tag.V) && validPattern(v.Match) {
		sample := fillTag(p.Tag.V, "1.2.3")
		if _, ok := v.VersionOf(sample); ok {
			c.report(p.Tag.Pos, "make match more specific", "match %q also matches %s, which is a pointer", v.Match, sample)
		}
	}
}

// validPattern reports whether a pattern is valid for [path.Match].
func validPattern(pattern string) bool {
	_, err := path.Match(pattern, "")
	return err == nil
}

// validTag reports whether a tag contains the placeholder {version} exactly once and no
// other placeholder.
func validTag(tag string) bool {
	return strings.Count(tag, "{version}") == 1 && strings.Count(tag, "{") == 1
}

// fillTag returns the tag of a version.
func fillTag(tag, version string) string { return strings.ReplaceAll(tag, "{version}", version) }

// CutTag returns the version in a tag of the given form, such as "v{version}". It reports false
// if the tag does not have this form or does not contain a version.
func CutTag(form, tag string) (exact string, ok bool) {
	before, after, _ := strings.Cut(form, "{version}")
	if exact, ok = strings.CutPrefix(tag, before); !ok {
		return "", false
	}
	exact, ok = strings.CutSuffix(exact, after)
	return exact, ok && version.Valid(exact) && strings.ContainsAny(exact, "0123456789")
}

// Matches reports whether a version matches the pattern v.Match.
func (v *Versions) Matches(version string) bool {
	if v.Match == "" {
		return true
	}
	ok, err := path.Match(v.Match, version)
	return ok && err == nil
}

// PointerTag returns the tag of the pointer release that an exact version in a config names,
// such as v0.5.0 for "v0.5.0" and for "0.5.0". It reports false if the version does not name
// a pointer release.
func (v *Versions) PointerTag(exact string) (tag string, ok bool) {
	if v == nil || v.Pointer == nil {
		return "", false
	}
	if _, isVersion := v.VersionOf(exact); isVersion {
		return "", false
	}
	if _, ok := CutTag(v.Pointer.Tag, exact); ok {
		return exact, true
	}
	ok = exact != "" && exact[0] >= '0' && exact[0] <= '9' && version.Valid(exact)
	return fillTag(v.Pointer.Tag, exact), ok
}

// Indirect reports whether a version constraint names a pointer release. Such a constraint
// cannot be compared with an installed version.
func (v *Versions) Indirect(constraint string) bool {
	if v == nil || !version.IsExact(constraint) {
		return false
	}
	versionRange, err := version.ParseRange(constraint)
	if err != nil {
		return false
	}
	_, ok := v.PointerTag(versionRange.Exact())
	return ok
}

// CheckRange returns an error if a range contains versions that do not match v.Match. The
// order of such versions is meaningless: "v0.5.0" is lower than "b1".
func (v *Versions) CheckRange(constraint string) error {
	if constraint == version.Latest || constraint == "" || v.Match == "" {
		return nil
	}
	versionRange, err := version.ParseRange(constraint)
	if err != nil {
		return err
	}
	for _, bound := range versionRange.Versions() {
		if !v.Matches(bound) {
			return fmt.Errorf("invalid version range %q: want versions of %s such as %s%s", constraint, v.GitHub, v.Match, v.PointerHint())
		}
	}
	return nil
}

// PointerHint returns an example of a pointer release, for a hint.
func (v *Versions) PointerHint() string {
	if v.Pointer == nil {
		return ""
	}
	return ", or one release such as " + fillTag(v.Pointer.Tag, "1.2.3")
}

// Exact converts text, a version or tag that a user wrote, to a version. For a package of the
// Python index, Exact removes the prefix v.
func (v *Versions) Exact(text string) string {
	if v.Package != "" {
		if bare := strings.TrimPrefix(text, "v"); bare != "" && bare[0] >= '0' && bare[0] <= '9' {
			return bare
		}
		return text
	}
	if version, ok := v.VersionOf(text); ok {
		return version
	}
	return text
}

// TagOf returns the tag of a version.
func (v *Versions) TagOf(version string) string { return fillTag(v.Tag, version) }

// VersionOf returns the version that a tag names. It reports false if the tag does not name
// a version.
func (v *Versions) VersionOf(tag string) (version string, ok bool) {
	version, ok = CutTag(v.Tag, tag)
	return version, ok && v.Matches(version)
}

// PointerTarget returns the version in the text file of a pointer release. The file must
// contain exactly one tag.
func (v *Versions) PointerTarget(text string) (version string, ok bool) {
	return v.VersionOf(strings.TrimSpace(text))
}

// SourceArchiveName returns the file name of the source code archive of a release.
func SourceArchiveName(v *Versions, version string) string {
	return path.Base(v.GitHub) + "-" + version + ".tar.gz"
}
