package pkgmgr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

const (
	sum   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	plain = "type: x\nsources:\n- {version: \"1\", file: ./x}\n"
)

func TestBuiltinCatalog(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("catalog")
	if err != nil {
		t.Fatal(err)
	}
	c := BuiltinCatalog()
	if want := []string{"comfyui", "echo", "llama-cpp", "vllm"}; !slices.Equal(c.Types(), want) {
		t.Errorf("types %v, want %v", c.Types(), want)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join("catalog", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseRecipe("catalog/"+f.Name(), data)
		if err != nil {
			t.Fatal(err)
		}
		if have, ok := c.Recipe(r.Type); !ok || !reflect.DeepEqual(have, r) || r.Type+".yaml" != f.Name() || r.Description == "" || r.Ready.Path == "" {
			t.Errorf("%s: %+v", f.Name(), have)
		}
		_, err = r.Resolve(Latest, Platform{OS: "linux", Arch: "arm64"}, "v1.2.3")
		var none *NoSourcesError
		if noSources := errors.Is(err, ErrNoSources); noSources == (r.Type == "echo") || noSources && (!errors.As(err, &none) || !strings.Contains(err.Error(), "no built-in way to install "+r.Type)) {
			t.Errorf("%s resolves with %v", r.Type, err)
		}
	}
	if got := c.Nearest("vlm"); got != "vllm" {
		t.Errorf("nearest to vlm is %q", got)
	}
	if _, ok := c.Recipe("vlm"); ok || c.Nearest("zzzzzz") != "" {
		t.Error("an unknown type is known")
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadCatalog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{"", filepath.Join(dir, "absent")} {
		if c, err := LoadCatalog(d); err != nil || c != BuiltinCatalog() {
			t.Errorf("LoadCatalog(%q) = %v, %v", d, c, err)
		}
	}
	mine := write(t, dir, "mine.yaml", strings.Replace(plain, "type: x", "type: vllm", 1))
	write(t, dir, "x.yml", plain)
	write(t, dir, "README.txt", "not a recipe")
	write(t, dir, "._x.yaml", "\x00")
	c, err := LoadCatalog(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := c.Recipe("vllm"); r.File != mine || len(c.Types()) != 5 {
		t.Errorf("vllm is from %s, types are %v", r.File, c.Types())
	}
	if r, _ := BuiltinCatalog().Recipe("vllm"); r.File != "catalog/vllm.yaml" {
		t.Errorf("the built-in catalog has changed: %s", r.File)
	}

	bad := write(t, dir, "bad.yaml", "type: b\nnotes: x\n")
	twice := write(t, dir, "y.yaml", plain)
	_, err = LoadCatalog(dir)
	var e *operations.Error
	if !errors.As(err, &e) || e.Code != operations.CodeConfigInvalid || len(e.Problems) != 3 {
		t.Fatalf("%v", err)
	}
	for i, want := range []string{bad + ":1:7", bad + ":2:1: unknown key \"notes\" (did you mean \"note\"?)", twice + ":1:7: type \"x\" has a recipe already"} {
		if got := e.Problems[i].String(); !strings.HasPrefix(got, want) {
			t.Errorf("problem %d is %s, want %s", i, got, want)
		}
	}
	if _, err := LoadCatalog(mine); operations.CodeOf(err) != operations.CodeFailed {
		t.Errorf("a file for a folder: %v", err)
	}
}

func TestParseRecipeWhole(t *testing.T) {
	t.Parallel()
	r, err := ParseRecipe("dir/x.yaml", []byte(`type: x
description: An engine
latest: "2"
note: |
  two
  lines
sources:
- {version: "1", os: linux, arch: amd64, libc: musl, url: "https://h/x-{version}.tgz?a=1", sha256: `+strings.ToUpper(sum)+`, size: 1.5 KiB, entry: "x-{os}/bin"}
- {version: "2", file: x.zip, entry: x}
- {version: "2", file: x.bin, format: tar.zst, entry: a/b}
start: {args: [serve, "{model}", '{"a": 1}'], env: {PORT: "{port}"}}
ready: {path: /health, stall: 90s}
grace: 1m
memory: {fixed: 1GiB, overhead: 2GB, share: 87.5%, context: 4096}
needs: {gpu: any, gpu_memory: 24GB, disk: 7, os: [linux], arch: [arm64]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Recipe{
		Type: "x", Description: "An engine", Latest: "2", Note: "two\nlines", File: "dir/x.yaml", Pos: Pos{1, 7},
		Sources: []Source{
			{Version: "1", OS: "linux", Arch: "amd64", Libc: "musl", URL: "https://h/x-{version}.tgz?a=1", SHA256: sum, Size: 1536, Format: wire.FormatTarGz, Entry: "x-{os}/bin", Pos: Pos{8, 3}},
			{Version: "2", File: "x.zip", Format: wire.FormatZip, Entry: "x", Pos: Pos{9, 3}},
			{Version: "2", File: "x.bin", Format: wire.FormatTarZst, Entry: "a/b", Pos: Pos{10, 3}},
		},
		Start: Start{Args: []string{"serve", "{model}", `{"a": 1}`}, Env: map[string]string{"PORT": "{port}"}},
		Ready: Ready{Path: "/health", Status: 200, Stall: 90 * time.Second}, Grace: time.Minute,
		Memory: &Memory{Fixed: 1 << 30, Overhead: 2e9, Share: 0.875, Context: 4096},
		Needs:  Needs{GPU: "any", GPUMemory: 24e9, Disk: 7, OS: []string{"linux"}, Arch: []string{"arm64"}},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("recipe\n%+v\nwant\n%+v", r, want)
	}
}

func TestParseRecipeProblems(t *testing.T) {
	t.Parallel()
	src := func(fields string) string { return "type: x\nsources:\n- {" + fields + "}\n" }
	for _, tt := range []struct{ text, want string }{
		{"", "1:1 the file has no type (such as vllm)"},
		{"type: X\nnote: n\n", `1:7 "X" is not a valid worker type`},
		{"type: x\n", "1:7 the recipe has no sources (add sources, or a note that says what to do)"},
		{"type: x\nnote: \"\\e[31m\"\n", "2:7 note has control characters"},
		{src(""), "3:3 the source has nothing to install from (expected exactly one of builtin, file and url)"},
		{src("builtin: echo, file: x"), "3:3 the source has builtin and file"},
		{src("builtin: ecko"), `3:13 unknown built-in server "ecko" (did you mean "echo"?)`},
		{src("builtin: echo, version: \"1\""), "3:28 version does not go with builtin"},
		{src("file: x"), "3:3 the source has no version"},
		{src("version: 1.2, file: x"), `3:13 version is a decimal number (expected a string: put it in quotes, "1.2")`},
		{src("version: latest, file: x"), `3:13 "latest" is not a valid version`},
		{src("version: v1, file: x, os: macos"), `3:30 unknown os "macos" (did you mean "darwin"?)`},
		{src("version: v1, file: x, arch: x86_64"), `3:32 unknown arch "x86_64" (did you mean "amd64"?)`},
		{src("version: v1, file: x, libc: uclibc"), `3:32 unknown libc "uclibc"`},
		{src("version: v1, file: 'x-{ver}'"), "3:23 unknown placeholder {ver} (known are {arch}, {os}, {version})"},
		{src("version: v1, file: x, sha256: abc"), `3:34 "abc" is not a SHA-256`},
		{src("version: v1, file: x.tar.xz"), "3:23 cannot unpack .tar.xz"},
		{src("version: v1, file: x.zip"), "3:3 a source packed as zip has no entry"},
		{src("version: v1, file: x, entry: y"), "3:33 entry does not go with format plain"},
		{src("version: v1, file: x, format: tgz, entry: y"), `3:34 unknown format "tgz" (expected one of plain`},
		{src("version: v1, file: x.zip, entry: ../y"), `3:37 entry "../y" is not a clean relative path`},
		{src("version: v1, file: x.zip, entry: /y"), `3:37 entry "/y" is not a clean relative path`},
		{src("version: v1, file: x.zip, entry: a/../y"), `3:37 entry "a/../y" is not a clean relative path`},
		{src("version: v1, file: x, size: 2 parsecs"), `3:32 size: "2 parsecs" is not a size (such as 512MiB)`},
		{src("version: v1, file: x, size: -1"), "3:32 size: -1 is not a size"},
		{src("version: v1, url: https://h/x"), "3:22 a url needs its sha256"},
		{src("version: v1, url: ftp://h/x, sha256: " + sum), `3:22 "ftp://h/x" is not the address of a download`},
		{src("version: v1, url: 'https://u:hunter2@h/x', sha256: " + sum), "3:22 url has a user name or password"},
		{plain + "latest: \"2\"\n", `4:9 no source has the version "2" (expected one of 1)`},
		{plain + "start: {args: [\"{prot}\"]}\n", "4:16 unknown placeholder {prot} (known are {context}, {device_count}, {devices}, {entry}, {host}, {model}, {model_path}, {port})"},
		{plain + "start: {env: {A B: c}}\n", `4:20 "A B" is not the name of a variable`},
		{plain + "ready: {path: health}\n", `4:15 ready.path "health" does not begin with a slash`},
		{plain + "ready: {path: /h, status: 9}\n", "4:27 ready.status 9 is not an HTTP status"},
		{plain + "ready: {path: /h, stall: 90}\n", "4:26 stall: an integer is not a length of time"},
		{plain + "grace: -1s\n", `4:8 grace: "-1s" is not a length of time`},
		{plain + "memory: {share: 0.9}\n", "4:17 share: 0.9 is not a share"},
		{plain + "memory: {share: 101%}\n", "4:17 share: 101% is not a share"},
		{plain + "memory: {context: 0}\n", "4:19 memory.context is 0"},
		{plain + "needs: {gpu: nvida}\n", `4:14 unknown gpu "nvida" (did you mean "nvidia"?)`},
		{plain + "disk: 1\n", `4:1 unknown key "disk" (it belongs in needs)`},
	} {
		_, err := ParseRecipe("x.yaml", []byte(tt.text))
		if err == nil {
			t.Errorf("%q is taken", tt.text)
			continue
		}
		got := lines(t, err)
		if len(got) != 1 || !strings.HasPrefix(got[0], tt.want) {
			t.Errorf("%q:\n%s\nwant %s", tt.text, strings.Join(got, "\n"), tt.want)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a password is told: %v", err)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"0": 0, "7": 7, "7B": 7, "1K": 1000, "2KB": 2000, "2KiB": 2048, "1.5 GiB": 3 << 29, "1TB": 1e12, "3MiB": 3 << 20} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "GiB", "-1", "1e3", "1  GB", "1gb", "9999999999TiB", ".5GB", "NaN"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d", in, got)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	r, err := ParseRecipe("dir/x.yaml", []byte(`type: x
latest: "2"
sources:
- {version: "1", os: linux, arch: amd64, file: "x-{version}-{os}-{arch}"}
- {version: "2", os: linux, arch: amd64, libc: musl, file: /abs/x}
- {version: "2", os: linux, arch: amd64, libc: glibc, file: ~/x}
- {version: "2", os: darwin, url: "https://h/{version}/{arch}.zip", sha256: `+sum+`, entry: "x-{version}"}
- builtin: echo
`))
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip("no home directory:", err)
	}
	relative, err := filepath.Abs("dir/x-1-linux-amd64")
	if err != nil {
		t.Fatal(err)
	}
	glibc, musl := Platform{OS: "linux", Arch: "amd64", Libc: "glibc"}, Platform{OS: "linux", Arch: "amd64", Libc: "musl"}
	mac := Platform{OS: "darwin", Arch: "arm64"}
	for _, tt := range []struct {
		version  string
		p        Platform
		want     string
		got, err string
	}{
		{"latest", musl, "2", "/abs/x", ""},
		{"", glibc, "2", filepath.Join(home, "x"), ""},
		{"1", glibc, "1", relative, ""},
		{"latest", mac, "2", "https://h/2/arm64.zip x-2", ""},
		{"v9", mac, "v9", "echo", ""},
		{"3", mac, "", "", `worker x has no version "3"; known: 1, 2, v9`},
		{"1", mac, "", "", "worker x 1 does not run on darwin/arm64; it runs on linux/amd64"},
		{"2", Platform{OS: "linux", Arch: "amd64"}, "", "", "worker x 2 does not run on linux/amd64; it runs on linux/amd64 (musl), linux/amd64 (glibc), darwin/any"},
	} {
		got, err := r.Resolve(tt.version, tt.p, "v9")
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%s on %v: %v, want %s", tt.version, tt.p, err, tt.err)
			}
			continue
		}
		s := got.Source
		if where := strings.TrimSpace(s.Builtin + s.File + s.URL + " " + s.Entry); err != nil || got.Version != tt.want || s.Version != tt.want || where != tt.got {
			t.Errorf("%s on %v: %+v, %v", tt.version, tt.p, got, err)
		}
	}
	if r.Sources[0].File != "x-{version}-{os}-{arch}" {
		t.Error("Resolve changed the recipe")
	}
}

func FuzzParseRecipe(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte("type: x\nnote: &n n\ndescription: *n\nneeds: {disk: 1.5TiB}\nstart: {env: {A: '{port}'}}\n"))
	f.Add([]byte(src0))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecipe("x.yaml", data)
		if err != nil {
			if len(lines(t, err)) == 0 {
				t.Fatalf("an error without problems: %v", err)
			}
			return
		}
		got, err := r.Resolve(Latest, Platform{OS: "linux", Arch: "amd64"}, "v1")
		if err != nil {
			return
		}
		if s := got.Source; !filepath.IsLocal(s.Entry) && s.Entry != "" || s.File != "" && !filepath.IsAbs(s.File) || s.URL != "" && len(s.SHA256) != 64 {
			t.Errorf("resolved to %+v", s)
		}
	})
}

const src0 = "type: x\nsources:\n- {version: \"1\", url: 'http://h/{os}.zip', sha256: " + sum + ", entry: '{arch}/x'}\n- builtin: echo\n"

func ExampleParseRecipe() {
	r, err := ParseRecipe("workers/mine.yaml", []byte(`
type: mine
sources:
  - version: "1.2"
    os: linux
    url: https://example.com/mine-{version}-{arch}.tar.gz
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    entry: mine/server
start:
  args: [--port, "{port}"]
ready:
  path: /health
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	found, err := r.Resolve(Latest, Platform{OS: "linux", Arch: "arm64"}, "v0.1.0")
	fmt.Println(found.Version, found.Source.URL, err)
	// Output: 1.2 https://example.com/mine-1.2-arm64.tar.gz <nil>
}
