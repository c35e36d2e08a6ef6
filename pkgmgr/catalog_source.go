package pkgmgr

import (
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

var sha256Regexp = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`)

func (c *recipeCheck) source(e *sourceEntry) Source {
	s := Source{
		Version: e.Version.V,
		OS:      c.oneOf(e.OS, "os", knownOS),
		Arch:    c.oneOf(e.Arch, "arch", knownArch),
		Libc:    c.oneOf(e.Libc, "libc", knownLibc),
		Builtin: c.oneOf(e.Builtin, "built-in server", knownBuiltin),
		File:    e.File.V, URL: e.URL.V,
		SHA256: strings.ToLower(e.SHA256.V), Size: int64(e.Size.V),
		Entry: e.Entry.V, Pos: Pos(e.Pos),
	}
	if e.Version.Set && (!ValidVersion(e.Version.V) || e.Version.V == Latest) {
		c.report(e.Version.Pos, "expected a version such as \"1.2\"", "%q is not a valid version", e.Version.V)
	}
	switch origins := originsOf(e); {
	case len(origins) != 1:
		c.report(e.Pos, "expected exactly one of builtin, file and url", "the source has %s", oneOrMore(origins))
	case e.Builtin.Set:
		c.onlyBuiltin(e)
	default:
		c.artefact(e, &s)
	}
	return s
}

func originsOf(e *sourceEntry) []string {
	var keys []string
	for _, o := range []struct {
		set bool
		key string
	}{{e.Builtin.Pos.Line > 0, "builtin"}, {e.File.Pos.Line > 0, "file"}, {e.URL.Pos.Line > 0, "url"}} {
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

// onlyBuiltin refuses what a server inside rbee has no use for.
func (c *recipeCheck) onlyBuiltin(e *sourceEntry) {
	refuse := func(set bool, at strict.Pos, key string) {
		if set {
			c.report(at, "a built-in server is part of rbee and has its version", "%s does not go with builtin", key)
		}
	}
	refuse(e.Version.Set, e.Version.Pos, "version")
	refuse(e.SHA256.Set, e.SHA256.Pos, "sha256")
	refuse(e.Size.Set, e.Size.Pos, "size")
	refuse(e.Format.Set, e.Format.Pos, "format")
	refuse(e.Entry.Set, e.Entry.Pos, "entry")
}

// artefact checks a source that is a file or a download.
func (c *recipeCheck) artefact(e *sourceEntry, s *Source) {
	if e.Version.Pos.Line == 0 {
		c.report(e.Pos, "such as version: \"1.2\"", "the source has no version")
	}
	origin := e.File
	if e.URL.Set {
		origin = e.URL
		c.url(e)
	} else if e.File.Set && e.File.V == "" {
		c.report(e.File.Pos, "expected a path", "file is empty")
	}
	if e.SHA256.Set && !sha256Regexp.MatchString(e.SHA256.V) {
		c.report(e.SHA256.Pos, "expected 64 hexadecimal digits", "%q is not a SHA-256", e.SHA256.V)
	}
	c.placeholders(origin, sourceWords)
	c.placeholders(e.Entry, sourceWords)
	if s.Format = c.format(e.Format, origin); s.Format != "" {
		c.entry(e, s.Format)
	}
}

func (c *recipeCheck) url(e *sourceEntry) {
	u, err := url.Parse(placeholder.ReplaceAllString(e.URL.V, "x"))
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		c.report(e.URL.Pos, "expected https://host/path", "%q is not the address of a download", redacted(u, e.URL.V))
	case u.User != nil:
		c.report(e.URL.Pos, "remove what stands before the @", "url has a user name or password")
	}
	if e.SHA256.Pos.Line == 0 {
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

// suffixes tell the format by the name, the unsupported ones ("") among them.
var suffixes = []struct {
	suffix string
	format wire.Format
}{
	{".tar.gz", wire.FormatTarGz}, {".tgz", wire.FormatTarGz}, {".tar.zst", wire.FormatTarZst}, {".zip", wire.FormatZip},
	{".tar.xz", ""}, {".tar.bz2", ""}, {".tar", ""}, {".7z", ""}, {".gz", ""}, {".zst", ""}, {".xz", ""},
}

// format is the one given, or the one the name's ending tells. It is empty, with
// a problem, for one that cannot be unpacked.
func (c *recipeCheck) format(v, origin strict.Value[string]) wire.Format {
	if v.Pos.Line > 0 {
		known := []string{string(wire.FormatPlain), string(wire.FormatTarGz), string(wire.FormatTarZst), string(wire.FormatZip)}
		before := len(c.problems)
		f := wire.Format(c.oneOf(v, "format", known))
		if len(c.problems) > before {
			return ""
		}
		return f
	}
	name, _, _ := strings.Cut(strings.ToLower(origin.V), "?")
	for _, s := range suffixes {
		if strings.HasSuffix(name, s.suffix) {
			if s.format == "" {
				c.report(origin.Pos, "rbee unpacks .tar.gz, .tar.zst and .zip; for a plain file add format: plain", "cannot unpack %s", s.suffix)
			}
			return s.format
		}
	}
	return wire.FormatPlain
}

// entry is the program in an archive; a plain file is the program itself.
func (c *recipeCheck) entry(e *sourceEntry, f wire.Format) {
	switch p := e.Entry.V; {
	case f == wire.FormatPlain && e.Entry.Set:
		c.report(e.Entry.Pos, "a plain file is the program itself", "entry does not go with format plain")
	case f != wire.FormatPlain && e.Entry.Pos.Line == 0:
		c.report(e.Pos, "add entry:, the path of the program in the archive", "a source packed as %s has no entry", f)
	case e.Entry.Set && (p == "" || p == "." || path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") || strings.Contains(p, `\`)):
		c.report(e.Entry.Pos, "expected a path inside the archive, such as bin/server", "entry %q is not a clean relative path", p)
	}
}
