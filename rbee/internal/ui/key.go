package ui

import (
	"io"
	"strings"
	"time"
)

// KeyRow is an API key without its secret.
type KeyRow struct {
	Name, ID, Scope string
	CreatedAt       time.Time
}

// Keys writes API keys as a table.
func Keys(w io.Writer, s Style, keys []KeyRow) error {
	var b strings.Builder
	t := table{header: []string{"NAME", "ID", "SCOPE", "CREATED"}}
	for _, k := range keys {
		t.add(k.Name, k.ID, k.Scope, k.CreatedAt.Local().Format(time.DateTime))
	}
	if len(keys) == 0 {
		b.WriteString("No API keys.\n")
	} else {
		t.write(&b, s, "")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
