package catalog

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/suggest"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// ParseRecipe parses a recipe in YAML. The name is the path of its file: problems refer to
// it, and paths in the recipe are relative to its directory. The error is an
// [*operations.Error] with [operations.CodeConfigInvalid] and all problems.
func ParseRecipe(name string, data []byte) (*Recipe, error) {
	var file recipeFile
	problems := strict.Read(strict.YAML, data, &file)
	var c recipeParser
	r := c.parseRecipe(&file)
	r.File = name
	problems = append(problems, c.problems...)
	if len(problems) == 0 {
		return r, nil
	}
	strict.Sort(problems)
	return nil, strict.Invalid(operations.ReasonInvalidRecipe, "invalid recipe "+name, strict.Problems(name, problems, nil))
}

// Permitted values and placeholders of a recipe.
var (
	knownOS           = []string{"linux", "darwin", "freebsd", "windows"}
	knownArch         = []string{"amd64", "arm64", "386", "arm", "loong64", "ppc64le", "riscv64", "s390x"}
	knownLibc         = []string{"glibc", "musl"}
	knownGPU          = []string{"nvidia", "amd", "intel", "apple", "any"}
	knownBuiltin      = []string{"echo"}
	knownAPI          = []string{APIOpenAI, APIComfyUI}
	knownFormat       = []string{"gguf", "safetensors"}
	startPlaceholders = []string{
		"context", "context_total", "cuda_home", "device_count", "devices", "entry", "host", "model", "model_file", "model_path", "model_sha256",
		"parallel", "payload", "port", "state",
	}
	sourcePlaceholders = []string{"arch", "os", "version"}

	// platformAliases maps common names of platforms to the names that Go uses.
	platformAliases = map[string]string{
		"macos": "darwin", "osx": "darwin", "x86_64": "amd64", "x64": "amd64", "aarch64": "arm64",
		"i386": "386", "i686": "386", "x86": "386", "armv7l": "arm", "gnu": "glibc",
	}

	placeholder    = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_]*)\??\}`)
	githubRepo     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$`)
	packageName    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	numbersPattern = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*$`)
	envName        = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// recipeParser converts a recipe file to a [Recipe] and collects the problems of the file.
type recipeParser struct {
	problems     []strict.Problem
	placeholders []string // permitted in a source
}

// report adds a problem. hint may be empty.
func (c *recipeParser) report(at strict.Pos, hint, format string, args ...any) {
	c.problems = append(c.problems, strict.Problem{Pos: at, Item: -1, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// parseRecipe converts a recipe file.
func (c *recipeParser) parseRecipe(f *recipeFile) *Recipe {
	if f.Type.Set && !config.ValidWorkerType(f.Type.V) {
		c.report(f.Type.Pos, "want lowercase letters, digits and dashes, at most 63 characters", "invalid worker type %q", f.Type.V)
	}
	c.placeholders = sourcePlaceholders
	if f.Type.V == PythonTool {
		c.placeholders = append(slices.Clip(sourcePlaceholders), "python")
	}
	r := &Recipe{
		Type:        f.Type.V,
		Pos:         config.Pos(f.Type.Pos),
		Description: c.parseText(f.Description, "description"),
		Note:        c.parseText(f.Note, "note"),
		API:         cmp.Or(c.parseOneOf(f.API, "api", knownAPI), APIOpenAI),
		Formats:     c.parseAllOf(f.Formats, "format", knownFormat),
		Versions:    c.parseVersions(&f.Versions),
		Latest:      f.Latest.V,
		Start:       c.parseStart(&f.Start.V),
		Ready:       c.parseReady(&f.Ready.V),
		Needs: Needs{
			GPU:       c.parseOneOf(f.Needs.V.GPU, "gpu", knownGPU),
			GPUMemory: int64(f.Needs.V.GPUMemory.V),
			Driver:    c.parseNumber(f.Needs.V.Driver, "driver"),
			Compute:   c.parseNumber(f.Needs.V.Compute, "compute"),
			Glibc:     c.parseNumber(f.Needs.V.Glibc, "glibc"),
			Commands:  c.parseAllOf(f.Needs.V.Commands, "command", wire.ProbedCommands),
			Disk:      int64(f.Needs.V.Disk.V),
			OS:        c.parseAllOf(f.Needs.V.OS, "os", knownOS),
			Arch:      c.parseAllOf(f.Needs.V.Arch, "arch", knownArch),
		},
	}
	r.Grace = time.Duration(f.Grace.V)
	r.Verify = c.parseVerify(&f.Verify)
	if f.Memory.Set {
		r.Memory = c.parseMemory(&f.Memory.V)
	}
	for i := range f.Sources.V {
		r.Sources = append(r.Sources, c.parseSource(&f.Sources.V[i], r.Versions))
	}
	if len(f.Sources.V) == 0 && f.Type.Set && r.Note == "" {
		c.report(f.Type.Pos, "add sources, or a note with instructions", "recipe has no sources")
	}
	c.checkLatest(f.Latest, r)
	c.checkUniqueNames(r.Sources)
	return r
}

// checkUniqueNames reports sources of the same version and platform with the same name, because
// the lockfile and reports identify a source by its name.
func (c *recipeParser) checkUniqueNames(sources []Source) {
	seen := map[[2]string]bool{}
	for _, s := range sources {
		key := [2]string{s.Name, s.Version + " " + s.OS + " " + s.Arch + " " + s.Libc}
		if s.Name != "" && seen[key] {
			c.report(strict.Pos(s.Pos), "give each source a unique name", "duplicate source name %q", s.Name)
		}
		seen[key] = true
	}
}

// parseVersions parses the key versions. It returns nil if the recipe does not have the key.
func (c *recipeParser) parseVersions(v *strict.Value[versionsEntry]) *Versions {
	if v.Pos.Line == 0 {
		return nil
	}
	e := &v.V
	if e.GitHub.Set == e.Package.Set {
		c.report(v.Pos, "for example github: owner/name", "versions requires either github or package")
	}
	if e.GitHub.Set && !githubRepo.MatchString(e.GitHub.V) {
		c.report(e.GitHub.Pos, "want owner/name", "invalid repository %q", e.GitHub.V)
	}
	if e.Package.Set && !packageName.MatchString(e.Package.V) {
		c.report(e.Package.Pos, "want letters, digits, dot, dash and underscore", "invalid package name %q", e.Package.V)
	}
	tag := "{version}"
	if e.Tag.Set {
		if tag = e.Tag.V; strings.Count(tag, "{version}") != 1 || strings.Count(tag, "{") != 1 {
			c.report(e.Tag.Pos, "want {version} exactly once, for example v{version}", "invalid tag %q", tag)
		}
	}
	out := &Versions{GitHub: e.GitHub.V, Tag: tag, Package: e.Package.V, Pos: config.Pos(v.Pos)}
	c.parseReleaseScheme(e, out)
	return out
}

// parseNumber parses a numeric version, such as the version of a driver.
func (c *recipeParser) parseNumber(v strict.Value[string], key string) string {
	if v.Set && !numbersPattern.MatchString(v.V) {
		c.report(v.Pos, "want numbers separated by dots", "invalid %s %q", key, v.V)
	}
	return v.V
}

// checkLatest checks that the latest version is the version of a source.
func (c *recipeParser) checkLatest(v strict.Value[string], r *Recipe) {
	if !v.Set {
		return
	}
	if r.Versions != nil {
		c.report(v.Pos, "remove it: the newest published version is the latest", "cannot combine latest with versions")
		return
	}
	sources := r.Sources
	var known []string
	for _, s := range sources {
		if s.Version != "" {
			known = append(known, s.Version)
		}
	}
	if !slices.Contains(known, v.V) {
		c.report(v.Pos, oneOfHint(v.V, known), "no source has version %q", v.V)
	}
}

// parseText parses a text that is displayed to users. It may have several lines.
func (c *recipeParser) parseText(v strict.Value[string], key string) string {
	isForbidden := func(r rune) bool { return unicode.IsControl(r) && r != '\n' }
	if strings.ContainsFunc(v.V, isForbidden) {
		c.report(v.Pos, "want plain text", "%s contains control characters", key)
	}
	return strings.TrimSpace(v.V)
}

// parseOneOf returns a value. It reports a value that is not in known.
func (c *recipeParser) parseOneOf(v strict.Value[string], key string, known []string) string {
	if v.Set && !slices.Contains(known, v.V) {
		c.report(v.Pos, oneOfHint(v.V, known), "unknown %s %q", key, v.V)
	}
	return v.V
}

// parseAllOf returns the values of a list, which must all be in known.
func (c *recipeParser) parseAllOf(v strict.Value[[]strict.Value[string]], key string, known []string) []string {
	var all []string
	for _, item := range v.V {
		all = append(all, c.parseOneOf(item, key, known))
	}
	return all
}

// oneOfHint returns a hint for an unknown value: the known value with the closest spelling, or
// all known values.
func oneOfHint(s string, known []string) string {
	nearest := suggest.Nearest(s, known)
	if other := platformAliases[strings.ToLower(s)]; slices.Contains(known, other) {
		nearest = other
	}
	switch {
	case nearest != "":
		return fmt.Sprintf("did you mean %q?", nearest)
	case len(known) == 0:
		return ""
	default:
		return "want " + orList(known)
	}
}

// orList joins choices in a sentence: "a, b or c".
func orList(choices []string) string {
	last := len(choices) - 1
	if last < 1 {
		return strings.Join(choices, "")
	}
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

// parseStart parses the section start.
func (c *recipeParser) parseStart(e *startEntry) Start {
	var s Start
	for _, a := range e.Args.V {
		c.checkPlaceholders(a, startPlaceholders)
		s.Args = append(s.Args, a.V)
	}
	s.Env = c.parseEnv(e.Env.V)
	for _, name := range slices.Sorted(maps.Keys(e.Links.V)) {
		v := e.Links.V[name]
		if !isCleanPath(placeholder.ReplaceAllString(name, "x")) {
			c.report(v.Pos, "want a clean relative path such as models/x.gguf", "invalid link %q", name)
		}
		c.checkPlaceholders(strict.Value[string]{V: name, Pos: v.Pos}, startPlaceholders)
		c.checkPlaceholders(v, startPlaceholders)
		if s.Links == nil {
			s.Links = map[string]string{}
		}
		s.Links[name] = v.V
	}
	c.checkPlaceholders(e.Serves, startPlaceholders)
	s.Serves = e.Serves.V
	for _, p := range e.Prepare.V {
		if p.Path.Set && !strings.HasPrefix(p.Path.V, "/") {
			c.report(p.Path.Pos, "want an absolute path such as /api/load", "invalid path %q", p.Path.V)
		}
		c.checkPlaceholders(p.Path, startPlaceholders)
		c.checkPlaceholders(p.Body, startPlaceholders)
		if p.Body.Set && !json.Valid([]byte(p.Body.V)) {
			c.report(p.Body.Pos, "want JSON, with placeholders inside strings", "invalid body")
		}
		s.Prepare = append(s.Prepare, wire.HTTPRequest{Path: p.Path.V, Body: p.Body.V})
	}
	return s
}

// parseEnv parses environment variables. It returns nil for an empty map.
func (c *recipeParser) parseEnv(all map[string]strict.Value[string]) map[string]string {
	var env map[string]string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		v := all[name]
		if !envName.MatchString(name) {
			c.report(v.Pos, "want letters, digits and underscore", "invalid environment variable name %q", name)
		}
		c.checkPlaceholders(v, startPlaceholders)
		if env == nil {
			env = map[string]string{}
		}
		env[name] = v.V
	}
	return env
}

// checkPlaceholders reports unknown placeholders and control characters.
func (c *recipeParser) checkPlaceholders(v strict.Value[string], known []string) {
	for _, m := range placeholder.FindAllStringSubmatch(v.V, -1) {
		if !slices.Contains(known, m[1]) {
			c.report(v.Pos, "known placeholders: {"+strings.Join(known, "}, {")+"}", "unknown placeholder {%s}", m[1])
		}
	}
	if strings.ContainsFunc(v.V, unicode.IsControl) {
		c.report(v.Pos, "", "%q contains control characters", v.V)
	}
}

// parseReady parses the section ready.
func (c *recipeParser) parseReady(e *readyEntry) Ready {
	if e.Path.Set && !strings.HasPrefix(e.Path.V, "/") {
		c.report(e.Path.Pos, "want an absolute path such as /health", "invalid ready.path %q", e.Path.V)
	}
	if strings.ContainsFunc(e.Path.V, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		c.report(e.Path.Pos, "want a path without spaces such as /health", "invalid ready.path %q", e.Path.V)
	}
	r := Ready{Path: e.Path.V, Status: int(e.Status.V), Stall: time.Duration(e.Stall.V)}
	switch {
	case !e.Status.Set && e.Path.Set:
		r.Status = wire.DefaultReadyStatus
	case e.Status.Set && (e.Status.V < 100 || e.Status.V > 599):
		c.report(e.Status.Pos, "want an HTTP status from 100 to 599", "invalid ready.status %d", e.Status.V)
	}
	return r
}

// parseMemory parses the section memory.
func (c *recipeParser) parseMemory(e *memoryEntry) *Memory {
	if e.Context.Set && (e.Context.V < 1 || e.Context.V > 1<<30) {
		c.report(e.Context.Pos, "want a number of tokens from 1 to 1073741824", "invalid memory.context %d", e.Context.V)
	}
	return &Memory{Fixed: int64(e.Fixed.V), Overhead: int64(e.Overhead.V), Share: float64(e.Share.V), Context: int(e.Context.V)}
}

// ParseDate parses a time in RFC 3339 format, or a date. For a date, it returns the end of the
// day in UTC.
func ParseDate(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.DateOnly, s)
	return t.AddDate(0, 0, 1), err
}
