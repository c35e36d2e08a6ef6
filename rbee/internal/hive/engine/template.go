package engine

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/machine"
)

// Placeholders maps the names of the placeholders in a recipe, without braces, to their
// values. The type Start of package catalog documents the placeholders. A key that ends in a
// question mark has the value of the optional form of a placeholder, which is 0 unless the
// user has set the value.
type Placeholders map[string]string

// placeholderExpr matches a placeholder of a recipe, such as {port}, or the optional form
// of a placeholder, such as {context?}.
var placeholderExpr = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_]*)(\??)\}`)

// StartOptions contains the parameters of one start of an engine.
type StartOptions struct {
	StateDir  string // directory for the files of this worker
	Port      int    // port to listen on
	ModelName string // name of the model in the request
	Model     Model
	Devices   []operations.WorkerDevice

	// ContextLength and Parallel are the requested values; 0 if not set.
	ContextLength, Parallel int
}

// NewPlaceholders returns the values of the placeholders for one start of an engine.
func NewPlaceholders(e Engine, s StartOptions) Placeholders {
	var indices []string
	for _, d := range s.Devices {
		indices = append(indices, strconv.Itoa(d.Index))
	}
	file := ""
	if s.Model.IsFile() {
		file = filepath.Base(s.Model.Path)
	}
	length, parallel := cmp.Or(s.ContextLength, s.Model.Context), max(1, s.Parallel)
	return Placeholders{
		"entry": e.Entry, "payload": e.Payload, "state": s.StateDir, "host": Host, "port": strconv.Itoa(s.Port),
		"model": s.ModelName, "model_path": s.Model.Path, "model_file": file, "model_sha256": s.Model.SHA256,
		"devices": strings.Join(indices, ","), "device_count": strconv.Itoa(max(1, len(indices))),
		"cuda_home": machine.CUDAHome(),
		"context":   strconv.Itoa(length), "context?": strconv.Itoa(s.ContextLength),
		"context_total": strconv.Itoa(length * parallel), "context_total?": strconv.Itoa(s.ContextLength * parallel),
		"parallel": strconv.Itoa(parallel), "parallel?": strconv.Itoa(s.Parallel),
	}
}

// Expand replaces the placeholders in a text with their values. ok is false if the text
// contains the optional form of a placeholder, such as {context?}, without a value.
func (p Placeholders) Expand(text string) (expanded string, ok bool) {
	return p.replace(text, func(s string) string { return s })
}

// replace implements [Placeholders.Expand]. It applies quote to each value.
func (p Placeholders) replace(text string, quote func(string) string) (expanded string, ok bool) {
	ok = true
	expanded = placeholderExpr.ReplaceAllStringFunc(text, func(placeholder string) string {
		m := placeholderExpr.FindStringSubmatch(placeholder)
		name, mark := m[1], m[2]
		value, found := p[name+mark]
		if !found {
			value, found = p[name]
		}
		switch {
		case !found:
			return placeholder
		case mark == "?" && (value == "" || value == "0"):
			ok = false
		}
		return quote(value)
	})
	return expanded, ok
}

// Requests returns the requests of a recipe with their placeholders replaced. Values in bodies
// are escaped for use in JSON strings.
func (p Placeholders) Requests(requests []wire.HTTPRequest) []wire.HTTPRequest {
	quote := func(s string) string {
		data, err := json.Marshal(s)
		if err != nil {
			return "" // cannot happen for a string
		}
		return string(data[1 : len(data)-1])
	}
	var out []wire.HTTPRequest
	for _, r := range requests {
		path, _ := p.Expand(r.Path)
		body, _ := p.replace(r.Body, quote)
		out = append(out, wire.HTTPRequest{Path: path, Body: body})
	}
	return out
}

// HasPlaceholder reports whether a launch description contains any of the placeholders. They
// include the braces, such as "{state}".
func HasPlaceholder(l wire.Launch, placeholders ...string) bool {
	has := func(text string) bool {
		return slices.ContainsFunc(placeholders, func(p string) bool { return strings.Contains(text, p) })
	}
	found := slices.ContainsFunc(l.Args, has)
	for _, value := range l.Env {
		found = found || has(value)
	}
	for name, target := range l.Links {
		found = found || has(name) || has(target)
	}
	found = found || has(l.Serves)
	for _, r := range l.Prepare {
		found = found || has(r.Path) || has(r.Body)
	}
	return found
}

// MakeStateDir creates the state directory of a worker and the links of the recipe in it. It
// does nothing if the recipe does not use a state directory. It does not change other files
// from an earlier start.
func MakeStateDir(l wire.Launch, values Placeholders) error {
	if len(l.Links) == 0 && !HasPlaceholder(l, "{state}") {
		return nil
	}
	dir := values["state"]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, target := range l.Links {
		name, _ = values.Expand(name)
		target, _ = values.Expand(target)
		name = filepath.FromSlash(name)
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if current, err := root.Readlink(name); err == nil && current == target {
			continue
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if err := root.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}
