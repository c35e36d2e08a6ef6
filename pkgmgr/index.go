package pkgmgr

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// index reads a Python package index, as JSON (PEP 691) or HTML (PEP 503):
// https://packaging.python.org/en/latest/specifications/simple-repository-api/
type index struct {
	from *fetch.Client // its index is https://pypi.org/simple
}

// project is the page of one package.
type project struct {
	files []projectFile
}

// projectFile is one file of a package.
type projectFile struct {
	name     string
	uploaded time.Time // zero if the index does not record it
	yanked   bool
}

// indexTypes are the formats that an index is asked for.
const indexTypes = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"

// project reads the page of a package; the error is [fetch.ErrNotFound] if the index does
// not have it.
func (x *index) project(ctx context.Context, name string) (*project, error) {
	address := strings.TrimSuffix(x.from.Index, "/") + "/" + normalName(name) + "/"
	p := &project{}
	err := x.from.GetOK(ctx, address, http.Header{"Accept": {indexTypes}}, func(resp *http.Response) (err error) {
		switch kind := resp.Header.Get("Content-Type"); {
		case strings.Contains(kind, "json"):
			p.files, err = projectJSON(resp)
		case strings.Contains(kind, "html"):
			p.files, err = projectHTML(io.LimitReader(resp.Body, fetch.MaxResponse))
		default:
			err = fmt.Errorf("invalid answer of type %q: want a page of a package index, as JSON (PEP 691) or HTML (PEP 503)", kind)
		}
		return err
	})
	return p, err
}

func projectJSON(resp *http.Response) ([]projectFile, error) {
	var page struct {
		Files []struct {
			Filename string          `json:"filename"`
			Uploaded string          `json:"upload-time"` // since version 1.1 (PEP 700)
			Yanked   json.RawMessage `json:"yanked"`      // true, false or a reason
		} `json:"files"`
	}
	if err := fetch.DecodeJSON(resp, &page); err != nil {
		return nil, err
	}
	var files []projectFile
	for _, f := range page.Files {
		yanked := len(f.Yanked) > 0 && string(f.Yanked) != "false" && string(f.Yanked) != "null"
		uploaded, _ := time.Parse(time.RFC3339, f.Uploaded) // zero where it is missing
		files = append(files, projectFile{f.Filename, uploaded, yanked})
	}
	return files, nil
}

// projectHTML reads the links of a page. HTML has no upload dates.
func projectHTML(r io.Reader) ([]projectFile, error) {
	d := xml.NewDecoder(r)
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var files []projectFile
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the page as HTML: %w", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok || !strings.EqualFold(start.Name.Local, "a") {
			continue
		}
		var f projectFile
		for _, a := range start.Attr {
			switch strings.ToLower(a.Name.Local) {
			case "href":
				if u, err := url.Parse(a.Value); err == nil {
					f.name = path.Base(u.Path)
				}
			case "data-yanked":
				f.yanked = true
			}
		}
		if f.name != "" {
			files = append(files, f)
		}
	}
}

// versions lists the versions of a page that have a wheel and were not yanked.
func (p *project) versions() []string {
	var versions []string
	for _, f := range p.files {
		w, ok := parseWheel(f.name)
		if ok && !f.yanked && ValidVersion(w.version) && !slices.Contains(versions, w.version) {
			versions = append(versions, w.version)
		}
	}
	return versions
}

// released returns when the first file of a version was uploaded; zero if the index
// does not record that for each file of the version.
func (p *project) released(version string) (first time.Time) {
	for _, f := range p.files {
		if w, ok := parseWheel(f.name); !ok || CompareVersions(w.version, version) != 0 {
			continue
		}
		if f.uploaded.IsZero() {
			return time.Time{}
		}
		if first.IsZero() || f.uploaded.Before(first) {
			first = f.uploaded
		}
	}
	return first
}

// dated reports whether the index records the upload date of each file.
func (p *project) dated() bool {
	return !slices.ContainsFunc(p.files, func(f projectFile) bool { return f.uploaded.IsZero() })
}

var nameRuns = regexp.MustCompile(`[-_.]+`)

// normalName is how an index writes a package's name (PEP 503).
func normalName(name string) string { return strings.ToLower(nameRuns.ReplaceAllString(name, "-")) }

// wheel is what the name of a wheel says:
// https://packaging.python.org/en/latest/specifications/binary-distribution-format/
type wheel struct {
	name, version        string
	python, abi, platfrm []string
}

func parseWheel(filename string) (w wheel, ok bool) {
	stem, ok := strings.CutSuffix(filename, ".whl")
	parts := strings.Split(stem, "-")
	if !ok || len(parts) != 5 && len(parts) != 6 {
		return wheel{}, false
	}
	tags := parts[len(parts)-3:]
	return wheel{
		name: parts[0], version: parts[1],
		python: strings.Split(tags[0], "."), abi: strings.Split(tags[1], "."), platfrm: strings.Split(tags[2], "."),
	}, true
}

// target is what wheels must fit.
type target struct {
	platform Platform
	python   string // "3.12"
	glibc    int    // minor version of the oldest glibc that they may need
}

// uvPlatform is how uv names the oldest system that packages are chosen for.
func (t target) uvPlatform() (string, error) {
	switch p := t.platform; {
	case p.OS == "linux" && p.Libc == "musl":
		return cpuName(p) + "-unknown-linux-musl", nil
	case p.OS == "linux":
		return fmt.Sprintf("%s-manylinux_2_%d", cpuName(p), t.glibc), nil
	case p.OS == "darwin":
		return cpuName(p) + "-apple-darwin", nil
	default:
		return "", fmt.Errorf("there are no Python packages for %s", PlatformKey(p))
	}
}

func cpuName(p Platform) string {
	switch {
	case p.Arch == "amd64":
		return "x86_64"
	case p.Arch == "arm64" && p.OS == "linux":
		return "aarch64"
	case p.Arch == "arm64":
		return "aarch64"
	default:
		return p.Arch
	}
}

// rank tells how well a wheel fits, higher for better; 0 if it does not.
func (t target) rank(w wheel) int {
	best := 0
	for _, py := range w.python {
		for _, abi := range w.abi {
			for _, plat := range w.platfrm {
				a, b := t.interpreterRank(py, abi), t.platformRank(plat)
				if a > 0 && b > 0 {
					best = max(best, a*1000+b)
				}
			}
		}
	}
	return best
}

// interpreterRank compares tags such as cp312-cp312, cp38-abi3 and py3-none.
func (t target) interpreterRank(py, abi string) int {
	own := "cp" + strings.ReplaceAll(t.python, ".", "")
	_, minor, _ := strings.Cut(t.python, ".")
	ours, _ := strconv.Atoi(minor)
	version := func(prefix string) (int, bool) {
		rest, ok := strings.CutPrefix(py, prefix+"3")
		if !ok {
			return 0, false
		}
		n, err := strconv.Atoi(rest)
		return n, err == nil && n <= ours
	}
	switch {
	case py == own && abi == own:
		return 6
	case abi == "abi3":
		if _, ok := version("cp"); ok {
			return 5
		}
	case py == own && abi == "none":
		return 4
	case py == "py"+strings.TrimPrefix(own, "cp") && abi == "none":
		return 3
	case abi == "none" && (py == "py3" || py == "py2.py3"):
		return 2
	case abi == "none":
		if _, ok := version("py"); ok {
			return 1
		}
	}
	return 0
}

var (
	manylinux = regexp.MustCompile(`^manylinux_2_([0-9]+)_(.+)$`)
	musllinux = regexp.MustCompile(`^musllinux_1_([0-9]+)_(.+)$`)
	macosx    = regexp.MustCompile(`^macosx_([0-9]+)_([0-9]+)_(.+)$`)
)

// The newest systems that a wheel may need: musl 1.2, macOS 13, which are what uv
// takes for them, and glibc 2.28 where a recipe does not say another.
const (
	defaultGlibc = 28
	newestMusl   = 2
	newestMacOS  = 13
)

func (t target) platformRank(tag string) int {
	p, cpu := t.platform, cpuName(t.platform)
	mac := cpu
	if p.Arch == "arm64" {
		mac = "arm64"
	}
	level := func(m []string, newest int) int {
		if m == nil || m[2] != cpu {
			return 0
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || n > newest {
			return 0
		}
		return 100 + n
	}
	switch {
	case tag == "any":
		return 1
	case p.OS == "linux" && p.Libc == "musl":
		return level(musllinux.FindStringSubmatch(tag), newestMusl)
	case p.OS == "linux":
		switch tag {
		case "linux_" + cpu:
			return 50
		case "manylinux1_" + cpu:
			return 105
		case "manylinux2010_" + cpu:
			return 112
		case "manylinux2014_" + cpu:
			return 117
		}
		return level(manylinux.FindStringSubmatch(tag), t.glibc)
	case p.OS == "darwin":
		m := macosx.FindStringSubmatch(tag)
		if m == nil || m[3] != mac && m[3] != "universal2" {
			return 0
		}
		if major, err := strconv.Atoi(m[1]); err == nil && major <= newestMacOS {
			return 100 + major
		}
	}
	return 0
}

// pylock is the part of a lock file after PEP 751 that is used:
// https://packaging.python.org/en/latest/specifications/pylock-toml/
type pylock struct {
	Packages []struct {
		Name    string `toml:"name"`
		Version string `toml:"version"`
		Wheels  []struct {
			Name   string            `toml:"name"`
			URL    string            `toml:"url"`
			Size   int64             `toml:"size"`
			Hashes map[string]string `toml:"hashes"`
		} `toml:"wheels"`
	} `toml:"packages"`
}

// parsePylock reads what uv wrote.
func parsePylock(data []byte) (*pylock, error) {
	var lock pylock
	if err := toml.Unmarshal(data, &lock); err != nil {
		return nil, fmt.Errorf("what uv wrote cannot be read: %w", err)
	}
	return &lock, nil
}

// wheels picks the best wheel of each package of a lock's text.
func (t target) wheels(data []byte) ([]wire.Artefact, error) {
	lock, err := parsePylock(data)
	if err != nil {
		return nil, err
	}
	return t.wheelsOf(lock)
}

// without lists the packages of a lock that have no wheel for the target.
func (t target) without(lock *pylock) []string {
	var names []string
	for _, p := range lock.Packages {
		fits := false
		for _, w := range p.Wheels {
			name := w.Name
			if u, err := url.Parse(w.URL); name == "" && err == nil {
				name = path.Base(u.Path)
			}
			parsed, ok := parseWheel(name)
			fits = fits || ok && t.rank(parsed) > 0
		}
		if !fits {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// wheelsOf picks the best wheel of each package of a lock.
func (t target) wheelsOf(lock *pylock) ([]wire.Artefact, error) {
	var all []wire.Artefact
	for _, p := range lock.Packages {
		best, a := 0, wire.Artefact{}
		for _, w := range p.Wheels {
			name := w.Name
			if u, err := url.Parse(w.URL); name == "" && err == nil {
				name = path.Base(u.Path)
			}
			parsed, ok := parseWheel(name)
			if rank := t.rank(parsed); ok && rank > best {
				best, a = rank, wire.Artefact{Name: name, URL: w.URL, SHA256: strings.ToLower(w.Hashes["sha256"]), Size: w.Size}
			}
		}
		switch {
		case best == 0:
			return nil, fmt.Errorf("%s %s has no wheel for Python %s on %s", p.Name, p.Version, t.python, platformName(t.platform.OS, t.platform.Arch, t.platform.Libc))
		case !sha256Regexp.MatchString(a.SHA256):
			return nil, fmt.Errorf("the index tells no SHA-256 of %s", a.Name)
		}
		all = append(all, a)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}
