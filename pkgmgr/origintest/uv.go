package origintest

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// asUV is the variable that makes a test binary be uv.
const asUV = "RBEE_ORIGINTEST_UV"

// Main runs uv's part and ends the process, if that is what this process is for;
// else it does nothing. To be called first in TestMain.
func Main() {
	if os.Getenv(asUV) != "" {
		os.Exit(UV(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
}

// AddTools publishes a uv whose program is exe, which calls [Main], and a Python
// that is a shell script: it runs scripts as the shell does.
func (s *Server) AddTools(exe string) { s.AddToolVersions(exe, "0.9.9", "20251120") }

// AddToolVersions is [Server.AddTools] with versions of one's own.
func (s *Server) AddToolVersions(exe, uvVersion, pythonVersion string) {
	uv := TarGz(map[string]string{"uv-x/uv": "#!/bin/sh\n" + asUV + "=1 exec '" + exe + "' \"$@\"\n"})
	python := TarGz(map[string]string{"python/bin/python3": "#!/bin/sh\n# " + pythonVersion + "\nexec /bin/sh \"$@\"\n"})
	uvs, pythons := map[string][]byte{}, map[string][]byte{}
	for _, cpu := range []string{"x86_64", "aarch64"} {
		for _, system := range []string{"unknown-linux-gnu", "unknown-linux-musl", "apple-darwin"} {
			uvs["uv-"+cpu+"-"+system+".tar.gz"] = uv
			pythons["cpython-3.12.12+"+pythonVersion+"-"+cpu+"-"+system+"-install_only_stripped.tar.gz"] = python
		}
	}
	s.AddRelease("astral-sh/uv", Release{Tag: uvVersion, Assets: uvs})
	s.AddRelease("astral-sh/python-build-standalone", Release{Tag: pythonVersion, Assets: pythons})
}

// UV does what the parts of uv do that rbee uses; the arguments are those after
// the program's name. Anything else is refused with status 2.
func UV(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) > 2 && args[0] == "pip" && args[1] == "compile":
		err = compile(args[2:], stdin)
	case len(args) > 1 && args[0] == "venv":
		err = venv(args[1:])
	case len(args) > 2 && args[0] == "pip" && args[1] == "install":
		err = install(args[2:])
	default:
		err = usage(fmt.Errorf("unknown command %q", args))
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "error:", err)
	var u usageError
	if errors.As(err, &u) {
		return 2
	}
	return 1
}

type usageError struct{ error }

func usage(err error) error { return usageError{err} }

// flags parses the flags of a command: bools and values must be given, optional ones
// may be, and several values of one are joined by newlines. rest is the number of
// arguments.
func flags(args []string, bools, values []string, optional []string, rest int) (map[string]string, []string, error) {
	set := flag.NewFlagSet("uv", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	out := map[string]string{}
	on := map[string]*bool{}
	for _, b := range bools {
		on[b] = set.Bool(b, false, "")
	}
	for _, v := range slices.Concat(values, optional) {
		set.Func(v, "", func(s string) error {
			out[v] = strings.TrimPrefix(out[v]+"\n"+s, "\n")
			return nil
		})
	}
	if err := set.Parse(args); err != nil {
		return nil, nil, usage(err)
	}
	for _, v := range values {
		if out[v] == "" {
			return nil, nil, usage(fmt.Errorf("--%s is missing", v))
		}
	}
	for name, v := range on {
		if !*v {
			return nil, nil, usage(fmt.Errorf("--%s is missing", name))
		}
	}
	if set.NArg() != rest {
		return nil, nil, usage(fmt.Errorf("arguments %q", set.Args()))
	}
	return out, set.Args(), nil
}

// requirement is a line such as "six>=1.0, <2".
var requirement = regexp.MustCompile(`^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(.*)$`)

// resolution is one run of compile.
type resolution struct {
	indexes   []string // asked in order; the first that has a package decides
	torch     string   // backend
	platform  string   // of --python-platform
	cutoff    time.Time
	exempt    []string          // from the cutoff
	overrides map[string]string // requirements by normal name
	limits    map[string]string // constraints by normal name
}

// compile resolves requirements: of the versions that have a wheel for the platform,
// the one that was published last.
func compile(args []string, stdin io.Reader) error {
	opts, rest, err := flags(args, []string{"no-config", "no-progress", "quiet", "no-build"},
		[]string{"python", "python-version", "python-platform", "output-file"},
		[]string{"torch-backend", "prerelease", "index-strategy", "override", "constraint", "exclude-newer", "exclude-newer-package"}, 1)
	if err != nil {
		return err
	}
	index := os.Getenv("UV_DEFAULT_INDEX")
	if index == "" || rest[0] != "-" || os.Getenv("UV_CACHE_DIR") == "" {
		return usage(errors.New("the index, the cache or the - is missing"))
	}
	for _, name := range []string{"UV_OVERRIDE", "UV_CONSTRAINT", "UV_EXCLUDE_NEWER", "PIP_INDEX_URL", "UV_TORCH_BACKEND", "UV_PRERELEASE", "VIRTUAL_ENV"} {
		if os.Getenv(name) != "" {
			return usage(fmt.Errorf("%s of the user is set", name)) // the real one would obey it
		}
	}
	r := resolution{indexes: append(strings.Fields(os.Getenv("UV_INDEX")), index), torch: opts["torch-backend"], platform: opts["python-platform"]}
	if r.overrides, err = readRequirements(opts["override"]); err != nil {
		return err
	}
	if r.limits, err = readRequirements(opts["constraint"]); err != nil {
		return err
	}
	if at := opts["exclude-newer"]; at != "" {
		if r.cutoff, err = time.Parse(time.RFC3339, at); err != nil {
			return usage(err)
		}
	}
	for entry := range strings.FieldsSeq(opts["exclude-newer-package"]) {
		name, ok := strings.CutSuffix(entry, "=false")
		if !ok {
			return usage(fmt.Errorf("--exclude-newer-package %s", entry))
		}
		r.exempt = append(r.exempt, normal(name))
	}
	text, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	lock := "lock-version = \"1.0\"\ncreated-by = \"uv\"\n"
	todo, done := strings.Split(string(text), "\n"), map[string]bool{}
	for len(todo) > 0 {
		line, _, _ := strings.Cut(todo[0], "#")
		line, marker, _ := strings.Cut(line, ";")
		todo = todo[1:]
		m := requirement.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || done[normal(m[1])] || strings.Contains(marker, "never") {
			continue
		}
		name, wish := normal(m[1]), m[2]
		if o, ok := r.overrides[name]; ok {
			if wish = o; strings.Contains(o, "never") {
				continue
			}
		}
		if c := r.limits[name]; c != "" {
			wish = strings.TrimPrefix(wish+","+c, ",")
		}
		done[name] = true
		entry, more, err := r.choose(name, wish)
		if err != nil {
			return err
		}
		lock += entry
		todo = append(todo, more...)
	}
	return os.WriteFile(opts["output-file"], []byte(lock), 0o600)
}

// readRequirements reads files of requirements.
func readRequirements(paths string) (map[string]string, error) {
	all := map[string]string{}
	for path := range strings.FieldsSeq(paths) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			if m := requirement.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				all[normal(m[1])] = m[2]
			}
		}
	}
	return all, nil
}

type indexFile struct {
	Filename string            `json:"filename"`
	URL      string            `json:"url"`
	Size     int64             `json:"size"`
	Hashes   map[string]string `json:"hashes"`
	Yanked   bool              `json:"yanked"`
	Uploaded time.Time         `json:"upload-time"`
}

// noSolution is what uv prints where resolution fails.
type noSolution struct{ because, hint string }

func (e noSolution) Error() string {
	text := "No solution found when resolving dependencies\n  cause: Because " + e.because + ", we can conclude that your requirements are unsatisfiable."
	if e.hint != "" {
		text += "\n\nhint: " + e.hint
	}
	return text
}

// choose finds the newest version of a package that fits, and what it depends on.
func (r *resolution) choose(name, wish string) (entry string, requires []string, err error) {
	missing := noSolution{because: fmt.Sprintf("%s was not found in the package registry and you require %s%s", name, name, wish)}
	pages := []string{}
	if r.torch != "" {
		pages = append(pages, r.indexes[len(r.indexes)-1]+"/"+r.torch+"/"+name+"/")
	}
	for _, index := range r.indexes {
		pages = append(pages, index+"/"+name+"/")
	}
	var files []indexFile
	page := ""
	for _, page = range pages {
		files, err = readPage(page)
		var status statusError
		switch {
		case err == nil && len(files) > 0:
		case errors.As(err, &status) && status.code == http.StatusUnauthorized:
			missing.hint = fmt.Sprintf("An index URL (%s) could not be queried due to a lack of valid authentication credentials (401 Unauthorized)", page)
			continue
		case errors.As(err, &status) && status.code == http.StatusNotFound || err == nil:
			continue
		default:
			return "", nil, usage(fmt.Errorf("Failed to fetch: %s\n  cause: %w", page, err)) //nolint:staticcheck // as uv words it
		}
		break
	}
	if len(files) == 0 {
		return "", nil, missing
	}
	version, other := "", false
	for _, f := range files { // as they were published
		parts := strings.Split(f.Filename, "-")
		newer := !r.cutoff.IsZero() && !slices.Contains(r.exempt, name) && (f.Uploaded.IsZero() || f.Uploaded.After(r.cutoff))
		if f.Yanked || newer || !fits(parts[1], wish) {
			continue
		}
		if !onPlatform(f.Filename, r.platform) {
			other = true
			continue
		}
		version = parts[1]
	}
	switch {
	case version == "" && other:
		return "", nil, noSolution{because: fmt.Sprintf("%s%s has no usable wheels and you require %s%s", name, wish, name, wish)}
	case version == "":
		return "", nil, noSolution{because: fmt.Sprintf("there is no version of %s%s and you require %s%s", name, wish, name, wish)}
	}
	var wheels []string
	base, err := url.Parse(page)
	if err != nil {
		return "", nil, err
	}
	for _, f := range files {
		if strings.Split(f.Filename, "-")[1] != version || !onPlatform(f.Filename, r.platform) {
			continue
		}
		at, err := base.Parse(f.URL)
		if err != nil {
			return "", nil, err
		}
		wheels = append(wheels, fmt.Sprintf("{ url = %q, size = %d, hashes = { sha256 = %q } }", at, f.Size, f.Hashes["sha256"]))
		if requires == nil {
			if requires, err = readRequires(at.String()); err != nil {
				return "", nil, err
			}
		}
	}
	return fmt.Sprintf("[[packages]]\nname = %q\nversion = %q\nwheels = [%s]\n", name, version, strings.Join(wheels, ", ")), requires, nil
}

var manylinux = regexp.MustCompile(`manylinux_2_([0-9]+)_`)

// onPlatform reports whether a wheel runs on a platform such as
// x86_64-manylinux_2_28: its own glibc is not newer.
func onPlatform(filename, platform string) bool {
	have, want := manylinux.FindStringSubmatch(filename), manylinux.FindStringSubmatch(platform+"_")
	if have == nil || want == nil {
		return true
	}
	h, _ := strconv.Atoi(have[1])
	w, _ := strconv.Atoi(want[1])
	return h <= w
}

func fits(version, wish string) bool {
	for term := range strings.SplitSeq(wish, ",") {
		term = strings.TrimSpace(term)
		want := strings.TrimSpace(strings.TrimLeft(term, "<>=!"))
		version := version
		if !strings.Contains(want, "+") {
			version, _, _ = strings.Cut(version, "+") // local labels do not count
		}
		switch {
		case term == "":
		case strings.HasPrefix(term, "==") && version != want, strings.HasPrefix(term, ">=") && version < want,
			strings.HasPrefix(term, "<=") && version > want, strings.HasPrefix(term, "<") && !strings.HasPrefix(term, "<=") && version >= want:
			return false
		}
	}
	return true
}

// statusError is an answer without a page.
type statusError struct {
	code   int
	status string
}

func (e statusError) Error() string { return e.status }

func readPage(address string) ([]indexFile, error) {
	req, err := http.NewRequest(http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.pypi.simple.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var page struct {
		Files []indexFile `json:"files"`
	}
	if resp.StatusCode != http.StatusOK {
		return nil, statusError{resp.StatusCode, resp.Status}
	}
	if strings.Contains(resp.Header.Get("Content-Type"), "html") {
		return readHTML(resp.Body)
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return nil, err
	}
	return page.Files, nil
}

var (
	anchor = regexp.MustCompile(`<a ([^>]*)>`)
	href   = regexp.MustCompile(`href="([^"#]*)(?:#sha256=([0-9a-f]+))?"`)
)

// readHTML reads a page after PEP 503, which has neither sizes nor dates.
func readHTML(body io.Reader) ([]indexFile, error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	var files []indexFile
	for _, a := range anchor.FindAllStringSubmatch(string(text), -1) {
		if m := href.FindStringSubmatch(a[1]); m != nil {
			files = append(files, indexFile{
				Filename: m[1][strings.LastIndex(m[1], "/")+1:], URL: m[1], Hashes: map[string]string{"sha256": m[2]},
				Yanked: strings.Contains(a[1], "data-yanked"),
			})
		}
	}
	return files, nil
}

// readRequires reads what a wheel depends on.
func readRequires(address string) ([]string, error) {
	resp, err := http.Get(address)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", address, resp.Status)
	}
	temp, err := os.CreateTemp("", "wheel")
	if err != nil {
		return nil, err
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	if _, err := io.Copy(temp, resp.Body); err != nil {
		return nil, err
	}
	files, err := unzip(temp.Name())
	if err != nil {
		return nil, err
	}
	requires := []string{}
	for name, text := range files {
		if !strings.HasSuffix(name, ".dist-info/METADATA") {
			continue
		}
		for line := range strings.SplitSeq(text, "\n") {
			if r, ok := strings.CutPrefix(line, "Requires-Dist: "); ok {
				requires = append(requires, r)
			}
		}
	}
	return requires, nil
}

func unzip(path string) (map[string]string, error) {
	z, err := zip.OpenReader(path)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	files := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		files[f.Name] = string(data)
	}
	return files, nil
}

// venv makes an environment.
func venv(args []string) error {
	opts, rest, err := flags(args, []string{"no-config", "offline", "no-python-downloads", "quiet", "relocatable"}, []string{"python"}, nil, 1)
	if err != nil {
		return err
	}
	if info, err := os.Stat(opts["python"]); err != nil || info.Mode()&0o111 == 0 || !filepath.IsAbs(opts["python"]) {
		return usage(fmt.Errorf("no interpreter at %s", opts["python"]))
	}
	bin := filepath.Join(rest[0], "bin")
	return errors.Join(
		os.MkdirAll(bin, 0o755), os.MkdirAll(filepath.Join(rest[0], "lib", "python3.12", "site-packages"), 0o755),
		os.Symlink(opts["python"], filepath.Join(bin, "python")), os.Symlink("python", filepath.Join(bin, "python3")),
		os.WriteFile(filepath.Join(rest[0], "pyvenv.cfg"), []byte("home = "+filepath.Dir(opts["python"])+"\nrelocatable = true\n"), 0o644),
	)
}

var nameRuns = regexp.MustCompile(`[-_.]+`)

func normal(name string) string { return strings.ToLower(nameRuns.ReplaceAllString(name, "-")) }
