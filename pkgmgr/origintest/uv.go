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

// uvEnv is the environment variable that makes a test binary run as uv.
const uvEnv = "RBEE_ORIGINTEST_UV"

// Main runs [UV] and exits if the process was started as uv. TestMain must call it first.
func Main() {
	if os.Getenv(uvEnv) != "" {
		os.Exit(UV(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
}

// AddTools publishes a release of uv that runs the test binary exe, which must call [Main],
// and a release of Python whose interpreter is the shell.
func (s *Server) AddTools(exe string) { s.AddToolVersions(exe, "0.9.9", "20251120") }

// AddToolVersions works like [Server.AddTools] with the given versions.
func (s *Server) AddToolVersions(exe, uvVersion, pythonVersion string) {
	uv := TarGz(map[string]string{"uv-x/uv": "#!/bin/sh\n" + uvEnv + "=1 exec '" + exe + "' \"$@\"\n"})
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

// UV implements the commands of uv that rbee uses. args are the arguments after the program
// name. It returns the exit status, which is 2 for unknown commands and flags.
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
		err = usageError{fmt.Errorf("unknown command %q", args)}
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

// usageError is an error that makes [UV] return status 2.
type usageError struct{ error }

// parseFlags parses the flags of a command and returns their values and the arguments. bools
// are the required flags without a value, values are the required flags with a value, and
// optional are the optional flags with a value. Several values of one flag are joined by
// newlines. rest is the required number of arguments.
func parseFlags(args []string, bools, values []string, optional []string, rest int) (map[string]string, []string, error) {
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
		return nil, nil, usageError{err}
	}
	for _, v := range values {
		if out[v] == "" {
			return nil, nil, usageError{fmt.Errorf("--%s is missing", v)}
		}
	}
	for name, v := range on {
		if !*v {
			return nil, nil, usageError{fmt.Errorf("--%s is missing", name)}
		}
	}
	if set.NArg() != rest {
		return nil, nil, usageError{fmt.Errorf("invalid arguments %q: want %d", set.Args(), rest)}
	}
	return out, set.Args(), nil
}

// requirementPattern matches a line such as "six>=1.0, <2".
var requirementPattern = regexp.MustCompile(`^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(.*)$`)

// resolution contains the options of a run of compile.
type resolution struct {
	indexes     []string // in order of priority; the first index with a package is used
	torch       string   // backend
	platform    string   // of --python-platform
	cutoff      time.Time
	exempt      []string          // packages without cutoff
	overrides   map[string]string // by normalized name
	constraints map[string]string // by normalized name
}

// compile implements `uv pip compile`. For each package it selects the most recently
// published version that satisfies the constraints and has a wheel for the platform.
func compile(args []string, stdin io.Reader) error {
	opts, rest, err := parseFlags(args, []string{"no-config", "no-progress", "quiet", "no-build"},
		[]string{"python", "python-version", "python-platform", "output-file"},
		[]string{"torch-backend", "prerelease", "index-strategy", "override", "constraint", "exclude-newer", "exclude-newer-package"}, 1)
	if err != nil {
		return err
	}
	index := os.Getenv("UV_DEFAULT_INDEX")
	if index == "" || rest[0] != "-" || os.Getenv("UV_CACHE_DIR") == "" {
		return usageError{errors.New("UV_DEFAULT_INDEX, UV_CACHE_DIR or the argument - is missing")}
	}
	for _, name := range []string{"UV_OVERRIDE", "UV_CONSTRAINT", "UV_EXCLUDE_NEWER", "PIP_INDEX_URL", "UV_TORCH_BACKEND", "UV_PRERELEASE", "VIRTUAL_ENV"} {
		if os.Getenv(name) != "" {
			return usageError{fmt.Errorf("%s is set", name)} // uv would use the user's setting
		}
	}
	r := resolution{indexes: append(strings.Fields(os.Getenv("UV_INDEX")), index), torch: opts["torch-backend"], platform: opts["python-platform"]}
	if r.overrides, err = readRequirements(opts["override"]); err != nil {
		return err
	}
	if r.constraints, err = readRequirements(opts["constraint"]); err != nil {
		return err
	}
	if at := opts["exclude-newer"]; at != "" {
		if r.cutoff, err = time.Parse(time.RFC3339, at); err != nil {
			return usageError{err}
		}
	}
	for entry := range strings.FieldsSeq(opts["exclude-newer-package"]) {
		name, ok := strings.CutSuffix(entry, "=false")
		if !ok {
			return usageError{fmt.Errorf("invalid --exclude-newer-package %q: want NAME=false", entry)}
		}
		r.exempt = append(r.exempt, normalize(name))
	}
	text, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	lock := "lock-version = \"1.0\"\ncreated-by = \"uv\"\n"
	queue, done := strings.Split(string(text), "\n"), map[string]bool{}
	for len(queue) > 0 {
		line, _, _ := strings.Cut(queue[0], "#")
		line, marker, _ := strings.Cut(line, ";")
		queue = queue[1:]
		m := requirementPattern.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || done[normalize(m[1])] || strings.Contains(marker, "never") {
			continue
		}
		name, constraint := normalize(m[1]), m[2]
		if o, ok := r.overrides[name]; ok {
			if constraint = o; strings.Contains(o, "never") {
				continue
			}
		}
		if c := r.constraints[name]; c != "" {
			constraint = strings.TrimPrefix(constraint+","+c, ",")
		}
		done[name] = true
		entry, dependencies, err := r.choose(name, constraint)
		if err != nil {
			return err
		}
		lock += entry
		queue = append(queue, dependencies...)
	}
	return os.WriteFile(opts["output-file"], []byte(lock), 0o600)
}

// readRequirements reads requirements files, given as paths separated by white space. It
// returns the version constraints by normalized name.
func readRequirements(paths string) (map[string]string, error) {
	all := map[string]string{}
	for path := range strings.FieldsSeq(paths) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			if m := requirementPattern.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				all[normalize(m[1])] = m[2]
			}
		}
	}
	return all, nil
}

// indexFile is a file on a page of the package index.
type indexFile struct {
	Filename string            `json:"filename"`
	URL      string            `json:"url"`
	Size     int64             `json:"size"`
	Hashes   map[string]string `json:"hashes"`
	Yanked   bool              `json:"yanked"`
	Uploaded time.Time         `json:"upload-time"`
}

// noSolutionError is the error for requirements without a solution. It has the message of uv.
type noSolutionError struct{ reason, hint string }

func (e noSolutionError) Error() string {
	text := "No solution found when resolving dependencies\n  cause: Because " + e.reason + ", we can conclude that your requirements are unsatisfiable."
	if e.hint != "" {
		text += "\n\nhint: " + e.hint
	}
	return text
}

// choose selects the newest version of a package that satisfies the constraint. It returns its
// entry in the lockfile and its dependencies.
func (r *resolution) choose(name, constraint string) (entry string, requires []string, err error) {
	missing := noSolutionError{reason: fmt.Sprintf("%s was not found in the package registry and you require %s%s", name, name, constraint)}
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
			return "", nil, usageError{fmt.Errorf("Failed to fetch: %s\n  cause: %w", page, err)} //nolint:staticcheck // the message of uv
		}
		break
	}
	if len(files) == 0 {
		return "", nil, missing
	}
	version, incompatible := "", false
	for _, f := range files { // in the order of publication
		parts := strings.Split(f.Filename, "-")
		newer := !r.cutoff.IsZero() && !slices.Contains(r.exempt, name) && (f.Uploaded.IsZero() || f.Uploaded.After(r.cutoff))
		if f.Yanked || newer || !satisfies(parts[1], constraint) {
			continue
		}
		if !runsOn(f.Filename, r.platform) {
			incompatible = true
			continue
		}
		version = parts[1]
	}
	switch {
	case version == "" && incompatible:
		return "", nil, noSolutionError{reason: fmt.Sprintf("%s%s has no usable wheels and you require %s%s", name, constraint, name, constraint)}
	case version == "":
		return "", nil, noSolutionError{reason: fmt.Sprintf("there is no version of %s%s and you require %s%s", name, constraint, name, constraint)}
	}
	var wheels []string
	base, err := url.Parse(page)
	if err != nil {
		return "", nil, err
	}
	for _, f := range files {
		if strings.Split(f.Filename, "-")[1] != version || !runsOn(f.Filename, r.platform) {
			continue
		}
		wheelURL, err := base.Parse(f.URL)
		if err != nil {
			return "", nil, err
		}
		wheels = append(wheels, fmt.Sprintf("{ url = %q, size = %d, hashes = { sha256 = %q } }", wheelURL, f.Size, f.Hashes["sha256"]))
		if requires == nil {
			if requires, err = readRequires(wheelURL.String()); err != nil {
				return "", nil, err
			}
		}
	}
	return fmt.Sprintf("[[packages]]\nname = %q\nversion = %q\nwheels = [%s]\n", name, version, strings.Join(wheels, ", ")), requires, nil
}

var manylinux = regexp.MustCompile(`manylinux_2_([0-9]+)_`)

// runsOn reports whether a wheel runs on a platform such as x86_64-manylinux_2_28. It compares
// only the versions of glibc.
func runsOn(filename, platform string) bool {
	have, want := manylinux.FindStringSubmatch(filename), manylinux.FindStringSubmatch(platform+"_")
	if have == nil || want == nil {
		return true
	}
	h, _ := strconv.Atoi(have[1])
	w, _ := strconv.Atoi(want[1])
	return h <= w
}

// satisfies reports whether a version satisfies a constraint such as ">=1.0,<2". It compares
// versions as strings.
func satisfies(version, constraint string) bool {
	for term := range strings.SplitSeq(constraint, ",") {
		term = strings.TrimSpace(term)
		want := strings.TrimSpace(strings.TrimLeft(term, "<>=!"))
		version := version
		if !strings.Contains(want, "+") {
			version, _, _ = strings.Cut(version, "+") // ignore the local label
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

// statusError is a response with an error status.
type statusError struct {
	code   int
	status string
}

func (e statusError) Error() string { return e.status }

// readPage reads a page of the package index.
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

// readHTML parses a page in the format of PEP 503, which has neither sizes nor dates.
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

// readRequires returns the dependencies of the wheel at a URL.
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

// unzip returns the contents of the files in a zip archive, by name.
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

// venv implements `uv venv`.
func venv(args []string) error {
	opts, rest, err := parseFlags(args, []string{"no-config", "offline", "no-python-downloads", "quiet", "relocatable"}, []string{"python"}, nil, 1)
	if err != nil {
		return err
	}
	if info, err := os.Stat(opts["python"]); err != nil || info.Mode()&0o111 == 0 || !filepath.IsAbs(opts["python"]) {
		return usageError{fmt.Errorf("no interpreter at %s", opts["python"])}
	}
	bin := filepath.Join(rest[0], "bin")
	return errors.Join(
		os.MkdirAll(bin, 0o755), os.MkdirAll(filepath.Join(rest[0], "lib", "python3.12", "site-packages"), 0o755),
		os.Symlink(opts["python"], filepath.Join(bin, "python")), os.Symlink("python", filepath.Join(bin, "python3")),
		os.WriteFile(filepath.Join(rest[0], "pyvenv.cfg"), []byte("home = "+filepath.Dir(opts["python"])+"\nrelocatable = true\n"), 0o644),
	)
}

var separators = regexp.MustCompile(`[-_.]+`)

// normalize returns the normalized name of a package (PEP 503).
func normalize(name string) string { return strings.ToLower(separators.ReplaceAllString(name, "-")) }
