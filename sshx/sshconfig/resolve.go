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

// defaultKeepAliveCount is OpenSSH's default of ServerAliveCountMax.
const defaultKeepAliveCount = 3

// Settings is what ssh_config makes of a [Target]. Paths are absolute, tokens are expanded.
type Settings struct {
	Alias    string // the target's host as the user wrote it
	HostName string // name or address to connect to
	User     string
	Port     int

	KeyFile          string   // the target's own key, offered first; "" for none
	IdentityFiles    []string // IdentityFile lines, or the default keys
	CertificateFiles []string
	IdentitiesOnly   bool   // keys of the agent that no file names are not offered
	IdentityAgent    string // the agent's socket; "" for none

	Jump         []Settings // hops of ProxyJump, nearest first; nil for a direct connection
	ProxyCommand string     // a command whose stdin and stdout are the connection; "" for none

	KnownHosts     []string // new keys go to the first one
	HostKeyAlias   string
	StrictHostKeys string // "yes", "ask" or "accept-new"
	HashKnownHosts bool

	ConnectTimeout    time.Duration // 0 when not set
	KeepAlive         time.Duration // ServerAliveInterval; 0 when not set
	KeepAliveCountMax int           // ServerAliveCountMax
}

// Address is the resolved user@host:port.
func (r Settings) Address() string {
	return Target{Host: r.HostName, User: r.User, Port: r.Port}.String()
}

// HostKeyName is the name under which known_hosts knows the host, with a port.
func (r Settings) HostKeyName() string {
	if r.HostKeyAlias != "" {
		return net.JoinHostPort(r.HostKeyAlias, "22")
	}
	return net.JoinHostPort(r.HostName, strconv.Itoa(r.Port))
}

// resolve follows ProxyJump. way holds the aliases that are being resolved: a hop never jumps through a host that is
// already on the way, so that "Host *" with a ProxyJump does not send the jump host through itself.
func (c *Config) resolve(t Target, way []string) (Settings, error) {
	t.Host = unbracket(t.Host)
	if t.Host == "" {
		return Settings{}, fmt.Errorf("no host is given")
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
		r.Jump, err = c.resolveJump(jump, append(slices.Clone(way), t.Host))
	}
	return r, err
}

// resolveJump resolves the hops of a ProxyJump value. The first hop may itself jump; the others go through the one
// before them.
func (c *Config) resolveJump(value string, way []string) ([]Settings, error) {
	var hops []Settings
	for i, spec := range strings.Split(value, ",") {
		t, err := parseJump(strings.TrimSpace(spec))
		if err != nil {
			return nil, err
		}
		if slices.Contains(way, t.Host) {
			return nil, nil
		}
		hop, err := c.resolve(t, way)
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

// parseJump reads [user@]host[:port] or ssh://[user@]host[:port].
func parseJump(spec string) (Target, error) {
	var t Target
	rest := strings.TrimSuffix(strings.TrimPrefix(spec, "ssh://"), "/")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		t.User, rest = rest[:i], rest[i+1:]
	}
	t.Host = rest
	i := strings.LastIndexByte(rest, ':')
	bare6 := strings.Count(rest, ":") > 1 && !strings.HasPrefix(rest, "[")
	if i >= 0 && !bare6 && !strings.HasSuffix(rest, "]") {
		port, err := parsePort(rest[i+1:])
		if err != nil {
			return Target{}, fmt.Errorf("ProxyJump %s: %w", spec, err)
		}
		t.Host, t.Port = rest[:i], port
	}
	t.Host = unbracket(t.Host)
	if t.Host == "" {
		return Target{}, fmt.Errorf("ProxyJump %q names no host", spec)
	}
	return t, nil
}

// settings reads the collected values.
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
	// Every problem is reported under the keyword that has it; the first one is enough.
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

// identityFiles are the configured keys, or the default ones of OpenSSH that need no hardware.
func (q *query) identityFiles() ([]string, error) {
	list := q.lists["identityfile"]
	if len(list) == 0 {
		list = []string{"~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519"}
	}
	list = slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "none" })
	return q.paths(list)
}

// agent is the agent's socket: IdentityAgent, which may be "none", a path, SSH_AUTH_SOCK or $VARIABLE.
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
	// New keys go to the first file, so a user who wants none gets a file that keeps nothing.
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

// strictness maps StrictHostKeyChecking. "no" is treated as accept-new: a changed key is never accepted.
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
		return 0, fmt.Errorf("%q is not a port number", s)
	}
	return int(port), nil
}

// parseInterval reads seconds, or sshd_config(5) TIME FORMATS such as 1m30s. "" and "none" are 0.
func parseInterval(s string) (time.Duration, error) {
	if s == "" || strings.EqualFold(s, "none") {
		return 0, nil
	}
	units := map[byte]time.Duration{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 7 * 86400}
	const limit = 100 * 365 * 86400 // seconds; keeps the sum far from overflow
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
			return 0, fmt.Errorf("%q is not a time such as 30 or 1m30s", s)
		}
	}
	return total * time.Second, nil
}
