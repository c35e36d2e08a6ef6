package pkgmgr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

// FromStates returns a config that matches the current state of machines: it contains the
// hives on which rbee is installed, with the settings and workers that they report.
// Machines that could not be read or have no rbee are skipped, each with a warning.
// [plan.Diff] finds no drift between the machines and this config.
func FromStates(states []plan.HiveState) (*config.Config, []operations.ValidateWarning) {
	c := &config.Config{}
	warnings := []operations.ValidateWarning{}
	warn := func(alias, format string, args ...any) {
		warnings = append(warnings, operations.ValidateWarning{Hive: alias, Warning: fmt.Sprintf(format, args...)})
	}
	machines := map[[3]string]string{} // alias by host name, user and home directory
	for _, s := range states {
		switch {
		case s.State == nil && s.Err != nil:
			warn(s.Hive.Alias, "skipped: cannot read the machine: %s", s.Err.Message)
			continue
		case s.State == nil || s.State.Rbee == nil:
			warn(s.Hive.Alias, "skipped: rbee is not installed")
			continue
		}
		identity := [3]string{s.State.Hostname, s.State.User, s.State.Home}
		h := hiveFromState(s)
		if other, ok := machines[identity]; ok && other == h.Alias {
			continue // the same hive at another address
		}
		machines[identity] = h.Alias
		for n := 2; slices.ContainsFunc(c.Hives, func(o config.Hive) bool { return o.Alias == h.Alias }); n++ {
			previous := h.Alias
			h.Alias = fmt.Sprintf("%s-%d", strings.TrimSuffix(previous, fmt.Sprintf("-%d", n-1)), n)
			warn(h.Alias, "renamed from %s: another hive has this alias", previous)
		}
		c.Hives = append(c.Hives, h)
	}
	return c, warnings
}

// hiveFromState returns a hive with the settings and workers that the machine reports.
func hiveFromState(s plan.HiveState) config.Hive {
	h := s.Hive
	h.Pos, h.AutoStart = config.Pos{}, s.State.Daemon.Running
	if h.HivePort == 0 {
		h.HivePort = config.DefaultHivePort
	}
	if set := s.State.Settings; set != nil && config.ValidAlias(set.Alias) {
		h.Alias, h.HivePort, h.AutoStart, h.Labels = set.Alias, set.HivePort, set.AutoStart, set.Labels
	}
	h.Workers = nil
	for _, w := range s.State.Workers {
		requested := w.Requested
		if requested == "" {
			requested = version.Latest
		}
		h.Workers = append(h.Workers, config.Worker{Type: w.Type, Version: requested})
	}
	return h
}

// HiveAt returns a hive for an address "[user@]host[:port]". An IPv6 address with a port
// is in brackets. The alias is derived from the host name.
func HiveAt(address string) (config.Hive, error) {
	h := config.NewHive("", "")
	rest := address
	if user, host, ok := strings.Cut(address, "@"); ok {
		h.SSHUser, rest = user, host
		if !config.ValidUser(user) {
			return config.Hive{}, fmt.Errorf("invalid user name %q in %q", user, address)
		}
	}
	host, port, err := config.SplitHostPort(rest)
	if err != nil {
		return config.Hive{}, fmt.Errorf("invalid address %q: %w", address, err)
	}
	h.Hostname, h.SSHPort = host, port
	if !config.ValidHostname(host) {
		return config.Hive{}, fmt.Errorf("invalid host name %q in %q", host, address)
	}
	h.Alias = aliasFor(host)
	return h, nil
}

// aliasFor derives an alias from a host name. It replaces invalid characters with dashes.
func aliasFor(host string) string {
	alias := strings.Map(func(r rune) rune {
		if r < 0x80 && config.ValidAlias("a"+string(r)) {
			return r
		}
		return '-'
	}, host)
	alias = strings.TrimLeft(alias, "-._")
	if len(alias) > 63 {
		alias = alias[:63]
	}
	if alias == "" {
		return "hive"
	}
	return alias
}
