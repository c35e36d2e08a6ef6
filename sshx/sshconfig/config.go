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

// Options say which files [Load] reads. The zero value reads what ssh reads.
type Options struct {
	// Files are the ssh_config files, the most important first. nil: ~/.ssh/config and /etc/ssh/ssh_config, which need not
	// exist; empty: none.
	Files []string
	// KnownHosts are the known_hosts files, in place of UserKnownHostsFile and GlobalKnownHostsFile. nil: what ssh_config
	// says, else OpenSSH's defaults in ~/.ssh and /etc/ssh.
	KnownHosts []string
	// Home is the home directory that ~ stands for. "": os.UserHomeDir.
	Home string
}

// Config is the content of ssh_config files. [Load] creates one. It is safe for concurrent use.
type Config struct {
	home       string
	user       string // name of the current user
	knownHosts []string
	lines      []directive
}

// Load reads ssh_config files. It fails if a file of o.Files does not exist, or if a file cannot be read or split into
// directives. A value that is invalid for its keyword is reported by [Config.Resolve], for the hosts that it applies to.
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

// Resolve returns the settings for a target. It uses no network; it may run the commands of "Match exec" lines.
func (c *Config) Resolve(t Target) (Settings, error) {
	s, err := c.resolve(t, nil)
	if err != nil {
		return Settings{}, err
	}
	return s, nil
}

// Hosts lists the concrete (wildcard-free) names in the Host lines of ssh_config, included files too, that match a
// pattern such as "gpu-*", sorted. * is any run of characters and ? is one character.
func (c *Config) Hosts(pattern string) []string {
	found := aliases(c.lines, pattern, nil)
	slices.Sort(found)
	return found
}

// maxIncludeDepth is OpenSSH's own limit on Include within Include.
const maxIncludeDepth = 16

// directive is one directive of an ssh_config file.
type directive struct {
	key      string // lower case
	value    string // as written, quotes included, comment cut off
	pos      string // file:line, for messages
	included [][]directive
}

// loader reads ssh_config files into lines.
//
// The lexing is ssh_config's. Its own Host, Match and Include handling is passed by, because one Match block that it
// does not know makes a whole file unusable, and it looks for included files in the real home directory only.
type loader struct {
	home string
}

// load reads the files one after another, as if they were one.
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
		return nil, fmt.Errorf("%s: Include is nested more than %d deep", path, maxIncludeDepth)
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

// include reads what an Include directive in file names. A pattern that matches nothing is fine.
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
			return nil, fmt.Errorf("%s: Include %s: %w", line.pos, pattern, err)
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

// Private-use runes stand in for characters that the lexer would treat otherwise than OpenSSH does.
const (
	hiddenQuote = '\uE001'
	hiddenHash  = '\uE002'
)

// lex splits text into directives. Every block keyword is renamed on the way through the lexer, so that
// all lines come back as plain ones.
func lex(text, path string) (lines []directive, err error) {
	defer func() {
		if r := recover(); r != nil { // the lexer panics on some broken lines
			err = fmt.Errorf("%s: not a valid ssh_config: %v", path, r)
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

// keyPrefix renames every keyword, so that the lexer's package takes no block keyword for its own.
const keyPrefix = "x-"

// hideFromLexer renames the keyword of a line, and hides quotes and those # that start no comment: a comment starts
// at a # that begins a word outside of quotes.
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

// splitArgs splits a directive's value at white space, minding double and single quotes.
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

// matchPattern matches with * (any run of characters) and ? (exactly one), as ssh_config(5) PATTERNS says.
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
		// The last piece must fit at the end; any other piece takes the first place where it fits.
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

// matchPrefix tells whether s starts with what pattern, which has no *, stands for.
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

// matchAny tells whether a pattern matches and no negated pattern (!x) does.
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

// aliases adds to found the concrete names in Host lines that match pattern.
func aliases(lines []directive, pattern string, found []string) []string {
	for _, line := range lines {
		for _, inc := range line.included {
			found = aliases(inc, pattern, found)
		}
		if line.key != "host" {
			continue
		}
		for _, name := range splitArgs(line.value) {
			if name != "" && !strings.ContainsAny(name, "*?!") && matchPattern(pattern, name) && !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
	}
	return found
}
