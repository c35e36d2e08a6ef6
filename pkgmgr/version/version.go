// Package version compares versions of engines, and checks them against the version
// constraints of a config. It accepts what upstream projects use: semantic versions,
// Python versions (PEP 440) and build numbers such as b10811.
package version

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Compare orders versions of whatever project: numbers count as numbers,
// so that 1.10 comes after 1.9 and b999 before b1000, a leading v does not count,
// and what is named as not final (dev, alpha, beta, rc) comes before the version
// itself. It agrees with the order of Semantic Versioning and of PEP 440 but for
// PEP 440's epochs.
func Compare(a, b string) int {
	x, y := versionParts(a), versionParts(b)
	for i := range max(len(x), len(y)) {
		var p, q versionPart
		if i < len(x) {
			p = x[i]
		}
		if i < len(y) {
			q = y[i]
		}
		if c := cmp.Or(cmp.Compare(p.rank, q.rank), cmp.Compare(len(p.number), len(q.number)), cmp.Compare(p.number, q.number), cmp.Compare(p.word, q.word)); c != 0 {
			return c
		}
	}
	return 0
}

// versionPart is a number or a word of a version. The zero value, which stands
// for the end, equals the number 0.
type versionPart struct {
	rank   int // before the end, at it, after it
	number string
	word   string
}

// ranks of words that say that a version is not final, or comes after the final one.
var wordRanks = map[string]int{
	"dev": -6, "nightly": -6, "a": -5, "alpha": -5, "b": -4, "beta": -4, "c": -3, "rc": -3, "pre": -3, "preview": -3,
	"post": 1, "rev": 1, "r": 1,
}

func versionParts(v string) []versionPart {
	v = strings.ToLower(v)
	if len(v) > 1 && v[0] == 'v' && v[1] >= '0' && v[1] <= '9' {
		v = v[1:]
	}
	var parts []versionPart
	numbers := false
	for v != "" {
		end := strings.IndexFunc(v, func(r rune) bool {
			return unicode.IsDigit(r) != unicode.IsDigit(rune(v[0])) || !unicode.IsDigit(r) && !unicode.IsLetter(r)
		})
		if end == 0 {
			v = v[1:]
			continue
		}
		if end < 0 {
			end = len(v)
		}
		text := v[:end]
		v = v[end:]
		switch {
		case unicode.IsDigit(rune(text[0])):
			numbers = true
			number := strings.TrimLeft(text, "0")
			part := versionPart{number: number}
			if number != "" {
				part.rank = 2 // a further number comes after the end
			}
			parts = append(parts, part)
		case numbers && wordRanks[text] != 0:
			parts = append(parts, versionPart{rank: wordRanks[text]})
		default:
			parts = append(parts, versionPart{rank: 1, word: text})
		}
	}
	return parts
}

// finalVersion reports whether a version's own name does not say that it is
// something before the final one.
func finalVersion(v string) bool {
	return !slices.ContainsFunc(versionParts(v), func(p versionPart) bool { return p.rank < 0 })
}

// Range is a set of versions. The zero value holds all.
type Range struct{ terms []rangeTerm }

// Versions returns the versions that the range compares with, as they are written.
func (r Range) Versions() []string {
	versions := make([]string, len(r.terms))
	for i, t := range r.terms {
		versions[i] = t.version
	}
	return versions
}

type rangeTerm struct{ op, version string }

// ParseRange reads a range: comparisons with commas between them, all of which
// must hold, such as ">=0.8, <0.9" or "!=1.2"; a version with a star at its end,
// such as "0.11.*"; or one version.
func ParseRange(s string) (Range, error) {
	var r Range
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSpace(text)
		t := rangeTerm{op: "=="}
		for _, op := range []string{">=", "<=", "==", "!=", ">", "<"} {
			if rest, ok := strings.CutPrefix(text, op); ok {
				t.op, text = op, strings.TrimSpace(rest)
				break
			}
		}
		if stem, ok := strings.CutSuffix(text, ".*"); ok && t.op == "==" {
			t.op, text = "*", stem
		}
		if t.version = text; !Valid(text) || text == Latest {
			return Range{}, fmt.Errorf("%q is no range of versions", s)
		}
		r.terms = append(r.terms, t)
	}
	return r, nil
}

// Exact is the one version that the range consists of, or empty.
func (r Range) Exact() string {
	if len(r.terms) == 1 && r.terms[0].op == "==" {
		return r.terms[0].version
	}
	return ""
}

// Has reports whether a version is in the range.
func (r Range) Has(version string) bool {
	for _, t := range r.terms {
		c := Compare(version, t.version)
		var ok bool
		switch t.op {
		case "==":
			ok = c == 0
		case "!=":
			ok = c != 0
		case ">=":
			ok = c >= 0
		case "<=":
			ok = c <= 0
		case ">":
			ok = c > 0
		case "<":
			ok = c < 0
		case "*":
			ok = version == t.version || strings.HasPrefix(strings.TrimPrefix(version, "v"), strings.TrimPrefix(t.version, "v")+".")
		}
		if !ok {
			return false
		}
	}
	return true
}

// ValidConstraint reports whether s can stand in a config: [Latest], a version,
// or a range of at most 100 bytes.
func ValidConstraint(s string) bool {
	if s == Latest {
		return true
	}
	_, err := ParseRange(s)
	return err == nil && wishRegexp.MatchString(s) && len(s) <= 100
}

// IsExact reports whether a wish of a config names one version.
func IsExact(s string) bool {
	r, err := ParseRange(s)
	return s != Latest && err == nil && r.Exact() != ""
}

// Newest picks the newest of versions that a wish allows; empty if there is none.
// Versions that are not final count only if no other is there, or if the wish
// names one.
func Newest(wish string, versions []string) string {
	var r Range
	if wish != Latest && wish != "" {
		parsed, err := ParseRange(wish)
		if err != nil {
			return ""
		}
		r = parsed
	}
	best := ""
	for _, v := range versions {
		if !r.Has(v) {
			continue
		}
		switch final := finalVersion(v); {
		case best == "", final && !finalVersion(best), final == finalVersion(best) && Compare(v, best) > 0:
			best = v
		}
	}
	return best
}

// Latest is the version that stands for the newest one a recipe knows.
const Latest = "latest"

// Valid reports whether s can be a version: letters, digits, dot, plus,
// dash and underscore, beginning with a letter or digit, at most 64 bytes.
func Valid(s string) bool { return versionRegexp.MatchString(s) }

var versionRegexp = regexp.MustCompile(versionPattern)

var wishRegexp = regexp.MustCompile(ConstraintPattern)

const versionPattern = `^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`

const ConstraintPattern = `^(>=|<=|==|!=|>|<)? *[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(\.\*)?( *, *(>=|<=|==|!=|>|<)? *[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(\.\*)?)*$` // of a version in a config
