package config

import (
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/suggest"
)

// Select gives the hives with one of the aliases that have all of the labels, in
// the order of the config. No aliases mean every hive, no labels any. The result
// is empty if no hive has the labels; an alias that no hive has is an
// [*operations.Error] with [operations.CodeNotFound] that names the nearest one.
func (c *Config) Select(aliases, labels []string) ([]Hive, error) {
	var known []string
	for _, h := range c.Hives {
		known = append(known, h.Alias)
	}
	for _, a := range aliases {
		if !slices.Contains(known, a) {
			return nil, unknownHive(a, known)
		}
	}
	var selected []Hive
	for _, h := range c.Hives {
		if (len(aliases) == 0 || slices.Contains(aliases, h.Alias)) && hasAll(h.Labels, labels) {
			selected = append(selected, h)
		}
	}
	return selected, nil
}

func hasAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(l string) bool { return !slices.Contains(have, l) })
}

func unknownHive(alias string, known []string) error {
	e := &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownHive, Subject: operations.SubjectHive.Named(alias), Hive: alias, Message: "the config has no such hive"}
	if near := suggest.Nearest(alias, known); near != "" {
		e.Message += fmt.Sprintf("; did you mean %q?", near)
	}
	return e
}
