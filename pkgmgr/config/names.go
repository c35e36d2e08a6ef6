package config

import (
	"net/netip"
	"regexp"
	"strings"
)

// The alphabets of names. They leave no room for what a shell, a path or a
// terminal would take for something else. docs/hives.schema.json has the same.
const (
	aliasPattern      = `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`
	hostnamePattern   = `^([A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?\])$`
	userPattern       = `^[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}$`
	labelPattern      = `^[A-Za-z0-9][A-Za-z0-9._:/=-]{0,62}$`
	workerTypePattern = `^[a-z0-9][a-z0-9-]{0,62}$`

	maxHostname = 253
	maxPort     = 65535
)

// What is expected of names, for hints.
const (
	aliasAlphabet      = "letters, digits, dot, dash and underscore, at most 63"
	userAlphabet       = "letters, digits, dot, dash, underscore and @, at most 64"
	labelAlphabet      = "letters, digits and . _ : / = -, at most 63"
	workerTypeAlphabet = "lower-case letters, digits and dashes, at most 63"
	constraintForms    = "latest, a version such as 1.2, or a range such as \">=1.2, <2\""
)

var (
	aliasRegexp      = regexp.MustCompile(aliasPattern)
	hostnameRegexp   = regexp.MustCompile(hostnamePattern)
	userRegexp       = regexp.MustCompile(userPattern)
	labelRegexp      = regexp.MustCompile(labelPattern)
	workerTypeRegexp = regexp.MustCompile(workerTypePattern)
)

// ValidAlias reports whether s can name a hive: letters, digits, dot, dash and
// underscore, beginning with a letter or digit, at most 63 bytes.
func ValidAlias(s string) bool { return aliasRegexp.MatchString(s) }

// ValidUser reports whether s can be an ssh_user: letters, digits, dot, dash,
// underscore and "@", beginning with a letter, digit or underscore, at most 64
// bytes.
func ValidUser(s string) bool { return userRegexp.MatchString(s) }

// ValidLabel reports whether s can be a label: letters, digits and any of
// ". _ : / = -", beginning with a letter or digit, at most 63 bytes.
func ValidLabel(s string) bool { return labelRegexp.MatchString(s) }

// ValidWorkerType reports whether s can name a worker type: lower-case letters,
// digits and dashes, beginning with a letter or digit, at most 63 bytes. Whether
// there is such a type is for the [catalog.Catalog] to say.
func ValidWorkerType(s string) bool { return workerTypeRegexp.MatchString(s) }

// ValidHostname reports whether s can be a hostname: a name of letters, digits,
// dot, dash and underscore that begins with none of dot and dash, at most 253
// bytes; or an IP address, IPv6 without brackets and maybe with a zone. Digits
// and dots alone must be an IPv4 address.
func ValidHostname(s string) bool {
	if len(s) > maxHostname || !hostnameRegexp.MatchString(s) || strings.HasPrefix(s, "[") {
		return false
	}
	digitsOnly := strings.Contains(s, ".") && strings.Trim(s, "0123456789.") == ""
	if digitsOnly || strings.Contains(s, ":") {
		_, err := netip.ParseAddr(s)
		return err == nil
	}
	return true
}
