package config

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

// configFile is the syntax of a config file.
type configFile struct {
	Hives strict.Value[[]hiveEntry] `key:"hive"`
}

type hiveEntry struct {
	Pos       strict.Pos
	Alias     strict.Value[string]                 `key:"alias,required" like:"\"gpu-1\""`
	Hostname  strict.Value[string]                 `key:"hostname,required" like:"\"192.168.1.100\""`
	SSHUser   strict.Value[string]                 `key:"ssh_user" like:"\"vince\""`
	SSHPort   strict.Value[int64]                  `key:"ssh_port" like:"22"`
	SSHKey    strict.Value[string]                 `key:"ssh_key" like:"\"~/.ssh/id_ed25519\""`
	HivePort  strict.Value[int64]                  `key:"hive_port" like:"8600"`
	Labels    strict.Value[[]strict.Value[string]] `key:"labels" like:"[\"gpu\", \"office\"]"`
	Workers   strict.Value[[]workerEntry]          `key:"workers" like:"{ type = \"vllm\", version = \"latest\" }"`
	AutoStart strict.Value[bool]                   `key:"auto_start"`
}

type workerEntry struct {
	Pos     strict.Pos
	Type    strict.Value[string] `key:"type,required" like:"\"vllm\""`
	Version strict.Value[string] `key:"version" like:"\"latest\""`
}

// config checks the values of the file and returns the config and the problems.
func (f *configFile) config() (*Config, []strict.Problem) {
	var c configCheck
	out := &Config{}
	for i := range f.Hives.V {
		c.item = i
		out.Hives = append(out.Hives, c.hive(&f.Hives.V[i]))
	}
	c.unique(f, out)
	return out, c.problems
}

// configCheck converts a config file to a [Config] and collects its problems.
type configCheck struct {
	item     int
	problems []strict.Problem
}

func (c *configCheck) report(at strict.Pos, hint, format string, args ...any) {
	c.problems = append(c.problems, strict.Problem{Pos: at, Item: c.item, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *configCheck) hive(e *hiveEntry) Hive {
	h := Hive{
		Alias:     c.name(e.Alias, "alias", ValidAlias, aliasAlphabet),
		Hostname:  c.hostname(e.Hostname),
		SSHUser:   c.name(e.SSHUser, "ssh_user", ValidUser, userAlphabet),
		SSHPort:   c.port(e.SSHPort, "ssh_port", 0),
		SSHKey:    c.path(e.SSHKey),
		HivePort:  c.port(e.HivePort, "hive_port", DefaultHivePort),
		AutoStart: !e.AutoStart.Set || e.AutoStart.V,
		Pos:       Pos(e.Pos),
	}
	for _, l := range e.Labels.V {
		h.Labels = append(h.Labels, c.name(l, "label", ValidLabel, labelAlphabet))
	}
	for _, w := range e.Workers.V {
		h.Workers = append(h.Workers, c.worker(w, h.Workers))
	}
	return h
}

func (c *configCheck) worker(e workerEntry, before []Worker) Worker {
	w := Worker{
		Type:    c.name(e.Type, "worker type", ValidWorkerType, workerTypeAlphabet),
		Version: c.name(e.Version, "version", version.ValidConstraint, constraintForms),
		Pos:     Pos(e.Pos),
	}
	if w.Version == "" {
		w.Version = version.Latest
	}
	for _, b := range before {
		if e.Type.Set && b.Type == w.Type {
			c.report(e.Type.Pos, "a hive has one version of each worker", "duplicate worker %q, first defined on line %d", w.Type, b.Pos.Line)
			break
		}
	}
	return w
}

// name checks a value with a restricted alphabet, which the hint describes.
func (c *configCheck) name(v strict.Value[string], kind string, valid func(string) bool, alphabet string) string {
	if v.Set && !valid(v.V) {
		c.report(v.Pos, "want "+alphabet, "invalid %s %q", kind, v.V)
	}
	return v.V
}

func (c *configCheck) port(v strict.Value[int64], key string, absent int) int {
	if !v.Set {
		return absent
	}
	if v.V < 1 || v.V > maxPort {
		c.report(v.Pos, "want 1 to 65535", "invalid %s %d", key, v.V)
		return absent
	}
	return int(v.V)
}

func (c *configCheck) path(v strict.Value[string]) string {
	if v.Set && (v.V == "" || strings.ContainsFunc(v.V, unicode.IsControl)) {
		c.report(v.Pos, "want the path of a private key", "invalid ssh_key %q", v.V)
	}
	return v.V
}

// hostname checks a hostname. It removes the brackets of an IPv6 address.
func (c *configCheck) hostname(v strict.Value[string]) string {
	host := v.V
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.Contains(inner, ":") {
		host = strings.TrimSuffix(inner, "]")
	}
	if !v.Set || ValidHostname(host) && (host == v.V || len(host) == len(v.V)-2) {
		return host
	}
	hint := "want a host name, an IP address or localhost"
	if user, _, ok := strings.Cut(v.V, "@"); ok && ValidUser(user) {
		hint = "the user belongs in ssh_user"
	} else if name, _, ok := strings.Cut(v.V, ":"); ok && ValidHostname(name) {
		hint = "the port belongs in ssh_port"
	}
	c.report(v.Pos, hint, "invalid hostname %q", v.V)
	return v.V
}

// unique reports hives with the same alias or the same address.
func (c *configCheck) unique(f *configFile, out *Config) {
	aliases, addresses := map[string]int{}, map[string]int{}
	for i, h := range out.Hives {
		c.item = i
		e := f.Hives.V[i]
		if first, ok := aliases[h.Alias]; ok && e.Alias.Set {
			c.report(e.Alias.Pos, "each hive has a unique alias", "duplicate alias %q, first defined on line %d", h.Alias, out.Hives[first].Pos.Line)
		} else if e.Alias.Set {
			aliases[h.Alias] = i
		}
		if !e.Hostname.Set {
			continue
		}
		if first, ok := addresses[h.Address()]; ok {
			c.report(e.Hostname.Pos, "a hive is one account on one machine", "duplicate address %s, also used by hive %q on line %d", h.Address(), out.Hives[first].Alias, out.Hives[first].Pos.Line)
		} else {
			addresses[h.Address()] = i
		}
	}
}
