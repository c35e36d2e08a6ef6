package config

import (
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/suggest"
)

// Select returns the hives with the given aliases that have all labels, in the order of the
// config. Without aliases it considers all hives. The result is empty if no hive has the
// labels. An unknown alias is an [*operations.Error] with [operations.CodeNotFound] and the
// nearest alias in the message.
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
	e := &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownHive, Subject: operations.SubjectHive.Named(alias), Hive: alias, Message: "unknown hive"}
	if near := suggest.Nearest(alias, known); near != "" {
		e.Message += fmt.Sprintf("; did you mean %q?", near)
	}
	return e
}
