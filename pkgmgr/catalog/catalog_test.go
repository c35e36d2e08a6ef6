package catalog

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

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/problemtest"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

const (
	sum   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	plain = "type: x\nsources:\n- {version: \"1\", file: ./x}\n"
)

func TestBuiltinCatalog(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("recipes")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f os.DirEntry) bool { return f.IsDir() })
	c := Builtin()
	if want := []string{"comfyui", "echo", "llama-cpp", "ollama", "sglang", "vllm"}; !slices.Equal(c.Types(), want) {
		t.Errorf("Types() = %v, want %v", c.Types(), want)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join("recipes", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseRecipe("catalog/"+f.Name(), data)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := c.Recipe(r.Type); !ok || !reflect.DeepEqual(got, r) {
			t.Errorf("Recipe(%q) returned ok = %t and differs from the parsed %s (-want +got):\n%s", r.Type, ok, f.Name(), cmp.Diff(r, got))
		}
		if r.Type+".yaml" != f.Name() || r.Description == "" || r.Ready.Path == "" {
			t.Errorf("ParseRecipe(%s) has type %q, description %q, ready path %q, want its type as the file name, a description and a path", f.Name(), r.Type, r.Description, r.Ready.Path)
		}
		nvidia := []gpu.Device{{Vendor: "nvidia", Driver: "580.65.06", ComputeCapability: "9.0"}}
		choice, err := r.Choose(map[bool]string{true: "v1.2.3", false: "1.2.3"}[r.Versions == nil], Machine{
			Platform: wire.Platform{OS: "linux", Arch: "arm64", Libc: "glibc", LibcVersion: "2.39"}, Devices: nvidia, DevicesKnown: true,
		}, "v1.2.3")
		if err != nil || len(choice.Source.Steps) == 0 {
			t.Errorf("%s: Choose() = %+v, %v, want a source with steps", r.Type, choice, err)
		}
	}
	for name, r := range ToolRecipes() {
		if r.Type != name || r.Versions == nil || len(r.Sources) < 4 {
			t.Errorf("ToolRecipes()[%q] = %+v, want type %s with versions and at least 4 sources", name, r, name)
		}
	}
	if len(ToolRecipes()) != 2 {
		t.Errorf("ToolRecipes() = %v, want 2 recipes", ToolRecipes())
	}
	if got := c.Nearest("vlm"); got != "vllm" {
		t.Errorf(`Nearest("vlm") = %q, want "vllm"`, got)
	}
	if got := c.Nearest("zzzzzz"); got != "" {
		t.Errorf(`Nearest("zzzzzz") = %q, want ""`, got)
	}
	if r, ok := c.Recipe("vlm"); ok {
		t.Errorf(`Recipe("vlm") = %+v, true, want false`, r)
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
		if c, err := Load(d); err != nil || c != Builtin() {
			t.Errorf("Load(%q) = %v, %v, want the built-in catalog", d, c, err)
		}
	}
	custom := write(t, dir, "mine.yaml", strings.Replace(plain, "type: x", "type: vllm", 1))
	write(t, dir, "x.yml", plain)
	write(t, dir, "README.txt", "not a recipe")
	write(t, dir, "._x.yaml", "\x00")
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := c.Recipe("vllm"); r.File != custom || len(c.Types()) != 7 {
		t.Errorf("Load() has recipe vllm from %s and types %v, want %s and 7 types", r.File, c.Types(), custom)
	}
	if r, _ := Builtin().Recipe("vllm"); r.File != "catalog/vllm.yaml" {
		t.Errorf("after Load(), the built-in recipe vllm is from %s, want catalog/vllm.yaml", r.File)
	}

	bad := write(t, dir, "bad.yaml", "type: b\nnotes: x\n")
	duplicate := write(t, dir, "y.yaml", plain)
	_, err = Load(dir)
	var e *operations.Error
	if !errors.As(err, &e) || e.Code != operations.CodeConfigInvalid || len(e.Problems) != 3 {
		t.Fatalf("Load() = %v, want a config_invalid error with 3 problems", err)
	}
	for i, want := range []string{bad + ":1:7", bad + ":2:1: unknown key \"notes\" (did you mean \"note\"?)", duplicate + ":1:7: duplicate recipe for worker type \"x\""} {
		if got := e.Problems[i].String(); !strings.HasPrefix(got, want) {
			t.Errorf("problem %d of Load() = %s, want prefix %s", i, got, want)
		}
	}
	if _, err := Load(custom); operations.CodeOf(err) != operations.CodeFailed {
		t.Errorf("Load(file) = %v, want code failed", err)
	}
}

func TestParseRecipe(t *testing.T) {
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
		Type: "x", Description: "An engine", API: APIOpenAI, Latest: "2", Note: "two\nlines", File: "dir/x.yaml", Pos: config.Pos{Line: 1, Column: 7},
		Sources: []Source{
			{Version: "1", OS: "linux", Arch: "amd64", Libc: "musl", Entry: "x-{os}/bin", Pos: config.Pos{Line: 8, Column: 3}, Steps: []Step{{
				Kind: wire.StepArchive, Origin: Origin{URL: "https://h/x-{version}.tgz?a=1", SHA256: sum, Size: 1536}, Format: wire.FormatTarGz, Pos: config.Pos{Line: 8, Column: 3},
			}}},
			{Version: "2", Entry: "x", Pos: config.Pos{Line: 9, Column: 3}, Steps: []Step{{Kind: wire.StepArchive, Origin: Origin{File: "x.zip"}, Format: wire.FormatZip, Pos: config.Pos{Line: 9, Column: 3}}}},
			{Version: "2", Entry: "a/b", Pos: config.Pos{Line: 10, Column: 3}, Steps: []Step{{Kind: wire.StepArchive, Origin: Origin{File: "x.bin"}, Format: wire.FormatTarZst, Pos: config.Pos{Line: 10, Column: 3}}}},
		},
		Start: Start{Args: []string{"serve", "{model}", `{"a": 1}`}, Env: map[string]string{"PORT": "{port}"}},
		Ready: Ready{Path: "/health", Status: 200, Stall: 90 * time.Second}, Grace: time.Minute,
		Memory: &Memory{Fixed: 1 << 30, Overhead: 2e9, Share: 0.875, Context: 4096},
		Needs:  Needs{GPU: "any", GPUMemory: 24e9, Disk: 7, OS: []string{"linux"}, Arch: []string{"arm64"}},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("ParseRecipe() differs (-want +got):\n%s", cmp.Diff(want, r))
	}
}

func TestParseRecipeProblems(t *testing.T) {
	t.Parallel()
	src := func(fields string) string { return "type: x\nsources:\n- {" + fields + "}\n" }
	for _, tt := range []struct{ text, want string }{
		{"", "1:1 the file has no type (for example vllm)"},
		{"type: X\nnote: n\n", `1:7 invalid worker type "X" (want lowercase letters`},
		{"type: x\n", "1:7 recipe has no sources (add sources, or a note with instructions)"},
		{"type: x\nnote: \"\\e[31m\"\n", "2:7 note contains control characters"},
		{src(""), "3:3 source has nothing to install from (want builtin, file, url or steps)"},
		{src("builtin: echo, file: x"), "3:3 source has both builtin and file"},
		{src("builtin: ecko"), `3:13 unknown built-in server "ecko" (did you mean "echo"?)`},
		{src("builtin: echo, version: \"1\""), "3:28 cannot combine version with builtin"},
		{src("file: x"), "3:3 source has no version"},
		{src("version: 1.2, file: x"), `3:13 version is a decimal number (want a string in quotes: "1.2")`},
		{src("version: latest, file: x"), `3:13 invalid version "latest"`},
		{src("version: v1, file: x, os: macos"), `3:30 unknown os "macos" (did you mean "darwin"?)`},
		{src("version: v1, file: x, arch: x86_64"), `3:32 unknown arch "x86_64" (did you mean "amd64"?)`},
		{src("version: v1, file: x, libc: uclibc"), `3:32 unknown libc "uclibc"`},
		{src("version: v1, file: 'x-{ver}'"), "3:23 unknown placeholder {ver} (known placeholders: {arch}, {os}, {version})"},
		{src("version: v1, file: x, sha256: abc"), `3:34 invalid sha256 "abc"`},
		{src("version: v1, file: x.tar.xz"), "3:23 cannot unpack .tar.xz"},
		{src("version: v1, file: x.zip"), "3:3 zip source has no entry"},
		{src("version: v1, file: x, entry: y"), "3:33 cannot combine entry with format plain"},
		{src("version: v1, file: x, format: tgz, entry: y"), `3:34 unknown format "tgz" (want plain, tar.gz, tar.zst or zip)`},
		{src("version: v1, file: x.zip, entry: ../y"), `3:37 invalid entry "../y"`},
		{src("version: v1, file: x.zip, entry: /y"), `3:37 invalid entry "/y"`},
		{src("version: v1, file: x.zip, entry: a/../y"), `3:37 invalid entry "a/../y"`},
		{src("version: v1, file: x, size: 2 parsecs"), `3:32 size: invalid size "2 parsecs" (for example 512MiB)`},
		{src("version: v1, file: x, size: -1"), "3:32 size: invalid size -1"},
		{src("version: v1, url: https://h/x"), "3:22 url requires sha256"},
		{src("version: v1, url: ftp://h/x, sha256: " + sum), `3:22 invalid url "ftp://h/x"`},
		{src("version: v1, url: 'https://u:hunter2@h/x', sha256: " + sum), "3:22 url contains a user name or password"},
		{plain + "latest: \"2\"\n", `4:9 no source has version "2" (want 1)`},
		{plain + "start: {args: [\"{prot}\"]}\n", "4:16 unknown placeholder {prot} (known placeholders: {context}, {context_total}, {cuda_home}, {device_count}, {devices}, {entry}, {host}, {model}, {model_file}, {model_path}, {model_sha256}, {parallel}, {payload}, {port}, {state})"},
		{plain + "start: {env: {A B: c}}\n", `4:20 invalid environment variable name "A B"`},
		{plain + "ready: {path: health}\n", `4:15 invalid ready.path "health"`},
		{plain + "ready: {path: /h, status: 9}\n", "4:27 invalid ready.status 9"},
		{plain + "ready: {path: /h, stall: 90}\n", "4:26 stall: invalid duration: an integer, want a string"},
		{plain + "grace: -1s\n", `4:8 grace: invalid duration "-1s": want more than 0`},
		{plain + "memory: {share: 0.9}\n", "4:17 share: invalid percentage 0.9"},
		{plain + "memory: {share: 101%}\n", "4:17 share: invalid percentage 101%"},
		{plain + "memory: {context: 0}\n", "4:19 invalid memory.context 0"},
		{plain + "needs: {gpu: nvida}\n", `4:14 unknown gpu "nvida" (did you mean "nvidia"?)`},
		{plain + "disk: 1\n", `4:1 unknown key "disk" (it belongs in needs)`},
	} {
		_, err := ParseRecipe("x.yaml", []byte(tt.text))
		if err == nil {
			t.Errorf("ParseRecipe(%q) returned no error, want %s", tt.text, tt.want)
			continue
		}
		got := problemtest.Lines(t, err)
		if len(got) != 1 || !strings.HasPrefix(got[0], tt.want) {
			t.Errorf("ParseRecipe(%q) reports\n%s\nwant %s", tt.text, strings.Join(got, "\n"), tt.want)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseRecipe(%q) = %v, which contains the password", tt.text, err)
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
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestChoose(t *testing.T) {
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
	glibc, musl := wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc"}, wire.Platform{OS: "linux", Arch: "amd64", Libc: "musl"}
	mac := wire.Platform{OS: "darwin", Arch: "arm64"}
	for _, tt := range []struct {
		version     string
		p           wire.Platform
		want        string
		origin, err string
	}{
		{"latest", musl, "2", "/abs/x", ""},
		{"", glibc, "2", filepath.Join(home, "x"), ""},
		{"1", glibc, "1", relative, ""},
		{"<2", glibc, "1", relative, ""},
		{"latest", mac, "2", "https://h/2/arm64.zip x-2", ""},
		{"v9", mac, "v9", "echo", ""},
		{"3", mac, "", "", `worker type x has no version "3"; known: 1, 2, v9`},
		{">9", mac, "", "", `worker type x has no version ">9"; known: 1, 2, v9`},
		{"1", mac, "", "", "worker type x 1 does not support darwin/arm64; supported platforms: linux/amd64"},
		{"2", wire.Platform{OS: "linux", Arch: "amd64"}, "", "", "worker type x 2 does not support linux/amd64; supported platforms: linux/amd64 (musl), linux/amd64 (glibc), darwin/any"},
	} {
		version, err := r.Version(tt.version, "v9")
		var got Choice
		if err == nil {
			got, err = r.Choose(version, Machine{Platform: tt.p}, "v9")
		}
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("Choose(%q) on %v = %v, want %s", tt.version, tt.p, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Choose(%q) on %v = %v, want version %s", tt.version, tt.p, err, tt.want)
			continue
		}
		step := got.Source.Steps[0]
		if origin := strings.TrimSpace(step.Builtin + step.Origin.File + step.Origin.URL + " " + got.Source.Entry); got.Version != tt.want || origin != tt.origin {
			t.Errorf("Choose(%q) on %v = version %s from %q, want %s from %q", tt.version, tt.p, got.Version, origin, tt.want, tt.origin)
		}
	}
	if r.Sources[0].Steps[0].Origin.File != "x-{version}-{os}-{arch}" {
		t.Errorf("after Choose(), the recipe has file %q, want it unchanged", r.Sources[0].Steps[0].Origin.File)
	}
}

// TestChooseByMachine checks the chosen source of the built-in recipes and its reason.
func TestChooseByMachine(t *testing.T) {
	t.Parallel()
	nvidia := func(driver, compute string) []gpu.Device {
		return []gpu.Device{{Vendor: "nvidia", Name: "RTX", Driver: driver, ComputeCapability: compute}}
	}
	old := wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.27"}
	linux := wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.36"}
	bullseye, jammy, noble := linux, linux, linux
	bullseye.LibcVersion, jammy.LibcVersion, noble.LibcVersion = "2.31", "2.35", "2.39"
	for _, tt := range []struct {
		name         string
		typ, version string
		p            wire.Platform
		devices      []gpu.Device
		want, reason string // if want is empty, reason is the error
	}{
		{"new NVIDIA driver", "llama-cpp", "b9", noble, nvidia("580.65.06", "9.0"), "cuda-13", "RTX, driver 580.65.06"},
		{"driver for CUDA 12", "llama-cpp", "b9", noble, nvidia("570.1", "9.0"), "cuda-12", "RTX, driver 570.1; not cuda-13: driver 570.1 is older than 580"},
		{"old NVIDIA driver", "llama-cpp", "b9", noble, nvidia("470.1", "8.9"), "vulkan", "RTX, driver 470.1; not cuda-13: driver 470.1 is older than 580, not cuda-12: driver 470.1 is older than 525, not rocm: no AMD GPU found, not sycl: no Intel GPU found"},
		{"driver too old for the card", "llama-cpp", "b9", noble, nvidia("535.1", "9.0"), "vulkan", "RTX, driver 535.1; not cuda-13: driver 535.1 is older than 580, not cuda-12: driver 535.1 is older than 570, which compute capability 9.0 requires, not rocm: no AMD GPU found, not sycl: no Intel GPU found"},
		{"AMD GPU", "llama-cpp", "b9", noble, []gpu.Device{{Vendor: "amd"}}, "rocm", "AMD GPU; not cuda-13: no NVIDIA GPU found, not cuda-12: no NVIDIA GPU found"},
		{"no GPU", "llama-cpp", "b9", noble, nil, "cpu", "not cuda-13: no NVIDIA GPU found, not cuda-12: no NVIDIA GPU found, not rocm: no AMD GPU found, not sycl: no Intel GPU found, not vulkan: no GPU found, not openvino: no Intel GPU found"},
		{"macOS", "llama-cpp", "b9", wire.Platform{OS: "darwin", Arch: "arm64"}, nil, "metal", ""},
		{"glibc too old for CUDA 13", "llama-cpp", "b9", jammy, nvidia("580.65.06", "9.0"), "cuda-12", "RTX, driver 580.65.06; not cuda-13: glibc 2.35 is older than 2.38"},
		{"glibc too old", "llama-cpp", "b9", bullseye, nil, "", "worker type llama-cpp b9 cannot run on this machine: cuda-13: glibc 2.31 is older than 2.38; cuda-12: glibc 2.31 is older than 2.35; rocm: glibc 2.31 is older than 2.39; sycl: glibc 2.31 is older than 2.39; vulkan: glibc 2.31 is older than 2.35; openvino: glibc 2.31 is older than 2.39; cpu: glibc 2.31 is older than 2.35"},
		{"glibc too old on arm64", "llama-cpp", "b9", wire.Platform{OS: "linux", Arch: "arm64", Libc: "glibc", LibcVersion: "2.35"}, nil, "", "worker type llama-cpp b9 cannot run on this machine: cuda-13: glibc 2.35 is older than 2.38; vulkan: glibc 2.35 is older than 2.39; cpu: glibc 2.35 is older than 2.39"},
		{"ollama with CUDA", "ollama", "0.30.0", linux, nvidia("580", "9.0"), "cuda", "RTX, driver 580"},
		{"ollama with an old driver", "ollama", "0.30.0", linux, nvidia("535", "9.0"), "linux", "not cuda: driver 535 is older than 550, not rocm: no AMD GPU found"},
		{"ollama with an AMD GPU", "ollama", "0.30.0", linux, []gpu.Device{{Vendor: "amd"}}, "rocm", "AMD GPU; not cuda: no NVIDIA GPU found"},
		{"ollama with old glibc", "ollama", "0.30.0", old, nil, "", "worker type ollama 0.30.0 cannot run on this machine: cuda: glibc 2.27 is older than 2.28; rocm: glibc 2.27 is older than 2.28; linux: glibc 2.27 is older than 2.28"},
		{"vllm with CUDA 13", "vllm", "0.24.0", linux, nvidia("580", "9.0"), "cuda-13", "RTX, driver 580"},
		{"vllm with CUDA 12.9", "vllm", "0.24.0", linux, nvidia("570", "9.0"), "cuda-12.9", "RTX, driver 570; not cuda-13: driver 570 is older than 580"},
		{"vllm 0.20 with old glibc", "vllm", "0.20.2", bullseye, nvidia("580", "9.0"), "", "worker type vllm 0.20.2 cannot run on this machine: cuda-13: glibc 2.31 is older than 2.35; cuda-12.9: glibc 2.31 is older than 2.35; rocm: glibc 2.31 is older than 2.35"},
		{"vllm 0.21 with older glibc", "vllm", "0.21.0", bullseye, nvidia("580", "9.0"), "cuda-13", "RTX, driver 580"},
		{"vllm 0.19 with CUDA 12", "vllm", "0.19.1", bullseye, nvidia("570", "9.0"), "cuda-12", "RTX, driver 570"},
		{"vllm with an old card", "vllm", "0.9", linux, nvidia("580", "6.1"), "", "worker type vllm 0.9 cannot run on this machine: cuda-12: RTX has compute capability 6.1, want at least 7.5"},
		{"vllm with old glibc", "vllm", "0.9", old, nvidia("580", "9.0"), "", "worker type vllm 0.9 cannot run on this machine: cuda-12: glibc 2.27 is older than 2.31"},
		{"vllm with a broken driver", "vllm", "0.9", linux, []gpu.Device{{Vendor: "nvidia", Error: "version mismatch"}}, "", "worker type vllm 0.9 cannot run on this machine: cuda-12: the driver of the NVIDIA GPU fails: version mismatch"},
		{"sglang with an old driver", "sglang", "0.5.20", linux, nvidia("570", "9.0"), "", "worker type sglang 0.5.20 cannot run on this machine: cuda-13: driver 570 is older than 580"},
		{"sglang with CUDA 12", "sglang", "0.5.19", linux, nvidia("570", "9.0"), "cuda-12", "RTX, driver 570"},
		{"comfyui without a GPU", "comfyui", "0.3.62", linux, nil, "cpu", "not cuda-13: no NVIDIA GPU found, not cuda-12: no NVIDIA GPU found, not cuda-12.8: no NVIDIA GPU found, not rocm: no AMD GPU found, not xpu: no Intel GPU found"},
	} {
		r, _ := Builtin().Recipe(tt.typ)
		got, err := r.Choose(tt.version, Machine{Platform: tt.p, Devices: tt.devices, DevicesKnown: true}, "")
		reason := got.Reason
		if err != nil {
			reason = err.Error()
		}
		if got.Source.Name != tt.want || reason != tt.reason {
			t.Errorf("%s: Choose(%q) on %v with %v = %q, %q, want %q, %q", tt.name, tt.version, tt.p, tt.devices, got.Source.Name, reason, tt.want, tt.reason)
		}
	}
	r, _ := Builtin().Recipe("vllm")
	if _, err := r.Choose("1", Machine{Platform: linux}, ""); !errors.Is(err, ErrDevicesUnknown) {
		t.Errorf("Choose() with unknown devices = %v, want ErrDevicesUnknown", err)
	}
}

func FuzzParseRecipe(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte("type: x\nnote: &n n\ndescription: *n\nneeds: {disk: 1.5TiB}\nstart: {env: {A: '{port}'}}\n"))
	f.Add([]byte(platformRecipe))
	f.Add([]byte("type: x\nversions: {github: a/b}\nsources:\n- {gpu: any, entry: x, steps: [archive: {asset: '*.zip', into: y}, python: {version: '3.1', packages: [z]}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecipe("x.yaml", data)
		if err != nil {
			if len(problemtest.Lines(t, err)) == 0 {
				t.Fatalf("ParseRecipe() = %v, want an error with problems", err)
			}
			return
		}
		version, err := r.Version(version.Latest, "v1")
		if r.Versions != nil {
			version, err = "1.0", nil
		}
		if err != nil {
			return
		}
		got, err := r.Choose(version, Machine{Platform: wire.Platform{OS: "linux", Arch: "amd64"}, DevicesKnown: true}, "v1")
		if err != nil {
			return
		}
		for _, s := range got.Source.Steps {
			if s.Into != "" && !filepath.IsLocal(s.Into) || s.Origin.File != "" && !filepath.IsAbs(s.Origin.File) ||
				s.Origin.URL != "" && len(s.Origin.SHA256) != 64 && r.Versions == nil {
				t.Errorf("Choose() returned the step %+v, want local paths and a checksum", s)
			}
		}
		if e := got.Source.Entry; e != "" && !filepath.IsLocal(e) {
			t.Errorf("Choose() returned the entry %q, want a local path", e)
		}
	})
}

const platformRecipe = "type: x\nsources:\n- {version: \"1\", url: 'http://h/{os}.zip', sha256: " + sum + ", entry: '{arch}/x'}\n- builtin: echo\n"

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
	version, err := r.Version(version.Latest, "v0.1.0")
	if err != nil {
		fmt.Println(err)
		return
	}
	choice, err := r.Choose(version, Machine{Platform: wire.Platform{OS: "linux", Arch: "arm64"}}, "v0.1.0")
	fmt.Println(choice.Version, choice.Source.Steps[0].Origin.URL, err)
	// Output: 1.2 https://example.com/mine-1.2-arm64.tar.gz <nil>
}
