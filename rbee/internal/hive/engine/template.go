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

// Placeholders are what stands for the words in braces of a recipe; [catalog.Start] says
// what they mean. A key with a question mark is for a word with one, where that
// means less than without it: what was asked for alone.
type Placeholders map[string]string

// inBraces is a word of a recipe; one with a question mark may be missing.
var inBraces = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_]*)(\??)\}`)

// StartOptions are what one start of an engine is told.
type StartOptions struct {
	State   string // its own directory
	Port    int    // on which it serves
	Asked   string // the model as it was asked for
	Model   Model
	Devices []operations.WorkerDevice

	// What was asked for; 0 if nothing was.
	ContextLength, Parallel int
}

// NewPlaceholders returns the values for one start of an engine.
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
		"entry": e.Entry, "payload": e.Payload, "state": s.State, "host": Host, "port": strconv.Itoa(s.Port),
		"model": s.Asked, "model_path": s.Model.Path, "model_file": file, "model_sha256": s.Model.SHA256,
		"devices": strings.Join(indices, ","), "device_count": strconv.Itoa(max(1, len(indices))),
		"cuda_home": machine.CUDAHome(),
		"context":   strconv.Itoa(length), "context?": strconv.Itoa(s.ContextLength),
		"context_total": strconv.Itoa(length * parallel), "context_total?": strconv.Itoa(s.ContextLength * parallel),
		"parallel": strconv.Itoa(parallel), "parallel?": strconv.Itoa(s.Parallel),
	}
}

// Fill replaces the words of a text. It is false for a text with a question mark
// after a word for which nothing was asked.
func (w Placeholders) Fill(text string) (filled string, ok bool) {
	return w.replace(text, func(s string) string { return s })
}

func (w Placeholders) replace(text string, quote func(string) string) (filled string, ok bool) {
	ok = true
	filled = inBraces.ReplaceAllStringFunc(text, func(word string) string {
		m := inBraces.FindStringSubmatch(word)
		value, known := w[m[1]+m[2]]
		if !known {
			value, known = w[m[1]]
		}
		switch {
		case !known:
			return word
		case m[2] == "?" && (value == "" || value == "0"):
			ok = false
		}
		return quote(value)
	})
	return filled, ok
}

// Requests returns those of a recipe, with words put into JSON strings as such.
func (w Placeholders) Requests(all []wire.HTTPRequest) []wire.HTTPRequest {
	quote := func(s string) string {
		data, err := json.Marshal(s)
		if err != nil {
			return "" // a string: it cannot fail
		}
		return string(data[1 : len(data)-1])
	}
	var out []wire.HTTPRequest
	for _, r := range all {
		path, _ := w.Fill(r.Path)
		body, _ := w.replace(r.Body, quote)
		out = append(out, wire.HTTPRequest{Path: path, Body: body})
	}
	return out
}

// HasPlaceholder reports whether a recipe has one of some words, in braces.
func HasPlaceholder(l wire.Launch, braced ...string) bool {
	has := func(text string) bool {
		return slices.ContainsFunc(braced, func(word string) bool { return strings.Contains(text, word) })
	}
	found := slices.ContainsFunc(l.Args, has)
	for _, value := range l.Env {
		found = found || has(value)
	}
	for name, to := range l.Links {
		found = found || has(name) || has(to)
	}
	found = found || has(l.Serves)
	for _, r := range l.Prepare {
		found = found || has(r.Path) || has(r.Body)
	}
	return found
}

// MakeStateDir makes the worker's own directory anew, with its links, if the recipe
// wants one. What an earlier try has left there stays.
func MakeStateDir(l wire.Launch, words Placeholders) error {
	if len(l.Links) == 0 && !HasPlaceholder(l, "{state}") {
		return nil
	}
	dir := words["state"]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, to := range l.Links {
		name, _ = words.Fill(name)
		to, _ = words.Fill(to)
		name = filepath.FromSlash(name)
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if now, err := root.Readlink(name); err == nil && now == to {
			continue
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if err := root.Symlink(to, name); err != nil {
			return err
		}
	}
	return nil
}
