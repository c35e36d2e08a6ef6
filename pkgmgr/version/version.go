// Package version compares versions of engines and matches them with the version constraints
// of a config. It supports semantic versions, Python versions (PEP 440) and build numbers
// such as b10811.
package version

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Compare returns -1 if version a is older than b, 0 if they are equal, and 1 if a is newer.
// Numbers are compared as numbers: 1.10 is newer than 1.9, and b999 is older than b1000. A
// leading v is ignored. Prereleases (dev, alpha, beta, rc) are older than the final version.
// The order agrees with Semantic Versioning and PEP 440, except for the epochs of PEP 440.
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

// versionPart is a number or a word of a version. The zero value is the end of a version and
// equal to the number 0.
type versionPart struct {
	rank   int // order relative to the end: negative, 0 or positive
	number string
	word   string
}

// wordRanks contains the ranks of words that mark a version before (negative) or after the
// final version.
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
				part.rank = 2 // an additional number makes the version newer
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

// isFinal reports whether v is not a prerelease.
func isFinal(v string) bool {
	return !slices.ContainsFunc(versionParts(v), func(p versionPart) bool { return p.rank < 0 })
}

// Range is a set of versions. The zero value contains all versions.
type Range struct{ terms []rangeTerm }

// Versions returns the versions that the range compares with, without operators.
func (r Range) Versions() []string {
	versions := make([]string, len(r.terms))
	for i, t := range r.terms {
		versions[i] = t.version
	}
	return versions
}

type rangeTerm struct{ op, version string }

// ParseRange parses a range of versions. A range consists of one or more terms, separated by
// commas, and contains the versions that satisfy all terms, such as ">=0.8, <0.9". A term is a
// version, a version with a wildcard at the end such as "0.11.*", or a comparison such as
// "!=1.2".
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
			return Range{}, fmt.Errorf("invalid version range %q", s)
		}
		r.terms = append(r.terms, t)
	}
	return r, nil
}

// Exact returns the version of a range that contains only one exact version, else "".
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

// ValidConstraint reports whether s is a valid version constraint for a config: [Latest], a
// version, or a range of at most 100 bytes.
func ValidConstraint(s string) bool {
	if s == Latest {
		return true
	}
	_, err := ParseRange(s)
	return err == nil && constraintRegexp.MatchString(s) && len(s) <= 100
}

// IsExact reports whether a version constraint is a single version.
func IsExact(s string) bool {
	r, err := ParseRange(s)
	return s != Latest && err == nil && r.Exact() != ""
}

// Newest returns the newest of versions that satisfies a version constraint, or "" if none
// does. It returns a prerelease only if no final version satisfies the constraint.
func Newest(constraint string, versions []string) string {
	var r Range
	if constraint != Latest && constraint != "" {
		parsed, err := ParseRange(constraint)
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
		switch final := isFinal(v); {
		case best == "", final && !isFinal(best), final == isFinal(best) && Compare(v, best) > 0:
			best = v
		}
	}
	return best
}

// Latest is the version constraint for the newest version.
const Latest = "latest"

// Valid reports whether s is a valid version: letters, digits, dot, plus, dash and
// underscore, with a letter or digit at the start, at most 64 bytes.
func Valid(s string) bool { return versionRegexp.MatchString(s) }

var versionRegexp = regexp.MustCompile(versionPattern)

var constraintRegexp = regexp.MustCompile(ConstraintPattern)

const versionPattern = `^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`

// ConstraintPattern matches the version constraints of a config except [Latest].
const ConstraintPattern = `^(>=|<=|==|!=|>|<)? *[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(\.\*)?( *, *(>=|<=|==|!=|>|<)? *[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(\.\*)?)*$`
