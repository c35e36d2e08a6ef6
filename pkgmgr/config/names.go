package config

import (
	"net/netip"
	"regexp"
	"strings"
)

// The patterns of names. They exclude characters with a special meaning in shells, paths and
// terminals. docs/hives.schema.json contains the same patterns.
const (
	aliasPattern      = `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`
	hostnamePattern   = `^([A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?\])$`
	userPattern       = `^[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}$`
	labelPattern      = `^[A-Za-z0-9][A-Za-z0-9._:/=-]{0,62}$`
	workerTypePattern = `^[a-z0-9][a-z0-9-]{0,62}$`

	maxHostname = 253 // bytes of a host name
	maxPort     = 65535
)

// Descriptions of valid names, for hints.
const (
	aliasAlphabet      = "letters, digits, dot, dash and underscore, at most 63 characters"
	userAlphabet       = "letters, digits, dot, dash, underscore and @, at most 64 characters"
	labelAlphabet      = "letters, digits and . _ : / = -, at most 63 characters"
	workerTypeAlphabet = "lowercase letters, digits and dashes, at most 63 characters"
	constraintForms    = "latest, a version such as 1.2, or a range such as \">=1.2, <2\""
)

var (
	aliasRegexp      = regexp.MustCompile(aliasPattern)
	hostnameRegexp   = regexp.MustCompile(hostnamePattern)
	userRegexp       = regexp.MustCompile(userPattern)
	labelRegexp      = regexp.MustCompile(labelPattern)
	workerTypeRegexp = regexp.MustCompile(workerTypePattern)
)

// ValidAlias reports whether s is a valid alias of a hive: letters, digits, dot, dash and
// underscore, with a letter or digit at the start, at most 63 bytes.
func ValidAlias(s string) bool { return aliasRegexp.MatchString(s) }

// ValidUser reports whether s is a valid ssh_user: letters, digits, dot, dash, underscore and
// "@", with a letter, digit or underscore at the start, at most 64 bytes.
func ValidUser(s string) bool { return userRegexp.MatchString(s) }

// ValidLabel reports whether s is a valid label: letters, digits and ". _ : / = -", with a
// letter or digit at the start, at most 63 bytes.
func ValidLabel(s string) bool { return labelRegexp.MatchString(s) }

// ValidWorkerType reports whether s is a valid name of a worker type: lowercase letters,
// digits and dashes, with a letter or digit at the start, at most 63 bytes. The type need not
// exist in a catalog.
func ValidWorkerType(s string) bool { return workerTypeRegexp.MatchString(s) }

// ValidHostname reports whether s is a valid hostname: a name of letters, digits, dot, dash
// and underscore without a dot or dash at the start, at most 253 bytes; or an IP address. An
// IPv6 address has no brackets and can have a zone. A name of only digits and dots must be an
// IPv4 address.
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
