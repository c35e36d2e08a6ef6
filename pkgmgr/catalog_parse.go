package pkgmgr

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
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
	return nil, invalid(name+" is not a valid recipe", toProblems(name, problems, nil))
}

// Values that a recipe may have.
var (
	knownOS      = []string{"linux", "darwin", "freebsd", "windows"}
	knownArch    = []string{"amd64", "arm64", "386", "arm", "loong64", "ppc64le", "riscv64", "s390x"}
	knownLibc    = []string{"glibc", "musl"}
	knownGPU     = []string{"nvidia", "amd", "intel", "apple", "any"}
	knownBuiltin = []string{"echo"}
	startWords   = []string{"context", "device_count", "devices", "entry", "host", "model", "model_path", "port"}
	sourceWords  = []string{"arch", "os", "version"}

	// otherNames are names of platforms that Go has another one for.
	otherNames = map[string]string{
		"macos": "darwin", "osx": "darwin", "x86_64": "amd64", "x64": "amd64", "aarch64": "arm64",
		"i386": "386", "i686": "386", "x86": "386", "armv7l": "arm", "gnu": "glibc",
	}

	placeholder = regexp.MustCompile(`\{([A-Za-z_]+)\}`)
	envName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// recipeCheck collects problems while it makes a recipe.
type recipeCheck struct {
	problems []strict.Problem
}

func (c *recipeCheck) report(at strict.Pos, hint, format string, args ...any) {
	c.problems = append(c.problems, strict.Problem{Pos: at, Item: -1, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *recipeCheck) recipe(f *recipeFile) *Recipe {
	if f.Type.Set && !ValidWorkerType(f.Type.V) {
		c.report(f.Type.Pos, "expected lower-case letters, digits and dashes, at most 63", "%q is not a valid worker type", f.Type.V)
	}
	r := &Recipe{
		Type:        f.Type.V,
		Pos:         Pos(f.Type.Pos),
		Description: c.text(f.Description, "description"),
		Note:        c.text(f.Note, "note"),
		Latest:      f.Latest.V,
		Start:       c.start(&f.Start.V),
		Ready:       c.ready(&f.Ready.V),
		Needs: Needs{
			GPU:       c.oneOf(f.Needs.V.GPU, "gpu", knownGPU),
			GPUMemory: int64(f.Needs.V.GPUMemory.V),
			Disk:      int64(f.Needs.V.Disk.V),
			OS:        c.allOf(f.Needs.V.OS, "os", knownOS),
			Arch:      c.allOf(f.Needs.V.Arch, "arch", knownArch),
		},
	}
	r.Grace = time.Duration(f.Grace.V)
	if f.Memory.Set {
		r.Memory = c.memory(&f.Memory.V)
	}
	for i := range f.Sources.V {
		r.Sources = append(r.Sources, c.source(&f.Sources.V[i]))
	}
	if len(f.Sources.V) == 0 && f.Type.Set && r.Note == "" {
		c.report(f.Type.Pos, "add sources, or a note that says what to do", "the recipe has no sources")
	}
	c.latest(f.Latest, r.Sources)
	return r
}

// latest must be a version that a source gives.
func (c *recipeCheck) latest(v strict.Value[string], sources []Source) {
	if !v.Set {
		return
	}
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
	near := strict.Nearest(s, known)
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
	for _, name := range slices.Sorted(maps.Keys(e.Env.V)) {
		v := e.Env.V[name]
		if !envName.MatchString(name) {
			c.report(v.Pos, "expected letters, digits and underscore", "%q is not the name of a variable", name)
		}
		c.placeholders(v, startWords)
		if s.Env == nil {
			s.Env = map[string]string{}
		}
		s.Env[name] = v.V
	}
	return s
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
		r.Status = 200
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
