package config

import (
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/suggest"
)

// Select returns the hives with the given aliases that have all labels, in the order of the
// config. Without aliases it considers all hives. The result is empty if no hive has the
// labels. If an alias is unknown, the error is an [*operations.Error] with
// [operations.CodeNotFound]; its message contains the nearest alias, if any.
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
		if (len(aliases) == 0 || slices.Contains(aliases, h.Alias)) && containsAll(h.Labels, labels) {
			selected = append(selected, h)
		}
	}
	return selected, nil
}

func containsAll(list, values []string) bool {
	return !slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(list, v) })
}

func unknownHive(alias string, known []string) error {
	e := &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownHive, Subject: operations.SubjectHive.WithName(alias), Hive: alias, Message: "unknown hive"}
	if near := suggest.Nearest(alias, known); near != "" {
		e.Message += fmt.Sprintf("; did you mean %q?", near)
	}
	return e
}
