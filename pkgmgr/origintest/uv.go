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
	"strings"
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

// flags are those of a command: all that it takes, which of them must be there, and
// how many arguments.
func flags(args []string, bools, values []string, optional []string, rest int) (map[string]string, []string, error) {
	set := flag.NewFlagSet("uv", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	got := map[string]*string{}
	on := map[string]*bool{}
	for _, b := range bools {
		on[b] = set.Bool(b, false, "")
	}
	for _, v := range slices.Concat(values, optional) {
		got[v] = set.String(v, "", "")
	}
	if err := set.Parse(args); err != nil {
		return nil, nil, usage(err)
	}
	out := map[string]string{}
	for name, v := range got {
		if *v == "" && slices.Contains(values, name) {
			return nil, nil, usage(fmt.Errorf("--%s is missing", name))
		}
		out[name] = *v
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

// compile resolves requirements: the first file that fits, newest version first.
func compile(args []string, stdin io.Reader) error {
	opts, rest, err := flags(args, []string{"no-config", "no-progress", "quiet", "no-build"},
		[]string{"python-version", "python-platform", "output-file"}, []string{"torch-backend", "prerelease"}, 1)
	if err != nil {
		return err
	}
	index := os.Getenv("UV_DEFAULT_INDEX")
	if index == "" || rest[0] != "-" || os.Getenv("UV_CACHE_DIR") == "" {
		return usage(errors.New("the index, the cache or the - is missing"))
	}
	text, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	lock := "lock-version = \"1.0\"\ncreated-by = \"uv\"\n"
	todo, done := strings.Split(string(text), "\n"), map[string]bool{}
	for len(todo) > 0 {
		line, _, _ := strings.Cut(todo[0], "#")
		line, _, _ = strings.Cut(line, ";")
		todo = todo[1:]
		m := requirement.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || done[normal(m[1])] {
			continue
		}
		done[normal(m[1])] = true
		entry, more, err := choose(index, opts["torch-backend"], m[1], m[2])
		if err != nil {
			return err
		}
		lock += entry
		todo = append(todo, more...)
	}
	return os.WriteFile(opts["output-file"], []byte(lock), 0o600)
}

type indexFile struct {
	Filename string            `json:"filename"`
	URL      string            `json:"url"`
	Size     int64             `json:"size"`
	Hashes   map[string]string `json:"hashes"`
	Yanked   bool              `json:"yanked"`
}

// choose finds the newest version of a package that fits, and what it depends on.
func choose(index, torch, name, wish string) (entry string, requires []string, err error) {
	fail := fmt.Errorf("  × No solution found when resolving dependencies:\n  ╰─▶ Because %s%s was not found in the package registry, we can conclude that your requirements are unsatisfiable", name, wish)
	page := index + "/" + normal(name) + "/"
	var files []indexFile
	if torch != "" {
		own := index + "/" + torch + "/" + normal(name) + "/"
		if files, err = readPage(own); err == nil {
			page = own
		}
	}
	if len(files) == 0 {
		if files, err = readPage(page); err != nil {
			return "", nil, fail
		}
	}
	version := ""
	for _, f := range files { // as they were published
		parts := strings.Split(f.Filename, "-")
		if !f.Yanked && fits(parts[1], wish) {
			version = parts[1]
		}
	}
	if version == "" {
		return "", nil, fail
	}
	var wheels []string
	base, err := url.Parse(page)
	if err != nil {
		return "", nil, err
	}
	for _, f := range files {
		if strings.Split(f.Filename, "-")[1] != version {
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
	return fmt.Sprintf("[[packages]]\nname = %q\nversion = %q\nwheels = [%s]\n", normal(name), version, strings.Join(wheels, ", ")), requires, nil
}

func fits(version, wish string) bool {
	for term := range strings.SplitSeq(wish, ",") {
		term = strings.TrimSpace(term)
		want := strings.TrimSpace(strings.TrimLeft(term, "<>=!"))
		switch {
		case term == "":
		case strings.HasPrefix(term, "==") && version != want, strings.HasPrefix(term, ">=") && version < want, strings.HasPrefix(term, "<") && version >= want:
			return false
		}
	}
	return true
}

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
		return nil, errors.New(resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return nil, err
	}
	return page.Files, nil
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
		os.MkdirAll(bin, 0o755), os.MkdirAll(filepath.Join(rest[0], "lib", "python3.12", "site-packages"), 0o755), //nolint:gosec // as uv does
		os.Symlink(opts["python"], filepath.Join(bin, "python")), os.Symlink("python", filepath.Join(bin, "python3")),
		os.WriteFile(filepath.Join(rest[0], "pyvenv.cfg"), []byte("home = "+filepath.Dir(opts["python"])+"\nrelocatable = true\n"), 0o644), //nolint:gosec // as uv does
	)
}

var nameRuns = regexp.MustCompile(`[-_.]+`)

func normal(name string) string { return strings.ToLower(nameRuns.ReplaceAllString(name, "-")) }
