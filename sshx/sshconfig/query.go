package sshconfig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// query collects the ssh_config values for one host. The first value of each keyword is used, as in OpenSSH.
type query struct {
	alias    string
	home     string
	local    string              // name of the current user
	values   map[string]string   // single values by keyword
	lists    map[string][]string // values of keywords that can be repeated
	final    bool                // second pass, for Match final
	hasFinal bool                // a Match final was found
	err      error
}

// lookup evaluates all lines. If they contain "Match final", it evaluates them a second time.
func (q *query) lookup(lines []directive) error {
	q.walk(lines, true)
	if q.hasFinal && q.err == nil {
		q.final = true
		q.walk(lines, true)
	}
	return q.err
}

// walk evaluates lines in order. enabled is false for a file that is included in a block that does not apply: the Host and
// Match lines of that file never apply.
func (q *query) walk(lines []directive, enabled bool) {
	active := enabled
	for _, line := range lines {
		if q.err != nil {
			return
		}
		switch line.key {
		case "host":
			active = enabled && matchAny(splitArgs(line.value), q.alias)
		case "match":
			active = enabled && q.match(line)
		case "include":
			for _, inc := range line.included {
				q.walk(inc, active)
			}
		default:
			if active {
				q.set(line.key, line.value)
			}
		}
	}
}

func (q *query) set(key, value string) {
	switch key {
	case "identityfile", "certificatefile":
		value = unquoteArg(value)
		if !slices.Contains(q.lists[key], value) {
			q.lists[key] = append(q.lists[key], value)
		}
		return
	case "proxycommand", "proxyjump": // only the first of the two is used
		if q.values["proxycommand"] != "" || q.values["proxyjump"] != "" {
			return
		}
	case "userknownhostsfile", "globalknownhostsfile": // can have several values
	default:
		value = unquoteArg(value)
	}
	if _, ok := q.values[key]; !ok && value != "" {
		q.values[key] = value
	}
}

func (q *query) hostName() string {
	name := q.values["hostname"]
	if name == "" {
		return q.alias
	}
	return strings.NewReplacer("%%", "%", "%h", q.alias).Replace(name)
}

func (q *query) userName() string {
	if name := q.values["user"]; name != "" {
		return name
	}
	return q.local
}

func (q *query) port() string {
	if p := q.values["port"]; p != "" {
		return p
	}
	return "22"
}

// match evaluates a Match line. The criteria all, host, originalhost, user, localuser, tagged, exec and final work as in
// OpenSSH. A block with any other criterion (canonical, localnetwork, or a future one), negated or not, never applies.
func (q *query) match(line directive) bool {
	args := splitArgs(line.value)
	if len(args) == 0 {
		return false
	}
	for len(args) > 0 {
		name, negated := strings.CutPrefix(strings.ToLower(args[0]), "!")
		args = args[1:]
		var ok bool
		switch name {
		case "all":
			ok = true
		case "final":
			q.hasFinal, ok = true, q.final
		default:
			if len(args) == 0 {
				return false
			}
			var supported bool
			if ok, supported = q.criterion(name, args[0]); !supported {
				return false
			}
			args = args[1:]
		}
		if ok == negated {
			return false
		}
	}
	return true
}

func (q *query) criterion(name, arg string) (ok, supported bool) {
	list := strings.Split(arg, ",")
	switch name {
	case "host":
		return matchAny(list, q.hostName()), true
	case "originalhost":
		return matchAny(list, q.alias), true
	case "user":
		return matchAny(list, q.userName()), true
	case "localuser":
		return matchAny(list, q.local), true
	case "tagged":
		return matchAny(list, q.values["tag"]), true
	case "exec":
		return q.matchExec(arg), true
	}
	return false, false
}

// matchExecTimeout limits the time of one "Match exec" command.
const matchExecTimeout = 10 * time.Second

// matchExec runs the command of a Match exec line and reports whether its exit status is 0.
func (q *query) matchExec(command string) bool {
	command, err := q.shellTokens(command)
	if err != nil {
		q.err = fmt.Errorf("cannot evaluate Match exec: %w", err)
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), matchExecTimeout)
	defer cancel()
	return exec.CommandContext(ctx, "/bin/sh", "-c", command).Run() == nil
}

// shellTokens expands the tokens of a shell command. It returns an error if a host or user name contains characters that are
// special to a shell.
func (q *query) shellTokens(command string) (string, error) {
	for _, name := range []string{q.alias, q.hostName(), q.userName()} {
		if strings.HasPrefix(name, "-") || strings.ContainsAny(name, " \t\r\n'`\"$\\;&<>|(){}") {
			return "", fmt.Errorf("invalid host or user name %q: want no characters that are special to a shell", name)
		}
	}
	return expandTokens(command, q.tokens())
}

// tokens returns the values of the % tokens; see TOKENS in ssh_config(5).
func (q *query) tokens() map[byte]string {
	machine, _ := os.Hostname()
	short, _, _ := strings.Cut(machine, ".")
	key := q.values["hostkeyalias"]
	if key == "" {
		key = q.alias
	}
	return map[byte]string{
		'%': "%", 'd': q.home, 'h': q.hostName(), 'i': strconv.Itoa(os.Getuid()), 'k': key, 'L': short, 'l': machine,
		'n': q.alias, 'p': q.port(), 'r': q.userName(), 'u': q.local,
	}
}

func expandTokens(s string, tokens map[byte]string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", fmt.Errorf("single %% at the end of %q", s)
		}
		v, ok := tokens[s[i]]
		if !ok {
			return "", fmt.Errorf("unknown token %%%c in %q", s[i], s)
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

// path expands ~, ${VARIABLE} and tokens.
func (q *query) path(s string) (string, error) {
	var missing string
	s = expandTilde(s, q.home)
	s = expandBraces(s, &missing)
	if missing != "" {
		return "", fmt.Errorf("environment variable %s in %q is not set", missing, s)
	}
	s, err := expandTokens(s, q.tokens())
	if err != nil {
		return "", err
	}
	return filepath.Abs(s)
}

// expandBraces replaces ${NAME} with the value of the environment variable. It sets *missing to the name of a variable that is
// not set.
func expandBraces(s string, missing *string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "${")
		b.WriteString(before)
		name, after, closed := strings.Cut(rest, "}")
		if !ok || !closed {
			b.WriteString(s[len(before):])
			return b.String()
		}
		value, set := os.LookupEnv(name)
		if !set {
			*missing = name
		}
		b.WriteString(value)
		s = after
	}
}

func (q *query) paths(list []string) ([]string, error) {
	var out []string
	for _, s := range list {
		p, err := q.path(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// unquoteArg returns the first word of a value, without quotes.
func unquoteArg(value string) string {
	if args := splitArgs(value); len(args) > 0 {
		return args[0]
	}
	return ""
}

// expandTilde expands ~/ and ~user/.
func expandTilde(path, home string) string {
	if !strings.HasPrefix(path, "~") {
		return path
	}
	name, rest, _ := strings.Cut(path[1:], "/")
	if name == "" {
		return filepath.Join(home, rest)
	}
	if u, err := user.Lookup(name); err == nil {
		return filepath.Join(u.HomeDir, rest)
	}
	return path
}
