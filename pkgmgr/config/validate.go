package config

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

// Validate checks a config that a program created: the names, ports and version constraints
// of all hives, and that aliases, addresses and the worker types of a hive are unique. The
// error is an [*operations.Error] with [operations.CodeConfigInvalid] and all problems. A
// config from [Load] or [Parse] is valid.
func (c *Config) Validate() error {
	v := validator{config: c}
	aliases, addresses := map[string]bool{}, map[string]string{}
	for _, h := range c.Hives {
		v.hive(h)
		if aliases[h.Alias] {
			v.report(h, h.Pos, "each hive has a unique alias", "duplicate alias %q", h.Alias)
		}
		aliases[h.Alias] = true
		if first, ok := addresses[h.Address()]; ok {
			v.report(h, h.Pos, "a hive is one account on one machine", "duplicate address %s, also used by hive %q", h.Address(), first)
		} else {
			addresses[h.Address()] = h.Alias
		}
	}
	if len(v.problems) == 0 {
		return nil
	}
	return strict.Invalid(operations.ReasonConfigInvalid, strings.TrimSpace("invalid config "+c.Path), v.problems)
}

// validator collects the problems of a [Config].
type validator struct {
	config   *Config
	problems []operations.Problem
}

func (v *validator) report(h Hive, at Pos, hint, format string, args ...any) {
	p := operations.Problem{Hive: h.Alias, Line: at.Line, Column: at.Column, Message: fmt.Sprintf(format, args...), Hint: hint}
	if at.Line > 0 {
		p.File = v.config.Path
	}
	v.problems = append(v.problems, p)
}

func (v *validator) hive(h Hive) {
	name := func(s, kind string, valid func(string) bool, alphabet string) {
		if !valid(s) {
			v.report(h, h.Pos, "want "+alphabet, "invalid %s %q", kind, s)
		}
	}
	name(h.Alias, "alias", ValidAlias, aliasAlphabet)
	name(h.Hostname, "hostname", ValidHostname, "a host name, an IP address or localhost")
	if h.SSHUser != "" {
		name(h.SSHUser, "ssh_user", ValidUser, userAlphabet)
	}
	if h.SSHPort < 0 || h.SSHPort > maxPort {
		v.report(h, h.Pos, "want 1 to 65535, or 0 for the port in ssh_config", "invalid ssh_port %d", h.SSHPort)
	}
	if h.HivePort < 1 || h.HivePort > maxPort {
		v.report(h, h.Pos, fmt.Sprintf("want 1 to 65535; NewHive sets %d", DefaultHivePort), "invalid hive_port %d", h.HivePort)
	}
	if strings.ContainsFunc(h.SSHKey, unicode.IsControl) {
		v.report(h, h.Pos, "want the path of a private key", "invalid ssh_key %q", h.SSHKey)
	}
	for _, l := range h.Labels {
		name(l, "label", ValidLabel, labelAlphabet)
	}
	types := map[string]bool{}
	for _, w := range h.Workers {
		name(w.Type, "worker type", ValidWorkerType, workerTypeAlphabet)
		name(w.Version, "version", version.ValidConstraint, constraintForms)
		if types[w.Type] {
			v.report(h, w.Pos, "a hive has one version of each worker", "duplicate worker %q", w.Type)
		}
		types[w.Type] = true
	}
}
