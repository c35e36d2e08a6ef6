package sshconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// Options are the options of [Load]. The zero value selects the same files as ssh.
type Options struct {
	// Files lists the ssh_config files in order of precedence. Nil means ~/.ssh/config and /etc/ssh/ssh_config, which may be
	// missing. A non-nil empty slice means no files.
	Files []string
	// KnownHosts lists the known_hosts files. Nil means UserKnownHostsFile and GlobalKnownHostsFile of ssh_config, or the
	// defaults of OpenSSH in ~/.ssh and /etc/ssh.
	KnownHosts []string
	// Home is the home directory. Empty means the result of os.UserHomeDir.
	Home string
}

// Config is the content of ssh_config files. [Load] creates one. It is safe for concurrent use.
type Config struct {
	home       string
	user       string // name of the current user
	knownHosts []string
	lines      []directive
}

// Load reads ssh_config files. It returns an error if a file of o.Files is missing, or if a file cannot be read or parsed. Load
// does not validate the values of directives; [Config.Resolve] validates the values that apply to the target.
func Load(o Options) (*Config, error) {
	c := &Config{home: o.Home, knownHosts: o.KnownHosts}
	var err error
	if c.home == "" {
		if c.home, err = os.UserHomeDir(); err != nil {
			return nil, err
		}
	}
	if u, err := user.Current(); err == nil {
		c.user = u.Username
	} else {
		c.user = os.Getenv("USER")
	}
	files, mustExist := o.Files, true
	if files == nil {
		files, mustExist = []string{filepath.Join(c.home, ".ssh", "config"), "/etc/ssh/ssh_config"}, false
	}
	c.lines, err = loader{home: c.home}.load(files, mustExist)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Resolve returns the settings for a target. It does not use the network, but can run the commands of "Match exec" lines.
func (c *Config) Resolve(t Target) (Settings, error) {
	s, err := c.resolve(t, nil)
	if err != nil {
		return Settings{}, err
	}
	return s, nil
}

// Hosts returns the host names that match a pattern such as "gpu-*", sorted. It searches the Host lines of ssh_config and of
// included files, and ignores names with wildcards. In the pattern, * matches any number of characters and ? matches one.
func (c *Config) Hosts(pattern string) []string {
	names := hostNames(c.lines, pattern, nil)
	slices.Sort(names)
	return names
}

// maxIncludeDepth limits nested Include directives, as in OpenSSH.
const maxIncludeDepth = 16

// directive is one directive of an ssh_config file.
type directive struct {
	key      string // lower case
	value    string // as written, with quotes and without the comment
	pos      string // file:line, for error messages
	included [][]directive
}

// loader reads ssh_config files into directives.
//
// It uses only the lexer of module ssh_config and handles Host, Match and Include itself, because the module rejects a file
// that contains an unknown Match criterion, and searches included files only in the real home directory.
type loader struct {
	home string
}

// load reads files in order, as if they were one file.
func (l loader) load(files []string, mustExist bool) ([]directive, error) {
	var all []directive
	for _, file := range files {
		lines, err := l.file(expandTilde(file, l.home), 0)
		if errors.Is(err, fs.ErrNotExist) && !mustExist {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, directive{key: "include", included: [][]directive{lines}})
	}
	return all, nil
}

func (l loader) file(path string, depth int) ([]directive, error) {
	if depth > maxIncludeDepth {
		return nil, fmt.Errorf("%s: more than %d nested Include directives", path, maxIncludeDepth)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines, err := lex(string(text), path)
	if err != nil {
		return nil, err
	}
	for i := range lines {
		if lines[i].key != "include" {
			continue
		}
		if lines[i].included, err = l.include(lines[i], path, depth); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// include reads the files of an Include directive in file. A pattern may match no file.
func (l loader) include(line directive, file string, depth int) ([][]directive, error) {
	base := filepath.Join(l.home, ".ssh")
	if strings.HasPrefix(filepath.Clean(file), "/etc/ssh/") {
		base = "/etc/ssh"
	}
	var all [][]directive
	for _, pattern := range splitArgs(line.value) {
		pattern = expandTilde(pattern, l.home)
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(base, pattern)
		}
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s: invalid Include pattern %q: %w", line.pos, pattern, err)
		}
		for _, match := range matches {
			lines, err := l.file(match, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, lines)
		}
	}
	return all, nil
}

// Private-use runes replace characters that the lexer does not handle like OpenSSH.
const (
	hiddenQuote = '\uE001'
	hiddenHash  = '\uE002'
)

// lex splits text into directives. It renames all keywords before it calls the lexer, so that the lexer does not interpret
// block keywords.
func lex(text, path string) (lines []directive, err error) {
	defer func() {
		if r := recover(); r != nil { // the lexer panics on some invalid lines
			err = fmt.Errorf("%s: invalid ssh_config: %v", path, r)
		}
	}()
	source := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	var b strings.Builder
	for _, line := range source {
		b.WriteString(hideFromLexer(line))
		b.WriteByte('\n')
	}
	parsed, err := ssh_config.DecodeBytes([]byte(b.String()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	restore := strings.NewReplacer(string(hiddenQuote), `"`, string(hiddenHash), "#")
	for _, host := range parsed.Hosts {
		for _, node := range host.Nodes {
			kv, ok := node.(*ssh_config.KV)
			if !ok {
				continue
			}
			lines = append(lines, directive{
				key:   strings.ToLower(strings.TrimPrefix(kv.Key, keyPrefix)),
				value: strings.TrimSpace(restore.Replace(kv.Value)),
				pos:   fmt.Sprintf("%s:%d", path, kv.Pos().Line),
			})
		}
	}
	return lines, nil
}

// keyPrefix is added to every keyword, so that the lexer does not interpret block keywords.
const keyPrefix = "x-"

// hideFromLexer adds keyPrefix to the keyword of a line, and replaces quotes and each # that does not start a comment. Only a #
// at the start of a word outside of quotes starts a comment.
func hideFromLexer(line string) string {
	line = strings.TrimLeft(line, " \t\v\f\r\uFEFF")
	if line == "" || line[0] == '#' {
		return ""
	}
	var b strings.Builder
	b.WriteString(keyPrefix)
	quoted, wordStart := false, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted = !quoted
			r = hiddenQuote
		case r == '#' && (quoted || !wordStart):
			r = hiddenHash
		case r == '\r':
			r = ' '
		}
		wordStart = r == ' ' || r == '\t'
		b.WriteRune(r)
	}
	return b.String()
}

// splitArgs splits the value of a directive at white space outside of double and single quotes.
func splitArgs(value string) []string {
	var args []string
	var word strings.Builder
	var quote rune
	inWord := false
	for _, r := range value {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				args = append(args, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	if inWord {
		args = append(args, word.String())
	}
	return args
}

// matchPattern reports whether s matches a pattern with * (any number of characters) and ? (exactly one character); see
// PATTERNS in ssh_config(5).
func matchPattern(pattern, s string) bool {
	for {
		star := strings.IndexByte(pattern, '*')
		if star < 0 {
			return len(pattern) == len(s) && matchPrefix(pattern, s)
		}
		if !matchPrefix(pattern[:star], s) {
			return false
		}
		s, pattern = s[star:], strings.TrimLeft(pattern[star:], "*")
		if pattern == "" {
			return true
		}
		next := pattern
		if i := strings.IndexByte(pattern, '*'); i >= 0 {
			next = pattern[:i]
		}
		// The last part must match at the end. The other parts match at the first possible position.
		if len(next) == len(pattern) {
			return len(s) >= len(next) && matchPrefix(next, s[len(s)-len(next):])
		}
		for !matchPrefix(next, s) {
			if s == "" {
				return false
			}
			s = s[1:]
		}
	}
}

// matchPrefix reports whether a prefix of s matches pattern, which contains no *.
func matchPrefix(pattern, s string) bool {
	if len(s) < len(pattern) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] != '?' && pattern[i] != s[i] {
			return false
		}
	}
	return true
}

// matchAny reports whether at least one pattern matches s and no negated pattern (!x) does.
func matchAny(patterns []string, s string) bool {
	matched := false
	for _, p := range patterns {
		if negated, ok := strings.CutPrefix(p, "!"); ok {
			if matchPattern(negated, s) {
				return false
			}
		} else if matchPattern(p, s) {
			matched = true
		}
	}
	return matched
}

// hostNames appends the names without wildcards in Host lines that match pattern, and returns the extended slice.
func hostNames(lines []directive, pattern string, names []string) []string {
	for _, line := range lines {
		for _, inc := range line.included {
			names = hostNames(inc, pattern, names)
		}
		if line.key != "host" {
			continue
		}
		for _, name := range splitArgs(line.value) {
			if name != "" && !strings.ContainsAny(name, "*?!") && matchPattern(pattern, name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
