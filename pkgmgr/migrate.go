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

// FromStates makes the config that a fleet already is: the hives on which rbee
// is installed, with the settings and workers that the machines themselves
// name. Hosts that could not be read or have no rbee are left out, each with a
// warning. [plan.Diff] finds no drift between the machines and this config.
func FromStates(states []plan.HiveState) (*config.Config, []operations.ValidateWarning) {
	c := &config.Config{}
	warnings := []operations.ValidateWarning{}
	warn := func(alias, format string, args ...any) {
		warnings = append(warnings, operations.ValidateWarning{Hive: alias, Warning: fmt.Sprintf(format, args...)})
	}
	machines := map[[3]string]string{} // who is there: host, user, home → alias
	for _, s := range states {
		switch {
		case s.State == nil && s.Err != nil:
			warn(s.Hive.Alias, "left out, it could not be read: %s", s.Err.Message)
			continue
		case s.State == nil || s.State.Rbee == nil:
			warn(s.Hive.Alias, "left out, rbee is not installed there")
			continue
		}
		identity := [3]string{s.State.Hostname, s.State.User, s.State.Home}
		h := hiveFromState(s)
		if other, twice := machines[identity]; twice && other == h.Alias {
			continue // the same hive under two addresses: the first one serves
		}
		machines[identity] = h.Alias
		for n := 2; slices.ContainsFunc(c.Hives, func(o config.Hive) bool { return o.Alias == h.Alias }); n++ {
			was := h.Alias
			h.Alias = fmt.Sprintf("%s-%d", strings.TrimSuffix(was, fmt.Sprintf("-%d", n-1)), n)
			warn(h.Alias, "another hive calls itself %s already", was)
		}
		c.Hives = append(c.Hives, h)
	}
	return c, warnings
}

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

// HiveAt makes a hive of "[user@]host[:port]", as a person would type it; an
// IPv6 address with a port stands in brackets. Its alias is made of the host.
func HiveAt(address string) (config.Hive, error) {
	h := config.NewHive("", "")
	rest := address
	if user, host, ok := strings.Cut(address, "@"); ok {
		h.SSHUser, rest = user, host
		if !config.ValidUser(user) {
			return config.Hive{}, fmt.Errorf("%q is no user name, in %q", user, address)
		}
	}
	host, port, err := config.SplitHostPort(rest)
	if err != nil {
		return config.Hive{}, fmt.Errorf("%q is no host to look at: %w", address, err)
	}
	h.Hostname, h.SSHPort = host, port
	if !config.ValidHostname(host) {
		return config.Hive{}, fmt.Errorf("%q is no host name, in %q", host, address)
	}
	h.Alias = aliasFor(host)
	return h, nil
}

// aliasFor makes an alias of a host name: what an alias may not hold becomes a dash.
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
