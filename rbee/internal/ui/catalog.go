package ui

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Catalog lists the worker types that can be installed. It is the report of
// `rbee catalog list`, which runs without an operation.
type Catalog struct {
	Recipes []Recipe `json:"recipes"`
}

// Recipe summarizes the recipe of a worker type.
type Recipe struct {
	Type        string         `json:"type"`
	Description string         `json:"description"`
	File        string         `json:"file"`
	API         string         `json:"api"`
	Versions    string         `json:"versions"` // the versions, or where they are published
	Note        string         `json:"note,omitempty"`
	Sources     []RecipeSource `json:"sources"`
	Needs       []string       `json:"needs,omitempty"`
	Start       []string       `json:"start"`
	Ready       string         `json:"ready,omitempty"`
}

// RecipeSource summarizes a source of a recipe, which installs a worker on one kind of
// machine.
type RecipeSource struct {
	Name     string   `json:"name,omitempty"`
	Version  string   `json:"version,omitempty"`
	Platform string   `json:"platform"`
	Needs    string   `json:"needs,omitempty"`
	Steps    []string `json:"steps"`
}

// CheckedRecipe is the report of `rbee catalog check` for a valid recipe.
type CheckedRecipe struct {
	Recipe Recipe `json:"recipe"`
}

// Outcome implements [operations.Report].
func (*Catalog) Outcome() operations.Outcome { return operations.OutcomeOK }

// Outcome implements [operations.Report].
func (*Recipe) Outcome() operations.Outcome { return operations.OutcomeOK }

// Outcome implements [operations.Report].
func (*CheckedRecipe) Outcome() operations.Outcome { return operations.OutcomeOK }

// NewRecipe returns the summary of a recipe.
func NewRecipe(r *catalog.Recipe) Recipe {
	out := Recipe{
		Type: r.Type, Description: r.Description, File: r.File, API: r.API, Note: r.Note,
		Sources: []RecipeSource{}, Start: append([]string{}, r.Start.Args...), Ready: r.Ready.Path,
	}
	var versions []string
	for _, s := range r.Sources {
		source := RecipeSource{Name: s.Name, Version: s.Version, Platform: platform(s.OS, s.Arch, s.Libc)}
		gpu := s.GPU
		if gpu == wire.NoGPU {
			gpu = ""
		}
		source.Needs = strings.Join(append(needs(catalog.Needs{GPU: gpu, Driver: s.Driver, Compute: s.Compute, Glibc: s.Glibc}), conditions(&s)...), ", ")
		for _, step := range s.Steps {
			source.Steps = append(source.Steps, stepText(step))
		}
		out.Sources = append(out.Sources, source)
		if s.Version != "" && r.Versions == nil && (len(versions) == 0 || versions[len(versions)-1] != s.Version) {
			versions = append(versions, s.Version)
		}
	}
	switch v := r.Versions; {
	case v == nil && len(versions) == 0 && len(r.Sources) > 0:
		out.Versions = "built in"
	case v == nil:
		out.Versions = strings.Join(versions, ", ")
	case v.GitHub != "":
		out.Versions = "releases of " + v.GitHub
	default:
		out.Versions = "package " + v.Package
	}
	out.Needs = needs(r.Needs)
	return out
}

func platform(system, arch, libc string) string {
	text := cmp.Or(system, "any") + "/" + cmp.Or(arch, "any")
	if libc != "" {
		text += " (" + libc + ")"
	}
	return text
}

// conditions describes the requirements that only sources have.
func conditions(s *catalog.Source) []string {
	var all []string
	if s.ComputeMax != "" {
		all = append(all, "compute capability at most "+s.ComputeMax)
	}
	if s.PTXDriver != "" {
		all = append(all, fmt.Sprintf("driver %s unless compute capability is %s", s.PTXDriver, strings.Join(s.Native, ", ")))
	}
	if len(s.Architectures) > 0 {
		all = append(all, "architecture "+strings.Join(s.Architectures, ", "))
	}
	if s.ROCm != "" {
		all = append(all, "ROCm "+s.ROCm)
	}
	return append(all, s.Libraries...)
}

func needs(n catalog.Needs) []string {
	var all []string
	add := func(format string, value string) {
		if value != "" {
			all = append(all, fmt.Sprintf(format, value))
		}
	}
	add("%s GPU", n.GPU)
	add("driver %s", n.Driver)
	add("compute capability %s", n.Compute)
	add("glibc %s", n.Glibc)
	if n.GPUMemory > 0 {
		add("%s of device memory", bytesize.Format(n.GPUMemory))
	}
	if n.Disk > 0 {
		add("%s of disk", bytesize.Format(n.Disk))
	}
	for _, c := range n.Commands {
		add("%s", c)
	}
	return all
}

func stepText(s catalog.Step) string {
	switch s.Kind {
	case wire.StepBuiltin:
		return "built into rbee"
	case wire.StepPython:
		packages := append([]string{}, s.Python.Packages...)
		if s.Python.Requirements != "" {
			packages = append(packages, s.Python.Requirements)
		}
		text := "Python " + s.Python.Version + " with " + strings.Join(packages, ", ")
		if s.Python.Torch != "" {
			text += " (torch for " + s.Python.Torch + ")"
		}
		return text
	}
	if s.Origin.Code {
		return "source code of the release"
	}
	return cmp.Or(s.Origin.Asset, s.Origin.URL, s.Origin.File)
}

func (p *page) catalog(c *Catalog) {
	t := table{header: []string{"TYPE", "VERSIONS", "API", "DESCRIPTION", "RECIPE"}}
	for _, r := range c.Recipes {
		t.add(r.Type, r.Versions, r.API, r.Description, r.File)
	}
	t.write(&p.text, p.style, "")
}

func (p *page) recipe(r *Recipe) {
	t := facts(r.Type)
	t.fact("description", r.Description)
	t.fact("recipe", r.File)
	t.fact("versions", r.Versions)
	t.fact("API", r.API)
	t.fact("needs", strings.Join(r.Needs, ", "))
	t.fact("start", strings.Join(r.Start, " "))
	t.fact("ready", r.Ready)
	t.fact("note", r.Note)
	t.write(&p.text, p.style, "")
	p.linef("")
	s := table{header: []string{"VARIANT", "VERSION", "PLATFORM", "NEEDS", "INSTALLS"}}
	for _, source := range r.Sources {
		s.add(source.Name, source.Version, source.Platform, source.Needs, strings.Join(source.Steps, " + "))
	}
	s.write(&p.text, p.style, "")
}

func (p *page) checkedRecipe(r *CheckedRecipe) {
	p.okf("%s is a valid recipe for %s (%s)", r.Recipe.File, r.Recipe.Type, format.Count(len(r.Recipe.Sources), "source"))
}

func (p *page) rollback(r *operations.RollbackReport) {
	p.okf("Rolled back %s on %s: %s -> %s", r.Worker, r.Hive, r.From, r.To)
	if r.Worker == operations.RollbackRbee {
		p.note("the next `rbee sync` replaces it with the version of the local rbee, unless the restored version is newer")
		return
	}
	p.note("pinned until you run `rbee sync --upgrade " + r.Worker + "` or change the version in the config; running workers keep their version until they are restarted")
}

func (p *page) bundle(r *operations.BundleReport) {
	if len(r.Workers) > 0 {
		t := table{header: []string{"WORKER", "VERSION", "VARIANT", "PLATFORM", "SIZE"}, right: map[string]bool{"SIZE": true}}
		for _, w := range r.Workers {
			bytes := ""
			if w.Bytes > 0 {
				bytes = bytesize.Format(w.Bytes)
			}
			t.add(w.Worker, w.Version, w.Variant, w.Platform, bytes)
		}
		t.write(&p.text, p.style, "")
		p.linef("")
	}
	p.blockedWorkers(r.Blocked)
	p.okf("Created %s: %s, %s, rbee for %s (%s)", r.Path, bytesize.Format(r.Bytes), format.Count(r.Artifacts, "artifact"), strings.Join(r.Platforms, ", "), format.Seconds(r.DurationSeconds))
}

// upgrades writes the versions that change.
func (p *page) upgrades(list []operations.Upgrade) {
	for _, u := range list {
		p.linef("%s (%s): %s -> %s", u.Worker, u.Requested, u.From, u.To)
	}
}
