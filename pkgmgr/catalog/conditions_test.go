package catalog

import (
	"reflect"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/problemtest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestParseSourceConditions(t *testing.T) {
	t.Parallel()
	r, err := ParseRecipe("x.yaml", []byte(`type: x
versions: {package: x}
sources:
- name: cuda
  gpu: nvidia
  driver: "525"
  compute: "5.0"
  compute_max: "12.0"
  native: ["8.6", "8.9"]
  ptx_driver: "570"
  libraries: [libgomp.so.1, libvulkan.so.1]
  steps:
  - python: {version: "3.12", packages: ["x=={version}"], indexes: [{url: "https://h/{version}/cu129", packages: [x, torch]}]}
  entry: venv/bin/x
- {name: rocm, gpu: amd, rocm: "7.2", entry: venv/bin/x, steps: [python: {version: "3.12", packages: [x]}]}
- {name: cpu, gpu: none, entry: venv/bin/x, steps: [python: {version: "3.12", packages: [x]}]}
- {name: plain, entry: venv/bin/x, steps: [python: {version: "3.12", packages: [x]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []*wire.DeviceRequirements{
		{Vendor: "nvidia", Driver: "525", Compute: "5.0", ComputeMax: "12.0", Native: []string{"8.6", "8.9"}, PTXDriver: "570"},
		{Vendor: "amd"}, {Vendor: wire.NoGPU}, nil,
	} {
		if got := r.Launch(&r.Sources[i]).Devices; !reflect.DeepEqual(got, want) {
			t.Errorf("Launch(%s).Devices = %+v, want %+v", r.Sources[i].Name, got, want)
		}
	}
	if got, want := r.Sources[0].Libraries, []string{"libgomp.so.1", "libvulkan.so.1"}; !reflect.DeepEqual(got, want) || r.Sources[1].ROCm != "7.2" {
		t.Errorf("ParseRecipe() has libraries %q, ROCm %q, want %q, 7.2", got, r.Sources[1].ROCm, want)
	}
	linux := wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.39"}
	choice, err := r.Choose("1.5", Machine{Platform: linux, DevicesKnown: true, Devices: []gpu.Device{{Vendor: "nvidia", Driver: "570", ComputeCapability: "8.0"}}}, "")
	want := []Index{{URL: "https://h/1.5/cu129", Packages: []string{"x", "torch"}}}
	if err != nil || !reflect.DeepEqual(choice.Source.Steps[0].Python.Indexes, want) {
		t.Errorf("Choose() = %+v, %v, want indexes %+v", choice, err, want)
	}
	if got := r.Sources[0].Steps[0].Python.Indexes[0].URL; got != "https://h/{version}/cu129" {
		t.Errorf("after Choose(), the recipe has index %s, want it unchanged", got)
	}
}

func TestParseSourceConditionsProblems(t *testing.T) {
	t.Parallel()
	src := func(fields string) string {
		return "type: x\nsources:\n- {version: \"1\", file: x, " + fields + "}\n"
	}
	index := func(fields string) string {
		return "type: x\nversions: {package: x}\nsources:\n- entry: v\n  steps:\n  - python: {version: \"3.12\", packages: [x], indexes: [{" + fields + "}]}\n"
	}
	for _, tt := range []struct{ text, want string }{
		{src(`gpu: cpu`), `3:32 unknown gpu "cpu"`},
		{src(`driver: "525"`), "3:3 source has driver or compute without gpu (for example gpu: nvidia)"},
		{src(`gpu: none, compute: "7.5"`), "3:3 source has driver or compute without gpu"},
		{src(`compute_max: "9.0"`), "3:40 source has compute_max without gpu (for example gpu: nvidia)"},
		{src(`gpu: nvidia, compute: "7.5", compute_max: "7.0"`), "3:69 compute_max 7.0 is lower than compute 7.5"},
		{src(`gpu: nvidia, native: ["8.6"]`), `3:48 source has native without ptx_driver (for example ptx_driver: "570")`},
		{src(`gpu: nvidia, ptx_driver: "570"`), `3:52 source has ptx_driver without native (for example native: ["8.6", "8.9"])`},
		{src(`gpu: nvidia, native: [sm_86], ptx_driver: "570"`), `3:49 invalid compute capability "sm_86" (want numbers separated by dots)`},
		{src(`gpu: nvidia, native: [8.6], ptx_driver: "570"`), `3:49 native 1 is a decimal number (want a string in quotes: "8.6")`},
		{src(`gpu: nvidia, driver: "580", native: ["8.6"], ptx_driver: "570"`), "3:84 ptx_driver 570 is older than driver 580"},
		{src(`gpu: nvidia, rocm: "10"`), "3:46 cannot combine rocm with gpu: nvidia (use gpu: amd)"},
		{src(`rocm: "10"`), "3:33 source has rocm without gpu"},
		{src(`architectures: [gfx942]`), "3:42 source has architectures without gpu: amd (use gpu: amd)"},
		{src(`gpu: nvidia, architectures: [gfx942]`), "3:55 source has architectures without gpu: amd (use gpu: amd)"},
		{src(`gpu: amd, architectures: [gfx942, MI300X]`), `3:61 invalid architecture "MI300X" (want an AMD architecture such as gfx942 or gfx1100)`},
		{src(`gpu: amd, rocm: ten`), `3:43 invalid rocm "ten"`},
		{src(`libraries: [libvulkan.so]`), `3:39 unknown library "libvulkan.so" (did you mean "libvulkan.so.1"?)`},
		{index(`url: "ftp://h/x", packages: [x]`), `6:62 invalid index "ftp://h/x" (want https://host/path)`},
		{index(`url: "https://u:hunter2@h/x", packages: [x]`), "6:62 index contains a user name or password (remove the part before the @)"},
		{index(`url: "https://h/{ver}", packages: [x]`), "6:62 unknown placeholder {ver}"},
		{index(`url: "https://h/x", packages: ["x==1"]`), `6:88 invalid package name "x==1"`},
		{index(`url: "https://h/x"`), "6:56 indexes 1 has no packages (for example [vllm])"},
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

// TestChooseByArchitecture checks that Choose selects a source by the architecture of an AMD
// GPU, and that Launch returns the requirement.
func TestChooseByArchitecture(t *testing.T) {
	t.Parallel()
	r, err := ParseRecipe("x.yaml", []byte(`type: x
sources:
- {name: instinct, version: "1", file: a, gpu: amd, architectures: [gfx90a, gfx942]}
- {name: radeon, version: "1", file: b, gpu: amd, architectures: [gfx1100, gfx1201]}
- {name: cpu, version: "1", file: c, gpu: none}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Launch(&r.Sources[0]).Devices, (&wire.DeviceRequirements{Vendor: "amd", Architectures: []string{"gfx90a", "gfx942"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("Launch().Devices = %+v, want %+v", got, want)
	}
	card := func(architecture string) gpu.Device {
		return gpu.Device{Vendor: gpu.AMD, Name: "card", Architecture: architecture}
	}
	for _, tt := range []struct {
		name           string
		devices        []gpu.Device
		source, reason string
	}{
		{"first source", []gpu.Device{card("gfx942")}, "instinct", "card"},
		{"second source", []gpu.Device{card("gfx1201")}, "radeon", "card; not instinct: card has architecture gfx1201, want gfx90a or gfx942"},
		{"two architectures", []gpu.Device{card("gfx942"), card("gfx1100")}, "instinct", "card; not used: card (architecture gfx1100, want gfx90a or gfx942)"},
		{"unknown architecture", []gpu.Device{card("")}, "instinct", "card"},
		{"unlisted architecture", []gpu.Device{card("gfx900")}, "cpu", "not instinct: card has architecture gfx900, want gfx90a or gfx942, not radeon: card has architecture gfx900, want gfx1100 or gfx1201"},
	} {
		c, err := r.Choose("1", Machine{DevicesKnown: true, Devices: tt.devices}, "")
		if err != nil || c.Source.Name != tt.source || c.Reason != tt.reason {
			t.Errorf("%s: Choose(%+v) = %s, %q, %v, want %s, %q", tt.name, tt.devices, c.Source.Name, c.Reason, err, tt.source, tt.reason)
		}
	}
}

// TestLibrariesHaveHints checks that every library that can be missing has a hint.
func TestLibrariesHaveHints(t *testing.T) {
	t.Parallel()
	for _, name := range wire.ProbedLibraries {
		if installHints[name] == "" {
			t.Errorf("installHints[%q] is empty, want a hint", name)
		}
	}
}
