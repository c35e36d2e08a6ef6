package sshconfig

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// defaultKeepAliveCount is the default of ServerAliveCountMax in OpenSSH.
const defaultKeepAliveCount = 3

// Settings are the ssh_config settings for a [Target]. Paths are absolute and tokens are expanded.
type Settings struct {
	Alias    string // host of the target, as the user wrote it
	HostName string // host name or address to connect to
	User     string
	Port     int

	KeyFile          string   // key file of the target, offered first; may be empty
	IdentityFiles    []string // IdentityFile values, or the default keys
	CertificateFiles []string
	IdentitiesOnly   bool   // offer only agent keys that a file selects
	IdentityAgent    string // socket of the SSH agent; empty means no agent

	Jump         []Settings // jump hosts of ProxyJump, in the order of connecting; may be nil
	ProxyCommand string     // command whose stdin and stdout are the connection; may be empty

	KnownHosts     []string // known_hosts files; new keys are added to the first
	HostKeyAlias   string
	StrictHostKeys string // "yes", "ask" or "accept-new"
	HashKnownHosts bool

	ConnectTimeout    time.Duration // 0 if not set
	KeepAlive         time.Duration // ServerAliveInterval; 0 if not set
	KeepAliveCountMax int           // ServerAliveCountMax
}

// Address returns the resolved user@host:port.
func (s Settings) Address() string {
	return Target{Host: s.HostName, User: s.User, Port: s.Port}.String()
}

// HostKeyName returns the host name and port to look up in known_hosts.
func (s Settings) HostKeyName() string {
	if s.HostKeyAlias != "" {
		return net.JoinHostPort(s.HostKeyAlias, "22")
	}
	return net.JoinHostPort(s.HostName, strconv.Itoa(s.Port))
}

// resolve returns the settings for t, including its jump hosts. route lists the aliases that are being resolved. A host on
// the route is not used as a jump host again, so a ProxyJump in "Host *" does not apply to the jump host itself.
func (c *Config) resolve(t Target, route []string) (Settings, error) {
	t.Host = unbracket(t.Host)
	if t.Host == "" {
		return Settings{}, fmt.Errorf("empty host name")
	}
	q := &query{alias: t.Host, home: c.home, local: c.user, values: map[string]string{}, lists: map[string][]string{}}
	if t.User != "" {
		q.values["user"] = t.User
	}
	if t.Port != 0 {
		q.values["port"] = strconv.Itoa(t.Port)
	}
	if err := q.lookup(c.lines); err != nil {
		return Settings{}, err
	}
	r, err := q.settings(c.knownHosts)
	if err != nil {
		return Settings{}, err
	}
	if t.KeyFile != "" {
		if r.KeyFile, err = filepath.Abs(expandTilde(t.KeyFile, c.home)); err != nil {
			return Settings{}, err
		}
	}
	if jump := q.values["proxyjump"]; jump != "" && jump != "none" {
		r.Jump, err = c.resolveJump(jump, append(slices.Clone(route), t.Host))
	}
	return r, err
}

// resolveJump resolves the jump hosts of a ProxyJump value. Only the first one may have a ProxyJump itself; each of the others
// is reached through the previous one.
func (c *Config) resolveJump(value string, route []string) ([]Settings, error) {
	var hops []Settings
	for i, spec := range strings.Split(value, ",") {
		t, err := parseJump(strings.TrimSpace(spec))
		if err != nil {
			return nil, err
		}
		if slices.Contains(route, t.Host) {
			return nil, nil
		}
		hop, err := c.resolve(t, route)
		if err != nil {
			return nil, fmt.Errorf("ProxyJump %s: %w", spec, err)
		}
		if i == 0 {
			hops = append(hops, hop.Jump...)
		} else {
			hop.ProxyCommand = ""
		}
		hop.Jump = nil
		hops = append(hops, hop)
	}
	return hops, nil
}

// parseJump parses [user@]host[:port] or ssh://[user@]host[:port].
func parseJump(spec string) (Target, error) {
	var t Target
	rest := strings.TrimSuffix(strings.TrimPrefix(spec, "ssh://"), "/")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		t.User, rest = rest[:i], rest[i+1:]
	}
	t.Host = rest
	i := strings.LastIndexByte(rest, ':')
	bareIPv6 := strings.Count(rest, ":") > 1 && !strings.HasPrefix(rest, "[")
	if i >= 0 && !bareIPv6 && !strings.HasSuffix(rest, "]") {
		port, err := parsePort(rest[i+1:])
		if err != nil {
			return Target{}, fmt.Errorf("ProxyJump %s: %w", spec, err)
		}
		t.Host, t.Port = rest[:i], port
	}
	t.Host = unbracket(t.Host)
	if t.Host == "" {
		return Target{}, fmt.Errorf("invalid ProxyJump %q: want [user@]host[:port]", spec)
	}
	return t, nil
}

// settings converts the collected values to Settings. It returns the first error.
func (q *query) settings(knownHosts []string) (r Settings, err error) {
	r = Settings{
		Alias:          q.alias,
		HostName:       strings.ToLower(unbracket(q.hostName())),
		User:           q.userName(),
		IdentitiesOnly: isYes(q.values["identitiesonly"]),
		HashKnownHosts: isYes(q.values["hashknownhosts"]),
		HostKeyAlias:   q.values["hostkeyalias"],
		StrictHostKeys: strictness(q.values["stricthostkeychecking"]),
		KnownHosts:     knownHosts,
	}
	// check records the first error, with its keyword.
	check := func(keyword string, e error) {
		if e != nil && err == nil {
			err = fmt.Errorf("%s: %w", keyword, e)
		}
	}
	var e error
	r.Port, e = parsePort(q.port())
	check("Port", e)
	r.ConnectTimeout, e = parseInterval(q.values["connecttimeout"])
	check("ConnectTimeout", e)
	r.KeepAlive, e = parseInterval(q.values["serveraliveinterval"])
	check("ServerAliveInterval", e)
	r.KeepAliveCountMax = defaultKeepAliveCount
	if v := q.values["serveralivecountmax"]; v != "" {
		r.KeepAliveCountMax, e = strconv.Atoi(v)
		check("ServerAliveCountMax", e)
	}
	r.IdentityFiles, e = q.identityFiles()
	check("IdentityFile", e)
	r.CertificateFiles, e = q.paths(q.lists["certificatefile"])
	check("CertificateFile", e)
	r.IdentityAgent, e = q.agent()
	check("IdentityAgent", e)
	if c := q.values["proxycommand"]; c != "" && c != "none" {
		r.ProxyCommand, e = q.shellTokens(c)
		check("ProxyCommand", e)
	}
	if knownHosts == nil {
		r.KnownHosts, e = q.knownHosts()
		check("UserKnownHostsFile", e)
	}
	return r, err
}

// identityFiles returns the configured keys, or the default keys of OpenSSH except hardware keys.
func (q *query) identityFiles() ([]string, error) {
	list := q.lists["identityfile"]
	if len(list) == 0 {
		list = []string{"~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519"}
	}
	list = slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "none" })
	return q.paths(list)
}

// agent returns the socket of the SSH agent from IdentityAgent, which can be "none", a path, SSH_AUTH_SOCK or $VARIABLE.
func (q *query) agent() (string, error) {
	switch v := q.values["identityagent"]; {
	case v == "none":
		return "", nil
	case v == "" || v == "SSH_AUTH_SOCK":
		return os.Getenv("SSH_AUTH_SOCK"), nil
	case strings.HasPrefix(v, "$") && !strings.HasPrefix(v, "${"):
		return os.Getenv(v[1:]), nil
	default:
		return q.path(v)
	}
}

func (q *query) knownHosts() ([]string, error) {
	list := splitArgs(q.values["userknownhostsfile"])
	if len(list) == 0 {
		list = []string{"~/.ssh/known_hosts", "~/.ssh/known_hosts2"}
	}
	global := splitArgs(q.values["globalknownhostsfile"])
	if len(global) == 0 {
		global = []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	}
	// New keys are added to the first file, so "none" becomes /dev/null.
	if list[0] == "none" {
		list[0] = "/dev/null"
	}
	list = slices.DeleteFunc(append(list, global...), func(s string) bool { return s == "none" })
	return q.paths(list)
}

func isYes(v string) bool {
	v = strings.ToLower(v)
	return v == "yes" || v == "true"
}

// strictness normalizes the value of StrictHostKeyChecking. It maps "no" to "accept-new": a changed key is never accepted.
func strictness(v string) string {
	switch strings.ToLower(v) {
	case "yes", "true":
		return "yes"
	case "no", "off", "false", "accept-new":
		return "accept-new"
	}
	return "ask"
}

func parsePort(s string) (int, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("invalid port %q: want 1 to 65535", s)
	}
	return int(port), nil
}

// parseInterval parses seconds, or a time such as 1m30s (TIME FORMATS in sshd_config(5)). It returns 0 for "" and "none".
func parseInterval(s string) (time.Duration, error) {
	if s == "" || strings.EqualFold(s, "none") {
		return 0, nil
	}
	units := map[byte]time.Duration{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 7 * 86400}
	const limit = 100 * 365 * 86400 // seconds; prevents overflow
	var total time.Duration
	for rest := strings.ToLower(s); rest != ""; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseUint(rest[:digits], 10, 31)
		unit := time.Duration(1)
		if rest = rest[digits:]; rest != "" {
			unit, rest = units[rest[0]], rest[1:]
		}
		total += time.Duration(n) * unit
		if err != nil || unit == 0 || total > limit {
			return 0, fmt.Errorf("invalid time %q: want a time such as 30 or 1m30s", s)
		}
	}
	return total * time.Second, nil
}
