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

// ParseRecipe reads a recipe, which is always YAML. The name is its file's: paths
// in it are relative to that folder, and it stands in the problems. The error is
// an [*operations.Error] with [operations.CodeConfigInvalid] and all problems.
func ParseRecipe(name string, data []byte) (*Recipe, error) {
	var file recipeFile
	problems := strict.Read(strict.YAML, data, &file)
	var c recipeCheck
	r := c.recipe(&file)
	r.File = name
	problems = append(problems, c.problems...)
	if len(problems) == 0 {
		return r, nil
	}
	strict.Sort(problems)
	return nil, strict.Invalid(operations.ReasonInvalidRecipe, name+" is not a valid recipe", strict.Problems(name, problems, nil))
}

// Values that a recipe may have.
var (
	knownOS      = []string{"linux", "darwin", "freebsd", "windows"}
	knownArch    = []string{"amd64", "arm64", "386", "arm", "loong64", "ppc64le", "riscv64", "s390x"}
	knownLibc    = []string{"glibc", "musl"}
	knownGPU     = []string{"nvidia", "amd", "intel", "apple", "any"}
	knownBuiltin = []string{"echo"}
	knownAPI     = []string{APIOpenAI, APIComfyUI}
	knownFormat  = []string{"gguf", "safetensors"}
	startWords   = []string{
		"context", "context_total", "cuda_home", "device_count", "devices", "entry", "host", "model", "model_file", "model_path", "model_sha256",
		"parallel", "payload", "port", "state",
	}
	sourceWords = []string{"arch", "os", "version"}

	// otherNames are names of platforms that Go has another one for.
	otherNames = map[string]string{
		"macos": "darwin", "osx": "darwin", "x86_64": "amd64", "x64": "amd64", "aarch64": "arm64",
		"i386": "386", "i686": "386", "x86": "386", "armv7l": "arm", "gnu": "glibc",
	}

	placeholder    = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_]*)\??\}`)
	githubRepo     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+$`)
	packageName    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	numbersPattern = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*$`)
	envName        = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// recipeCheck collects problems while it makes a recipe.
type recipeCheck struct {
	problems []strict.Problem
	words    []string // in braces, that a source may have
}

func (c *recipeCheck) report(at strict.Pos, hint, format string, args ...any) {
	c.problems = append(c.problems, strict.Problem{Pos: at, Item: -1, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *recipeCheck) recipe(f *recipeFile) *Recipe {
	if f.Type.Set && !config.ValidWorkerType(f.Type.V) {
		c.report(f.Type.Pos, "expected lower-case letters, digits and dashes, at most 63", "%q is not a valid worker type", f.Type.V)
	}
	c.words = sourceWords
	if f.Type.V == PythonTool {
		c.words = append(slices.Clip(sourceWords), "python")
	}
	r := &Recipe{
		Type:        f.Type.V,
		Pos:         config.Pos(f.Type.Pos),
		Description: c.text(f.Description, "description"),
		Note:        c.text(f.Note, "note"),
		API:         cmp.Or(c.oneOf(f.API, "api", knownAPI), APIOpenAI),
		Formats:     c.allOf(f.Formats, "format", knownFormat),
		Versions:    c.versions(&f.Versions),
		Latest:      f.Latest.V,
		Start:       c.start(&f.Start.V),
		Ready:       c.ready(&f.Ready.V),
		Needs: Needs{
			GPU:       c.oneOf(f.Needs.V.GPU, "gpu", knownGPU),
			GPUMemory: int64(f.Needs.V.GPUMemory.V),
			Driver:    c.number(f.Needs.V.Driver, "driver"),
			Compute:   c.number(f.Needs.V.Compute, "compute"),
			Glibc:     c.number(f.Needs.V.Glibc, "glibc"),
			Commands:  c.allOf(f.Needs.V.Commands, "command", wire.ProbedCommands),
			Disk:      int64(f.Needs.V.Disk.V),
			OS:        c.allOf(f.Needs.V.OS, "os", knownOS),
			Arch:      c.allOf(f.Needs.V.Arch, "arch", knownArch),
		},
	}
	r.Grace = time.Duration(f.Grace.V)
	r.Verify = c.verify(&f.Verify)
	if f.Memory.Set {
		r.Memory = c.memory(&f.Memory.V)
	}
	for i := range f.Sources.V {
		r.Sources = append(r.Sources, c.source(&f.Sources.V[i], r.Versions))
	}
	if len(f.Sources.V) == 0 && f.Type.Set && r.Note == "" {
		c.report(f.Type.Pos, "add sources, or a note that says what to do", "the recipe has no sources")
	}
	c.latest(f.Latest, r)
	c.names(r.Sources)
	return r
}

// names must tell sources apart, which the lock and reports do.
func (c *recipeCheck) names(sources []Source) {
	seen := map[[2]string]bool{}
	for _, s := range sources {
		key := [2]string{s.Name, s.Version + " " + s.OS + " " + s.Arch + " " + s.Libc}
		if s.Name != "" && seen[key] {
			c.report(strict.Pos(s.Pos), "give each source a name of its own", "two sources are named %q", s.Name)
		}
		seen[key] = true
	}
}

// versions is where versions are published.
func (c *recipeCheck) versions(v *strict.Value[versionsEntry]) *Versions {
	if v.Pos.Line == 0 {
		return nil
	}
	e := &v.V
	if e.GitHub.Set == e.Package.Set {
		c.report(v.Pos, "such as github: owner/name", "expected exactly one of github and package in versions")
	}
	if e.GitHub.Set && !githubRepo.MatchString(e.GitHub.V) {
		c.report(e.GitHub.Pos, "expected owner/name", "%q is no repository", e.GitHub.V)
	}
	if e.Package.Set && !packageName.MatchString(e.Package.V) {
		c.report(e.Package.Pos, "expected letters, digits, dot, dash and underscore", "%q is no name of a package", e.Package.V)
	}
	tag := "{version}"
	if e.Tag.Set {
		if tag = e.Tag.V; strings.Count(tag, "{version}") != 1 || strings.Count(tag, "{") != 1 {
			c.report(e.Tag.Pos, "such as v{version}", "tag %q does not have {version} once", tag)
		}
	}
	out := &Versions{GitHub: e.GitHub.V, Tag: tag, Package: e.Package.V, Pos: config.Pos(v.Pos)}
	c.releaseScheme(e, out)
	return out
}

// number is a version made of numbers, such as a driver's.
func (c *recipeCheck) number(v strict.Value[string], key string) string {
	if v.Set && !numbersPattern.MatchString(v.V) {
		c.report(v.Pos, "expected numbers with dots between them", "%s %q is no version", key, v.V)
	}
	return v.V
}

// latest must be a version that a source gives.
func (c *recipeCheck) latest(v strict.Value[string], r *Recipe) {
	if !v.Set {
		return
	}
	if r.Versions != nil {
		c.report(v.Pos, "remove it: the newest published version is the latest", "latest does not go with versions")
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
		c.report(v.Pos, oneOfHint(v.V, known), "no source has the version %q", v.V)
	}
}

// text is one line or more for a person to read.
func (c *recipeCheck) text(v strict.Value[string], key string) string {
	bad := func(r rune) bool { return unicode.IsControl(r) && r != '\n' }
	if strings.ContainsFunc(v.V, bad) {
		c.report(v.Pos, "expected plain text", "%s has control characters", key)
	}
	return strings.TrimSpace(v.V)
}

func (c *recipeCheck) oneOf(v strict.Value[string], key string, known []string) string {
	if v.Set && !slices.Contains(known, v.V) {
		c.report(v.Pos, oneOfHint(v.V, known), "unknown %s %q", key, v.V)
	}
	return v.V
}

func (c *recipeCheck) allOf(v strict.Value[[]strict.Value[string]], key string, known []string) []string {
	var all []string
	for _, item := range v.V {
		all = append(all, c.oneOf(item, key, known))
	}
	return all
}

func oneOfHint(s string, known []string) string {
	near := suggest.Nearest(s, known)
	if other := otherNames[strings.ToLower(s)]; slices.Contains(known, other) {
		near = other
	}
	switch {
	case near != "":
		return fmt.Sprintf("did you mean %q?", near)
	case len(known) == 0:
		return ""
	default:
		return "expected one of " + strings.Join(known, ", ")
	}
}

func (c *recipeCheck) start(e *startEntry) Start {
	var s Start
	for _, a := range e.Args.V {
		c.placeholders(a, startWords)
		s.Args = append(s.Args, a.V)
	}
	s.Env = c.env(e.Env.V)
	for _, name := range slices.Sorted(maps.Keys(e.Links.V)) {
		v := e.Links.V[name]
		if !cleanPath(placeholder.ReplaceAllString(name, "x")) {
			c.report(v.Pos, "expected a path such as models/x.gguf", "the link %q is not a clean relative path", name)
		}
		c.placeholders(strict.Value[string]{V: name, Pos: v.Pos}, startWords)
		c.placeholders(v, startWords)
		if s.Links == nil {
			s.Links = map[string]string{}
		}
		s.Links[name] = v.V
	}
	c.placeholders(e.Serves, startWords)
	s.Serves = e.Serves.V
	for _, p := range e.Prepare.V {
		if p.Path.Set && !strings.HasPrefix(p.Path.V, "/") {
			c.report(p.Path.Pos, "expected a path, such as /api/load", "path %q does not begin with a slash", p.Path.V)
		}
		c.placeholders(p.Path, startWords)
		c.placeholders(p.Body, startWords)
		if p.Body.Set && !json.Valid([]byte(p.Body.V)) {
			c.report(p.Body.Pos, "words in braces belong inside of strings", "the body is not JSON")
		}
		s.Prepare = append(s.Prepare, wire.HTTPRequest{Path: p.Path.V, Body: p.Body.V})
	}
	return s
}

// env checks variables; nil if there are none.
func (c *recipeCheck) env(all map[string]strict.Value[string]) map[string]string {
	var env map[string]string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		v := all[name]
		if !envName.MatchString(name) {
			c.report(v.Pos, "expected letters, digits and underscore", "%q is not the name of a variable", name)
		}
		c.placeholders(v, startWords)
		if env == nil {
			env = map[string]string{}
		}
		env[name] = v.V
	}
	return env
}

// placeholders refuses words in braces that nothing would replace, and control
// characters.
func (c *recipeCheck) placeholders(v strict.Value[string], known []string) {
	for _, m := range placeholder.FindAllStringSubmatch(v.V, -1) {
		if !slices.Contains(known, m[1]) {
			c.report(v.Pos, "known are {"+strings.Join(known, "}, {")+"}", "unknown placeholder {%s}", m[1])
		}
	}
	if strings.ContainsFunc(v.V, unicode.IsControl) {
		c.report(v.Pos, "", "%q has control characters", v.V)
	}
}

func (c *recipeCheck) ready(e *readyEntry) Ready {
	if e.Path.Set && !strings.HasPrefix(e.Path.V, "/") {
		c.report(e.Path.Pos, "expected a path, such as /health", "ready.path %q does not begin with a slash", e.Path.V)
	}
	if strings.ContainsFunc(e.Path.V, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		c.report(e.Path.Pos, "expected a path, such as /health", "ready.path %q has blanks", e.Path.V)
	}
	r := Ready{Path: e.Path.V, Status: int(e.Status.V), Stall: time.Duration(e.Stall.V)}
	switch {
	case !e.Status.Set && e.Path.Set:
		r.Status = wire.DefaultReadyStatus
	case e.Status.Set && (e.Status.V < 100 || e.Status.V > 599):
		c.report(e.Status.Pos, "expected 100 to 599", "ready.status %d is not an HTTP status", e.Status.V)
	}
	return r
}

func (c *recipeCheck) memory(e *memoryEntry) *Memory {
	if e.Context.Set && (e.Context.V < 1 || e.Context.V > 1<<30) {
		c.report(e.Context.Pos, "expected a number of tokens", "memory.context is %d", e.Context.V)
	}
	return &Memory{Fixed: int64(e.Fixed.V), Overhead: int64(e.Overhead.V), Share: float64(e.Share.V), Context: int(e.Context.V)}
}

// ParseDate reads a date (its end counts, in UTC) or a time after RFC 3339.
func ParseDate(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.DateOnly, s)
	return t.AddDate(0, 0, 1), err
}
