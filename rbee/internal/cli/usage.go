package cli

import (
	"fmt"
	"regexp"
	"strings"
)

// parserErrors match the messages of kong that are rewritten, with their replacements.
// A replacement receives the submatches of its pattern, and whether the selected command
// has subcommands.
var parserErrors = []struct {
	pattern *regexp.Regexp
	replace func(m []string, isGroup bool) string
}{
	{regexp.MustCompile(`(?s)^unexpected argument (.*?)((?:, did you mean .*\?)?)$`), func(m []string, isGroup bool) string {
		if isGroup {
			return fmt.Sprintf("unknown command %q%s", m[1], m[2])
		}
		return fmt.Sprintf("unexpected argument %q%s", m[1], m[2])
	}},
	{regexp.MustCompile(`(?s)^unknown flag (.*?)((?:, did you mean .*\?)?)$`), func(m []string, _ bool) string {
		return fmt.Sprintf("unknown flag %q%s", m[1], m[2])
	}},
	{regexp.MustCompile(`^missing flags: (.*)$`), func(m []string, _ bool) string {
		return missingFlags(strings.Split(strings.ReplaceAll(m[1], "=", " "), ", "))
	}},
	{regexp.MustCompile(`^expected [a-z ]*(".*")$`), func(m []string, isGroup bool) string {
		if isGroup {
			return "missing command: " + alternatives(m[1])
		}
		names := strings.NewReplacer(`"`, "", "<", "", ">", "").Replace(m[1])
		return "missing argument: " + strings.ToUpper(names)
	}},
	{regexp.MustCompile(`^(\S+): expected .* value but got "EOL"`), func(m []string, _ bool) string {
		return valueName(m[1]) + " needs a value"
	}},
	{regexp.MustCompile(`^(\S+): .* but got (".*") \(short flag\); perhaps try `), func(m []string, _ bool) string {
		return fmt.Sprintf("invalid %s %s: want %s=VALUE for a value that starts with -", valueName(m[1]), m[2], m[1])
	}},
	{regexp.MustCompile(`^(\S+): expected .* int but got (".*")`), func(m []string, _ bool) string {
		return fmt.Sprintf("invalid %s %s: want an integer", valueName(m[1]), m[2])
	}},
	{regexp.MustCompile(`^(\S+): expected a float but got (".*")`), func(m []string, _ bool) string {
		return fmt.Sprintf("invalid %s %s: want a number", valueName(m[1]), m[2])
	}},
	{regexp.MustCompile(`^(\S+): expected duration but got ("(?:[^"\\]|\\.)*")`), func(m []string, _ bool) string {
		return fmt.Sprintf("invalid %s %s: want a duration such as 30s", valueName(m[1]), m[2])
	}},
	{regexp.MustCompile(`^(\S+): bool value must be .* but got (".*")$`), func(m []string, _ bool) string {
		return fmt.Sprintf("invalid %s %s: want true or false", valueName(m[1]), m[2])
	}},
	{regexp.MustCompile(`^(\S+) must be [a-z ]+(".*") but got (".*")$`), func(m []string, _ bool) string {
		return fmt.Sprintf("invalid %s %s: want %s", valueName(m[1]), m[3], alternatives(m[2]))
	}},
}

// parserMessage returns the message of a parse error without Go types and parser syntax.
// isGroup reports whether the selected command has subcommands.
func parserMessage(message string, isGroup bool) string {
	for _, e := range parserErrors {
		if m := e.pattern.FindStringSubmatch(message); m != nil {
			return e.replace(m, isGroup)
		}
	}
	return message
}

// missingFlags returns the message for required flags that were not passed.
func missingFlags(flags []string) string {
	if len(flags) == 1 {
		return "missing flag: " + flags[0]
	}
	return "missing flags: " + strings.Join(flags, ", ")
}

// valueName returns the name of a flag, or of an argument in angle brackets, as printed
// in the help.
func valueName(name string) string {
	if strings.HasPrefix(name, "<") {
		return strings.ToUpper(strings.Trim(name, "<>"))
	}
	return name
}

// alternatives converts a list such as `"a", "b","c"` to "a, b or c".
func alternatives(quoted string) string {
	var names []string
	for name := range strings.SplitSeq(quoted, ",") {
		names = append(names, strings.Trim(strings.TrimSpace(name), `"`))
	}
	if len(names) == 1 {
		return names[0]
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
