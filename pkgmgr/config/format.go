package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// Format returns a config as TOML. It starts with the lines of header as comments, if header
// is not empty, and omits optional keys that are not set. [Parse] returns an equal config,
// except for positions.
func Format(c *Config, header string) []byte {
	var b bytes.Buffer
	for line := range strings.Lines(header) {
		fmt.Fprintln(&b, strings.TrimRight("# "+comment(line), " "))
	}
	for _, h := range c.Hives {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		formatHive(&b, h)
	}
	return b.Bytes()
}

// comment replaces control characters in a line, which TOML does not allow in comments.
func comment(line string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(line, "\ufffd"))
}

func formatHive(b *bytes.Buffer, h Hive) {
	fmt.Fprintf(b, "[[hive]]\nalias = %s\nhostname = %s\n", quoteTOML(h.Alias), quoteTOML(h.Hostname))
	if h.SSHUser != "" {
		fmt.Fprintf(b, "ssh_user = %s\n", quoteTOML(h.SSHUser))
	}
	if h.SSHPort != 0 {
		fmt.Fprintf(b, "ssh_port = %d\n", h.SSHPort)
	}
	if h.SSHKey != "" {
		fmt.Fprintf(b, "ssh_key = %s\n", quoteTOML(h.SSHKey))
	}
	if h.HivePort != 0 {
		fmt.Fprintf(b, "hive_port = %d\n", h.HivePort)
	}
	if len(h.Labels) > 0 {
		quoted := make([]string, len(h.Labels))
		for i, l := range h.Labels {
			quoted[i] = quoteTOML(l)
		}
		fmt.Fprintf(b, "labels = [%s]\n", strings.Join(quoted, ", "))
	}
	if len(h.Workers) > 0 {
		b.WriteString("workers = [\n")
		for _, w := range h.Workers {
			fmt.Fprintf(b, "    { type = %s, version = %s },\n", quoteTOML(w.Type), quoteTOML(w.Version))
		}
		b.WriteString("]\n")
	}
	fmt.Fprintf(b, "auto_start = %t\n", h.AutoStart)
}

// quoteTOML returns s as a basic string of TOML 1.0.
func quoteTOML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "\ufffd") {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
