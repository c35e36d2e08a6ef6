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

// parseSource parses a source. versions describes where the recipe's versions are published; it
// is nil if each source has its own version.
func (c *recipeParser) parseSource(e *sourceEntry, versions *Versions) Source {
	s := Source{
		Name:    e.Name.V,
		Version: e.Version.V,
		OS:      c.parseOneOf(e.OS, "os", knownOS),
		Arch:    c.parseOneOf(e.Arch, "arch", knownArch),
		Libc:    c.parseOneOf(e.Libc, "libc", knownLibc),
		Glibc:   c.parseNumber(e.Glibc, "glibc"),
		Entry:   e.Entry.V, Pos: config.Pos(e.Pos),
	}
	if e.Name.Set && !sourceName.MatchString(e.Name.V) {
		c.report(e.Name.Pos, "want lowercase letters, digits, dot, dash and underscore", "invalid source name %q", e.Name.V)
	}
	c.parseConditions(e, &s)
	switch origins := originKeys(&e.artifactEntry, e.Builtin, e.Steps.Pos.Line > 0); {
	case len(origins) != 1:
		c.report(e.Pos, "want builtin, file, url or steps", "source has %s", describeOrigins(origins))
		return s
	case e.Steps.Pos.Line > 0:
		c.rejectArtifactKeys(e)
		for i := range e.Steps.V {
			s.Steps = append(s.Steps, c.parseStep(&e.Steps.V[i], versions))
		}
	case e.Builtin.Pos.Line > 0:
		c.rejectKeysWithBuiltin(e)
		s.Steps = []Step{{Kind: wire.StepBuiltin, Builtin: c.parseOneOf(e.Builtin, "built-in server", knownBuiltin), Pos: config.Pos(e.Pos)}}
	default:
		o := originEntry{Pos: e.Pos, artifactEntry: e.artifactEntry}
		s.Steps = []Step{c.parseArtifact(&o, versions, "")}
	}
	for _, a := range e.Args.V {
		c.checkPlaceholders(a, startPlaceholders)
		s.Args = append(s.Args, a.V)
	}
	s.Env = c.parseEnv(e.Env.V)
	s.Verify = c.parseVerify(&e.Verify)
	c.checkSourceVersion(e, &s, versions)
	c.checkEntry(e, &s)
	return s
}

// checkSourceVersion checks the version of a source: a range if the recipe has published
// versions, else a single version.
func (c *recipeParser) checkSourceVersion(e *sourceEntry, s *Source, versions *Versions) {
	builtin := len(s.Steps) > 0 && s.Steps[0].Kind == wire.StepBuiltin
	switch {
	case e.Version.Pos.Line == 0 && versions == nil && !builtin:
		c.report(e.Pos, "for example version: \"1.2\"", "source has no version")
	case !e.Version.Set:
	case versions != nil:
		if _, err := version.ParseRange(e.Version.V); err != nil {
			c.report(e.Version.Pos, "want a range such as \">=1.2, <2\"", "invalid version range %q", e.Version.V)
		}
	case !version.Valid(e.Version.V) || e.Version.V == version.Latest:
		c.report(e.Version.Pos, "want a version such as \"1.2\"", "invalid version %q", e.Version.V)
	}
}

// originKeys returns the keys that specify the origin of a source.
func originKeys(e *artifactEntry, builtin strict.Value[string], steps bool) []string {
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

// describeOrigins describes origin keys in the message for a wrong number of them.
func describeOrigins(origins []string) string {
	if len(origins) == 0 {
		return "nothing to install from"
	}
	return "both " + strings.Join(origins, " and ")
}

// rejectKeys reports keys that cannot be combined with another key.
func (c *recipeParser) rejectKeys(with, hint string, keys map[string]strict.Pos) {
	for key, at := range keys {
		if at.Line > 0 {
			c.report(at, hint, "cannot combine %s with %s", key, with)
		}
	}
}

// rejectKeysWithBuiltin reports keys that cannot be combined with a built-in server.
func (c *recipeParser) rejectKeysWithBuiltin(e *sourceEntry) {
	c.rejectKeys("builtin", "a built-in server has the version of rbee", map[string]strict.Pos{
		"version": e.Version.Pos, "sha256": e.SHA256.Pos, "size": e.Size.Pos, "format": e.Format.Pos, "strip": e.Strip.Pos, "entry": e.Entry.Pos,
	})
}

// rejectArtifactKeys reports keys that belong in a step.
func (c *recipeParser) rejectArtifactKeys(e *sourceEntry) {
	c.rejectKeys("steps", "move it to the step", map[string]strict.Pos{
		"sha256": e.SHA256.Pos, "size": e.Size.Pos, "format": e.Format.Pos, "strip": e.Strip.Pos,
	})
	if e.Steps.Set && len(e.Steps.V) == 0 {
		c.report(e.Steps.Pos, "for example archive: { url: … }", "steps is empty")
	}
}

// parseStep parses a step of a source.
func (c *recipeParser) parseStep(e *stepEntry, versions *Versions) Step {
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
		c.report(e.Pos, "want builtin, file, archive or python", "step has %s", describeOrigins(keys))
		return Step{Pos: config.Pos(e.Pos)}
	case e.Builtin.Pos.Line > 0:
		c.report(e.Builtin.Pos, "write builtin: instead of steps:", "a built-in server cannot be a step")
		return Step{Pos: config.Pos(e.Pos)}
	case e.Python.Pos.Line > 0:
		return c.parsePython(&e.Python)
	case e.File.Pos.Line > 0:
		return c.parseArtifact(&e.File.V, versions, wire.StepFile)
	default:
		return c.parseArtifact(&e.Archive.V, versions, wire.StepArchive)
	}
}

// parsePython parses a step that creates a Python environment.
func (c *recipeParser) parsePython(v *strict.Value[pythonEntry]) Step {
	e := &v.V
	p := &Python{Version: c.parseNumber(e.Version, "version"), Requirements: e.Requirements.V, Torch: e.Torch.V, Prerelease: e.Prerelease.V}
	p.Packages = c.parseRequirements(e.Packages)
	p.Overrides, p.Constraints = c.parseRequirements(e.Overrides), c.parseRequirements(e.Constraints)
	if p.ExcludeNewer = e.ExcludeNewer.V; e.ExcludeNewer.Set && p.ExcludeNewer != ExcludeNewerNever {
		if _, err := ParseDate(p.ExcludeNewer); err != nil {
			c.report(e.ExcludeNewer.Pos, "want a date such as 2025-10-31, or "+ExcludeNewerNever, "invalid exclude_newer %q", p.ExcludeNewer)
		}
	}
	if e.Requirements.Set && !isCleanPath(e.Requirements.V) {
		c.report(e.Requirements.Pos, "want a clean relative path such as requirements.txt", "invalid requirements %q", e.Requirements.V)
	}
	if len(p.Packages) == 0 && p.Requirements == "" {
		c.report(v.Pos, "for example packages: [\"vllm=={version}\"]", "python step has no packages")
	}
	if e.Torch.Set && !torchBackend.MatchString(e.Torch.V) {
		c.report(e.Torch.Pos, "want cpu, xpu, or a version of CUDA or ROCm such as cu128 or rocm6.4", "invalid torch backend %q", e.Torch.V)
	}
	p.Indexes = c.parseIndexes(e.Indexes.V)
	into := "venv"
	if e.Into.Set {
		into = e.Into.V
		c.checkInto(e.Into)
	}
	return Step{Kind: wire.StepPython, Python: p, Into: into, Pos: config.Pos(v.Pos)}
}

// parseRequirements parses requirements in pip's syntax.
func (c *recipeParser) parseRequirements(v strict.Value[[]strict.Value[string]]) []string {
	var all []string
	for _, pkg := range v.V {
		c.checkPlaceholders(pkg, c.placeholders)
		if pkg.Set && (pkg.V == "" || strings.HasPrefix(pkg.V, "-") || strings.Contains(pkg.V, "://")) {
			c.report(pkg.Pos, "want a requirement such as \"vllm=={version}\"", "invalid package %q", pkg.V)
		}
		all = append(all, pkg.V)
	}
	return all
}

// checkInto checks the key into of a step.
func (c *recipeParser) checkInto(v strict.Value[string]) {
	if v.Set && !isCleanPath(v.V) {
		c.report(v.Pos, "want a clean relative path such as lib", "invalid into %q", v.V)
	}
}

// isCleanPath reports whether p is a clean relative path that does not lead out of its base
// directory.
func isCleanPath(p string) bool {
	return p != "" && p != "." && !path.IsAbs(p) && path.Clean(p) == p && p != ".." && !strings.HasPrefix(p, "../") && !strings.Contains(p, `\`)
}

// parseArtifact parses a step that installs a file or a download. If kind is empty, the name
// determines whether it is an archive.
func (c *recipeParser) parseArtifact(e *originEntry, versions *Versions, kind wire.StepKind) Step {
	s := Step{
		Kind: kind, Into: e.Into.V, Strip: int(e.Strip.V), Pos: config.Pos(e.Pos),
		Origin: Origin{
			File: e.File.V, URL: e.URL.V, Asset: e.Asset.V, Code: e.Code.V,
			SHA256: strings.ToLower(e.SHA256.V), Size: int64(e.Size.V),
		},
	}
	var name strict.Value[string]
	origins := 0
	for _, o := range []strict.Value[string]{e.File, e.URL, e.Asset} {
		if o.Pos.Line > 0 {
			name = o
			origins++
		}
	}
	if e.Code.V {
		name = strict.Value[string]{V: "code.tar.gz", Set: true, Pos: e.Code.Pos}
		origins++
	}
	if origins != 1 {
		c.report(e.Pos, "want file, url, asset or source_code", "step requires exactly one origin")
		return s
	}
	switch {
	case e.URL.Set:
		c.checkURL(e, versions)
	case e.File.Set && e.File.V == "":
		c.report(e.File.Pos, "want a path", "file is empty")
	case e.Asset.Pos.Line > 0 || e.Code.V:
		if versions == nil || versions.GitHub == "" {
			c.report(name.Pos, "add versions: { github: owner/name } to the recipe", "asset and source_code require a repository with releases")
		}
		if _, err := path.Match(e.Asset.V, ""); err != nil || e.Asset.Set && e.Asset.V == "" {
			c.report(e.Asset.Pos, "want a file name, in which * matches any text", "invalid asset %q", e.Asset.V)
		}
		c.rejectKeys("an asset", "the release provides it and the lock records it", map[string]strict.Pos{"sha256": e.SHA256.Pos, "size": e.Size.Pos})
	}
	if e.SHA256.Set && !wire.ValidSHA256(e.SHA256.V) {
		c.report(e.SHA256.Pos, "want 64 hexadecimal digits", "invalid sha256 %q", e.SHA256.V)
	}
	if e.Strip.Set && (e.Strip.V < 0 || e.Strip.V > 16) {
		c.report(e.Strip.Pos, "want 0 to 16", "invalid strip %d", e.Strip.V)
	}
	c.checkPlaceholders(name, c.placeholders)
	c.checkInto(e.Into)
	if kind != wire.StepFile {
		c.setFormat(e, name, &s)
	} else {
		c.rejectKeys("a file", "a file is installed unchanged", map[string]strict.Pos{"format": e.Format.Pos, "strip": e.Strip.Pos})
	}
	return s
}

// checkURL checks the URL of a download.
func (c *recipeParser) checkURL(e *originEntry, versions *Versions) {
	u, err := url.Parse(placeholder.ReplaceAllString(e.URL.V, "x"))
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		c.report(e.URL.Pos, "want https://host/path", "invalid url %q", redactURL(u, e.URL.V))
	case u.User != nil:
		c.report(e.URL.Pos, "remove the part before the @", "url contains a user name or password")
	case versions != nil && u.Scheme == "http" && e.SHA256.Pos.Line == 0:
		c.report(e.URL.Pos, "use https, or add sha256", "an http url without sha256 is insecure")
	}
	if e.SHA256.Pos.Line == 0 && versions == nil {
		c.report(e.URL.Pos, "add sha256: with 64 hexadecimal digits", "url requires sha256")
	}
}

// redactURL returns the address text without its password. u is the parsed address, or nil if
// the address is invalid.
func redactURL(u *url.URL, text string) string {
	switch {
	case u != nil && u.User != nil:
		return u.Redacted()
	case strings.Contains(text, "@"):
		return "…" + text[strings.LastIndex(text, "@"):]
	default:
		return text
	}
}

// plainFormat is the format of a file that is not an archive.
const plainFormat = "plain"

// suffixes maps the file name suffixes of archives to formats. The format is "" if rbee cannot
// unpack the archive.
var suffixes = []struct {
	suffix string
	format wire.Format
}{
	{".tar.gz", wire.FormatTarGz}, {".tgz", wire.FormatTarGz}, {".tar.zst", wire.FormatTarZst}, {".zip", wire.FormatZip},
	{".tar.xz", ""}, {".tar.bz2", ""}, {".tar", ""}, {".7z", ""}, {".gz", ""}, {".zst", ""}, {".xz", ""},
}

// setFormat sets the kind and format of a step from the key format, or else from the suffix of
// the name. A step without a kind is a file if its name does not have the suffix of an
// archive.
func (c *recipeParser) setFormat(e *originEntry, name strict.Value[string], s *Step) {
	known := []string{string(wire.FormatTarGz), string(wire.FormatTarZst), string(wire.FormatZip)}
	if s.Kind == "" {
		known = append([]string{plainFormat}, known...)
	}
	if e.Format.Pos.Line > 0 {
		before := len(c.problems)
		f := c.parseOneOf(e.Format, "format", known)
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
	for _, f := range suffixes {
		if strings.HasSuffix(text, f.suffix) {
			if f.format == "" {
				c.report(name.Pos, "want .tar.gz, .tar.zst or .zip; for a plain file add format: plain", "cannot unpack %s", f.suffix)
				return
			}
			s.Kind, s.Format = wire.StepArchive, f.format
			return
		}
	}
	if s.Kind == wire.StepArchive {
		c.report(name.Pos, "add format: "+orList(known), "cannot determine the archive format from the name")
	}
	s.Kind = wire.StepFile
}

// checkEntry checks the path of the program in the payload. A single file is the program itself.
func (c *recipeParser) checkEntry(e *sourceEntry, s *Source) {
	single := len(s.Steps) == 1 && s.Steps[0].Kind == wire.StepFile && s.Steps[0].Into == ""
	builtin := len(s.Steps) == 1 && s.Steps[0].Kind == wire.StepBuiltin
	broken := len(s.Steps) == 0 || s.Steps[0].Kind == "" || s.Steps[0].Kind == wire.StepArchive && s.Steps[0].Format == ""
	switch {
	case broken || builtin:
	case single && e.Entry.Set:
		c.report(e.Entry.Pos, "a plain file is the program itself", "cannot combine entry with format plain")
	case single:
	case e.Entry.Pos.Line == 0 && len(s.Steps) == 1 && s.Steps[0].Kind == wire.StepArchive:
		c.report(e.Pos, "add entry: with the path of the program in the archive", "%s source has no entry", s.Steps[0].Format)
	case e.Entry.Pos.Line == 0:
		c.report(e.Pos, "add entry: with the path of the program in the payload", "source has no entry")
	case e.Entry.Set && !isCleanPath(placeholder.ReplaceAllString(e.Entry.V, "x")):
		c.report(e.Entry.Pos, "want a clean relative path such as bin/server", "invalid entry %q", e.Entry.V)
	}
	c.checkPlaceholders(e.Entry, c.placeholders)
}
