package catalog

import (
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

var (
	sourceName   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	torchBackend = regexp.MustCompile(`^(cpu|xpu|cu[0-9]{2,3}|rocm[0-9.]+)$`)
)

// source checks one source. versions is where the recipe's versions are
// published; nil if each source names its own.
func (c *recipeCheck) source(e *sourceEntry, versions *Versions) Source {
	s := Source{
		Name:    e.Name.V,
		Version: e.Version.V,
		OS:      c.oneOf(e.OS, "os", knownOS),
		Arch:    c.oneOf(e.Arch, "arch", knownArch),
		Libc:    c.oneOf(e.Libc, "libc", knownLibc),
		Glibc:   c.number(e.Glibc, "glibc"),
		Entry:   e.Entry.V, Pos: config.Pos(e.Pos),
	}
	if e.Name.Set && !sourceName.MatchString(e.Name.V) {
		c.report(e.Name.Pos, "expected lower-case letters, digits, dot, dash and underscore", "%q is no name for a source", e.Name.V)
	}
	c.conditions(e, &s)
	switch origins := originsOf(&e.artifactEntry, e.Builtin, e.Steps.Pos.Line > 0); {
	case len(origins) != 1:
		c.report(e.Pos, "expected exactly one of builtin, file, url and steps", "the source has %s", oneOrMore(origins))
		return s
	case e.Steps.Pos.Line > 0:
		c.noArtifact(e)
		for i := range e.Steps.V {
			s.Steps = append(s.Steps, c.step(&e.Steps.V[i], versions))
		}
	case e.Builtin.Pos.Line > 0:
		c.onlyBuiltin(e)
		s.Steps = []Step{{Kind: wire.StepBuiltin, Builtin: c.oneOf(e.Builtin, "built-in server", knownBuiltin), Pos: config.Pos(e.Pos)}}
	default:
		o := originEntry{Pos: e.Pos, artifactEntry: e.artifactEntry}
		s.Steps = []Step{c.artifact(&o, versions, "")}
	}
	for _, a := range e.Args.V {
		c.placeholders(a, startWords)
		s.Args = append(s.Args, a.V)
	}
	s.Env = c.env(e.Env.V)
	s.Verify = c.verify(&e.Verify)
	c.sourceVersion(e, &s, versions)
	c.entry(e, &s)
	return s
}

// sourceVersion is one version, or a range where versions are published.
func (c *recipeCheck) sourceVersion(e *sourceEntry, s *Source, versions *Versions) {
	builtin := len(s.Steps) > 0 && s.Steps[0].Kind == wire.StepBuiltin
	switch {
	case e.Version.Pos.Line == 0 && versions == nil && !builtin:
		c.report(e.Pos, "such as version: \"1.2\"", "the source has no version")
	case !e.Version.Set:
	case versions != nil:
		if _, err := version.ParseRange(e.Version.V); err != nil {
			c.report(e.Version.Pos, "expected a range such as \">=1.2, <2\"", "%q is no range of versions", e.Version.V)
		}
	case !version.Valid(e.Version.V) || e.Version.V == version.Latest:
		c.report(e.Version.Pos, "expected a version such as \"1.2\"", "%q is not a valid version", e.Version.V)
	}
}

func originsOf(e *artifactEntry, builtin strict.Value[string], steps bool) []string {
	var keys []string
	for _, o := range []struct {
		set bool
		key string
	}{{builtin.Pos.Line > 0, "builtin"}, {e.File.Pos.Line > 0, "file"}, {e.URL.Pos.Line > 0, "url"}, {steps, "steps"}} {
		if o.set {
			keys = append(keys, o.key)
		}
	}
	return keys
}

func oneOrMore(origins []string) string {
	if len(origins) == 0 {
		return "nothing to install from"
	}
	return strings.Join(origins, " and ")
}

// refuse reports keys that do not go with something.
func (c *recipeCheck) refuse(with, hint string, keys map[string]strict.Pos) {
	for key, at := range keys {
		if at.Line > 0 {
			c.report(at, hint, "%s does not go with %s", key, with)
		}
	}
}

// onlyBuiltin refuses what a server inside rbee has no use for.
func (c *recipeCheck) onlyBuiltin(e *sourceEntry) {
	c.refuse("builtin", "a built-in server is part of rbee and has its version", map[string]strict.Pos{
		"version": e.Version.Pos, "sha256": e.SHA256.Pos, "size": e.Size.Pos, "format": e.Format.Pos, "strip": e.Strip.Pos, "entry": e.Entry.Pos,
	})
}

// noArtifact refuses what belongs in a step.
func (c *recipeCheck) noArtifact(e *sourceEntry) {
	c.refuse("steps", "it belongs in the step", map[string]strict.Pos{
		"sha256": e.SHA256.Pos, "size": e.Size.Pos, "format": e.Format.Pos, "strip": e.Strip.Pos,
	})
	if e.Steps.Set && len(e.Steps.V) == 0 {
		c.report(e.Steps.Pos, "such as archive: { url: … }", "steps is empty")
	}
}

func (c *recipeCheck) step(e *stepEntry, versions *Versions) Step {
	var keys []string
	for _, k := range []struct {
		at  strict.Pos
		key string
	}{{e.Builtin.Pos, "builtin"}, {e.File.Pos, "file"}, {e.Archive.Pos, "archive"}, {e.Python.Pos, "python"}} {
		if k.at.Line > 0 {
			keys = append(keys, k.key)
		}
	}
	switch {
	case len(keys) != 1:
		c.report(e.Pos, "expected exactly one of builtin, file, archive and python", "the step has %s", oneOrMore(keys))
		return Step{Pos: config.Pos(e.Pos)}
	case e.Builtin.Pos.Line > 0:
		c.report(e.Builtin.Pos, "write builtin: in the place of steps:", "a built-in server is no step among others")
		return Step{Pos: config.Pos(e.Pos)}
	case e.Python.Pos.Line > 0:
		return c.python(&e.Python)
	case e.File.Pos.Line > 0:
		return c.artifact(&e.File.V, versions, wire.StepFile)
	default:
		return c.artifact(&e.Archive.V, versions, wire.StepArchive)
	}
}

func (c *recipeCheck) python(v *strict.Value[pythonEntry]) Step {
	e := &v.V
	p := &Python{Version: c.number(e.Version, "version"), Requirements: e.Requirements.V, Torch: e.Torch.V, Prerelease: e.Prerelease.V}
	p.Packages = c.requirements(e.Packages)
	p.Overrides, p.Constraints = c.requirements(e.Overrides), c.requirements(e.Constraints)
	if p.ExcludeNewer = e.ExcludeNewer.V; e.ExcludeNewer.Set && p.ExcludeNewer != ExcludeNewerNever {
		if _, err := ParseDate(p.ExcludeNewer); err != nil {
			c.report(e.ExcludeNewer.Pos, "expected a date such as 2025-10-31, or "+ExcludeNewerNever, "invalid exclude_newer %q", p.ExcludeNewer)
		}
	}
	if e.Requirements.Set && !cleanPath(e.Requirements.V) {
		c.report(e.Requirements.Pos, "expected a path such as requirements.txt", "requirements %q is not a clean relative path", e.Requirements.V)
	}
	if len(p.Packages) == 0 && p.Requirements == "" {
		c.report(v.Pos, "such as packages: [\"vllm=={version}\"]", "the python step has no packages")
	}
	if e.Torch.Set && !torchBackend.MatchString(e.Torch.V) {
		c.report(e.Torch.Pos, "expected cpu, xpu, or such as cu128 or rocm6.4", "%q is no torch backend", e.Torch.V)
	}
	p.Indexes = c.indexes(e.Indexes.V)
	into := "venv"
	if e.Into.Set {
		into = e.Into.V
		c.into(e.Into)
	}
	return Step{Kind: wire.StepPython, Python: p, Into: into, Pos: config.Pos(v.Pos)}
}

// requirements checks requirements as pip reads them.
func (c *recipeCheck) requirements(v strict.Value[[]strict.Value[string]]) []string {
	var all []string
	for _, pkg := range v.V {
		c.placeholders(pkg, c.words)
		if pkg.Set && (pkg.V == "" || strings.HasPrefix(pkg.V, "-") || strings.Contains(pkg.V, "://")) {
			c.report(pkg.Pos, "expected a requirement such as \"vllm=={version}\"", "%q is no package of an index", pkg.V)
		}
		all = append(all, pkg.V)
	}
	return all
}

func (c *recipeCheck) into(v strict.Value[string]) {
	if v.Set && !cleanPath(v.V) {
		c.report(v.Pos, "expected a path such as lib", "into %q is not a clean relative path", v.V)
	}
}

// cleanPath reports whether p is a relative path that leads nowhere else.
func cleanPath(p string) bool {
	return p != "" && p != "." && !path.IsAbs(p) && path.Clean(p) == p && p != ".." && !strings.HasPrefix(p, "../") && !strings.Contains(p, `\`)
}

// artifact checks a step that is a file or a download. An empty kind leaves it to
// the name whether that is an archive.
func (c *recipeCheck) artifact(e *originEntry, versions *Versions, kind wire.StepKind) Step {
	s := Step{
		Kind: kind, Into: e.Into.V, Strip: int(e.Strip.V), Pos: config.Pos(e.Pos),
		Origin: Origin{
			File: e.File.V, URL: e.URL.V, Asset: e.Asset.V, Code: e.Code.V,
			SHA256: strings.ToLower(e.SHA256.V), Size: int64(e.Size.V),
		},
	}
	var name strict.Value[string]
	n := 0
	for _, o := range []strict.Value[string]{e.File, e.URL, e.Asset} {
		if o.Pos.Line > 0 {
			name = o
			n++
		}
	}
	if e.Code.V {
		name = strict.Value[string]{V: "code.tar.gz", Set: true, Pos: e.Code.Pos}
		n++
	}
	if n != 1 {
		c.report(e.Pos, "expected exactly one of file, url, asset and source_code", "the step does not say where it comes from")
		return s
	}
	switch {
	case e.URL.Set:
		c.url(e, versions)
	case e.File.Set && e.File.V == "":
		c.report(e.File.Pos, "expected a path", "file is empty")
	case e.Asset.Pos.Line > 0 || e.Code.V:
		if versions == nil || versions.GitHub == "" {
			c.report(name.Pos, "add versions: { github: owner/name } to the recipe", "there is no release to take it from")
		}
		if _, err := path.Match(e.Asset.V, ""); err != nil || e.Asset.Set && e.Asset.V == "" {
			c.report(e.Asset.Pos, "expected a name, in which * stands for anything", "asset %q is no pattern", e.Asset.V)
		}
		c.refuse("an asset", "the release says it, and the lock keeps it", map[string]strict.Pos{"sha256": e.SHA256.Pos, "size": e.Size.Pos})
	}
	if e.SHA256.Set && !wire.ValidSHA256(e.SHA256.V) {
		c.report(e.SHA256.Pos, "expected 64 hexadecimal digits", "%q is not a SHA-256", e.SHA256.V)
	}
	if e.Strip.Set && (e.Strip.V < 0 || e.Strip.V > 16) {
		c.report(e.Strip.Pos, "expected 0 to 16", "strip is %d", e.Strip.V)
	}
	c.placeholders(name, c.words)
	c.into(e.Into)
	if kind != wire.StepFile {
		c.format(e, name, &s)
	} else {
		c.refuse("a file", "a file is put there as it is", map[string]strict.Pos{"format": e.Format.Pos, "strip": e.Strip.Pos})
	}
	return s
}

func (c *recipeCheck) url(e *originEntry, versions *Versions) {
	u, err := url.Parse(placeholder.ReplaceAllString(e.URL.V, "x"))
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		c.report(e.URL.Pos, "expected https://host/path", "%q is not the address of a download", redacted(u, e.URL.V))
	case u.User != nil:
		c.report(e.URL.Pos, "remove what stands before the @", "url has a user name or password")
	case versions != nil && u.Scheme == "http" && e.SHA256.Pos.Line == 0:
		c.report(e.URL.Pos, "use https, or add its sha256", "nothing makes an http address safe")
	}
	if e.SHA256.Pos.Line == 0 && versions == nil {
		c.report(e.URL.Pos, "add sha256: and the 64 hexadecimal digits of the download", "a url needs its sha256")
	}
}

// redacted is an address without the password it may hold.
func redacted(u *url.URL, text string) string {
	switch {
	case u != nil && u.User != nil:
		return u.Redacted()
	case strings.Contains(text, "@"):
		return "…" + text[strings.LastIndex(text, "@"):]
	default:
		return text
	}
}

// plainFormat is what a recipe calls a file that is not packed.
const plainFormat = "plain"

// suffixes tell the format by the name, the unsupported ones ("") among them.
var suffixes = []struct {
	suffix string
	format wire.Format
}{
	{".tar.gz", wire.FormatTarGz}, {".tgz", wire.FormatTarGz}, {".tar.zst", wire.FormatTarZst}, {".zip", wire.FormatZip},
	{".tar.xz", ""}, {".tar.bz2", ""}, {".tar", ""}, {".7z", ""}, {".gz", ""}, {".zst", ""}, {".xz", ""},
}

// format is the one given, or the one the name's ending tells. Without a kind, a
// step is a file if nothing says that it is an archive.
func (c *recipeCheck) format(e *originEntry, name strict.Value[string], s *Step) {
	known := []string{string(wire.FormatTarGz), string(wire.FormatTarZst), string(wire.FormatZip)}
	if s.Kind == "" {
		known = append([]string{plainFormat}, known...)
	}
	if e.Format.Pos.Line > 0 {
		before := len(c.problems)
		f := c.oneOf(e.Format, "format", known)
		switch {
		case len(c.problems) > before:
		case f == plainFormat:
			s.Kind = wire.StepFile
		default:
			s.Kind, s.Format = wire.StepArchive, wire.Format(f)
		}
		return
	}
	text, _, _ := strings.Cut(strings.ToLower(name.V), "?")
	for _, known := range suffixes {
		if strings.HasSuffix(text, known.suffix) {
			if known.format == "" {
				c.report(name.Pos, "rbee unpacks .tar.gz, .tar.zst and .zip; for a plain file add format: plain", "cannot unpack %s", known.suffix)
				return
			}
			s.Kind, s.Format = wire.StepArchive, known.format
			return
		}
	}
	if s.Kind == wire.StepArchive {
		c.report(name.Pos, "add format:, one of "+strings.Join(known, ", "), "the name does not tell how it is packed")
	}
	s.Kind = wire.StepFile
}

// entry is the program in the payload; a single file is the program itself.
func (c *recipeCheck) entry(e *sourceEntry, s *Source) {
	single := len(s.Steps) == 1 && s.Steps[0].Kind == wire.StepFile && s.Steps[0].Into == ""
	builtin := len(s.Steps) == 1 && s.Steps[0].Kind == wire.StepBuiltin
	broken := len(s.Steps) == 0 || s.Steps[0].Kind == "" || s.Steps[0].Kind == wire.StepArchive && s.Steps[0].Format == ""
	switch {
	case broken || builtin:
	case single && e.Entry.Set:
		c.report(e.Entry.Pos, "a plain file is the program itself", "entry does not go with format plain")
	case single:
	case e.Entry.Pos.Line == 0 && len(s.Steps) == 1 && s.Steps[0].Kind == wire.StepArchive:
		c.report(e.Pos, "add entry:, the path of the program in the archive", "a source packed as %s has no entry", s.Steps[0].Format)
	case e.Entry.Pos.Line == 0:
		c.report(e.Pos, "add entry:, the path of the program in the payload", "the source has no entry")
	case e.Entry.Set && !cleanPath(placeholder.ReplaceAllString(e.Entry.V, "x")):
		c.report(e.Entry.Pos, "expected a path inside the archive, such as bin/server", "entry %q is not a clean relative path", e.Entry.V)
	}
	c.placeholders(e.Entry, c.words)
}
