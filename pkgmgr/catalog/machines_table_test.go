package catalog

import (
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/machinestest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// outcome returns the variant that a recipe chooses on a machine, or "no: " and the reason
// why it cannot be installed.
func outcome(t *testing.T, typ, version string, m machinestest.Machine) string {
	t.Helper()
	r, ok := Builtin().Recipe(typ)
	if !ok {
		t.Fatalf("the built-in catalog has no recipe %s", typ)
	}
	choice, err := r.Choose(version, MachineOf(m.State()), "v1")
	if err != nil {
		return "no: " + err.Error()
	}
	if unmet := UnmetRequirements(r.Needs, m.State()); len(unmet) > 0 {
		return "no: " + strings.Join(unmet, "; ")
	}
	return choice.Source.Name
}

// TestCatalogByMachine checks the decision table of the built-in recipes. The table contains
// the variant of the newest version for each machine or, after "no: ", a part of the reason
// why no variant can be installed.
func TestCatalogByMachine(t *testing.T) {
	t.Parallel()
	const (
		noGPU    = "no: no NVIDIA GPU found"
		platform = "no: does not support "
		old      = " is older than "
		noNVCC   = "no: nvcc is not in PATH: kernels are compiled with the CUDA toolkit (install it"
	)
	versions := [5]string{"b11158", "0.32.15", "0.33.0", "0.5.23", "0.18.0"}
	types := [5]string{"llama-cpp", "ollama", "vllm", "sglang", "comfyui"}
	want := map[string][5]string{
		//                                        llama-cpp, ollama, vllm, sglang, comfyui
		"RTX 4090, driver 580, glibc 2.39": {"cuda-13", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"RTX 4090, driver 580, glibc 2.35": {"cuda-12", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"RTX 4090, driver 580, glibc 2.31": {"no: cpu: glibc 2.31" + old + "2.35", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"RTX 4090, no toolkit":             {"cuda-13", "cuda", "cuda-13", noNVCC, "cuda-13"},
		"A100, driver 535": {"vulkan", "linux", "no: cuda-13: driver 535.183" + old + "580", "no: cuda-13: driver 535.183" + old + "580",
			"cuda-12"},
		"A100, driver 570":             {"cuda-12", "cuda", "no: driver 570.133" + old + "580", "no: driver 570.133" + old + "580", "cuda-12"},
		"RTX 3090, driver 535":         {"cuda-12", "linux", "no: driver 535.183" + old, "no: driver 535.183" + old, "cuda-12"},
		"GTX 1080 Ti, driver 580":      {"cuda-12", "cuda", "no: GTX 1080 Ti has compute capability 6.1, want at least 7.5", "no: compute capability 6.1, want at least 7.5", "cuda-12"},
		"GTX 1080 Ti, driver 550":      {"vulkan", "linux", "no: compute capability 6.1, want at least 7.5", "no: compute capability 6.1, want at least 7.5", "cuda-12"},
		"GTX 980, driver 580":          {"cuda-12", "cuda", "no: compute capability 5.2, want at least 7.5", "no: compute capability 5.2, want at least 7.5", "cuda-12"},
		"V100, driver 580":             {"cuda-12", "cuda", "no: compute capability 7.0, want at least 7.5", "no: compute capability 7.0, want at least 7.5", "cuda-12"},
		"B200, driver 580":             {"cuda-13", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"RTX 5090, driver 580":         {"cuda-13", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"RTX 5090, driver 570":         {"cuda-12", "cuda", "no: driver 570.133" + old, "no: driver 570.133" + old, "cuda-12.8"},
		"2 × RTX 4090 and GTX 1080 Ti": {"cuda-13", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"GH200, driver 580":            {"cuda-13", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"GB10, driver 580":             {"cuda-13", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"Jetson Orin, glibc 2.35":      {"no: cuda-13: glibc 2.35" + old + "2.38", "linux", "no: driver 540.4" + old + "580", "no: driver 540.4" + old, "cpu"},
		"MI300X, ROCm 10":              {"rocm", "rocm", "no: rocm: ROCm 7 is missing (installed: 10.0.0)", noGPU, "rocm"},
		"MI300X, ROCm 7, Open MPI":     {"vulkan", "rocm", "rocm", noGPU, "rocm"},
		"MI300X, no ROCm":              {"vulkan", "rocm", "no: rocm: ROCm 7 is missing (install it: https://rocm.docs.amd.com), libmpi_cxx.so.40 is missing (Debian: libopenmpi3", noGPU, "rocm"},
		"Ryzen AI Max, no ROCm":        {"vulkan", "rocm", "no: ROCm 7 is missing", noGPU, "rocm"},
		"Arc B580":                     {"sycl", "linux", noGPU, noGPU, "xpu"},
		"Arc B580, no Level Zero":      {"vulkan", "linux", noGPU, noGPU, "cpu"},
		"CPU, amd64":                   {"cpu", "linux", noGPU, noGPU, "cpu"},
		"CPU, arm64":                   {"cpu", "linux", noGPU, noGPU, "cpu"},
		"Alpine": {platform + "linux/amd64 (musl)", platform + "linux/amd64 (musl)", platform + "linux/amd64 (musl)",
			platform + "linux/amd64 (musl)", platform + "linux/amd64 (musl)"},
		"Mac, arm64":                            {"metal", "darwin", platform + "darwin/arm64", platform + "darwin/arm64", "metal"},
		"Mac, amd64":                            {"cpu", "darwin", platform + "darwin/amd64", platform + "darwin/amd64", platform + "darwin/amd64"},
		"RX 7900, no Vulkan loader":             {"cpu", "rocm", "no: ROCm 7 is missing", noGPU, "rocm"},
		"RTX 4090, no OpenMP":                   {"no: cuda-13: libgomp.so.1 is missing (Debian: libgomp1, Fedora: libgomp)", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"RTX 4090, glibc and libraries unknown": {"cuda-13", "cuda", "cuda-13", "cuda-13", "cuda-13"},
		"NVIDIA, driver broken": {"cpu", "linux", "no: the driver of the NVIDIA GPU fails: version mismatch",
			"no: the driver of the NVIDIA GPU fails: version mismatch", "cpu"},
	}
	for _, m := range machinestest.Machines() {
		row, ok := want[m.Name]
		if !ok {
			t.Errorf("the table has no row for %s", m.Name)
			continue
		}
		delete(want, m.Name)
		for i, typ := range types {
			got := outcome(t, typ, versions[i], m)
			reason, unsupported := strings.CutPrefix(row[i], "no: ")
			if unsupported && (!strings.HasPrefix(got, "no: ") || !strings.Contains(got, reason)) || !unsupported && got != row[i] {
				t.Errorf("outcome(%s, %s) = %q, want %q", typ, m.Name, got, row[i])
			}
		}
		if got := outcome(t, "echo", "v1", m); got != "" {
			t.Errorf(`outcome(echo, %s) = %q, want ""`, m.Name, got)
		}
	}
	for name := range want {
		t.Errorf("the table has a row for the unknown machine %s", name)
	}
}

// TestCatalogOlderVersions checks the builds of earlier versions for machines whose driver is
// too old for the newest version.
func TestCatalogOlderVersions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ typ, version, machine, want string }{
		{"vllm", "0.26.0", "A100, driver 570", "cuda-12.9"},
		{"vllm", "0.26.1", "RTX 3090, driver 535", "cuda-12.9"},
		{"vllm", "0.26.0", "RTX 4090, driver 580, glibc 2.35", "cuda-13"},
		{"vllm", "0.19.1", "A100, driver 535", "cuda-12"},
		{"vllm", "0.27.0", "A100, driver 570", "no: worker vllm 0.27.0 cannot run on this machine: cuda-13: driver 570.133 is older than 580; rocm: no AMD GPU found"},
		{"vllm", "0.18.0", "MI300X, ROCm 7, Open MPI", "rocm"},
		{"vllm", "0.13.0", "MI300X, ROCm 7, Open MPI", "no: worker vllm 0.13.0 cannot run on this machine: cuda-12: no NVIDIA GPU found"},
		{"sglang", "0.5.19", "A100, driver 570", "cuda-12"},
		{"sglang", "0.5.20", "A100, driver 570", "no: worker sglang 0.5.20 cannot run on this machine: cuda-13: driver 570.133 is older than 580"},
	} {
		machines := machinestest.Machines()
		i := slices.IndexFunc(machines, func(m machinestest.Machine) bool { return m.Name == tt.machine })
		if got := outcome(t, tt.typ, tt.version, machines[i]); got != tt.want {
			t.Errorf("outcome(%s %s, %s) = %q, want %q", tt.typ, tt.version, tt.machine, got, tt.want)
		}
	}
}

// TestReasonNamesCards checks that the reason of a choice counts the usable cards and names
// the unusable ones.
func TestReasonNamesCards(t *testing.T) {
	t.Parallel()
	card := func(name, compute string) gpu.Device {
		return gpu.Device{Vendor: "nvidia", Name: name, Driver: "580.65", ComputeCapability: compute}
	}
	big, old := card("RTX 4090", "8.9"), card("GTX 1080 Ti", "6.1")
	lost := gpu.Device{Vendor: "nvidia", Error: "GPU is lost"}
	needs := &wire.DeviceRequirements{Vendor: "nvidia", Driver: "580", Compute: "7.5"}
	for _, tt := range []struct {
		needs   *wire.DeviceRequirements
		devices []gpu.Device
		ok      bool
		reason  string
	}{
		{needs, []gpu.Device{big}, true, "RTX 4090, driver 580.65"},
		{needs, []gpu.Device{big, old, big}, true, "2 × RTX 4090, driver 580.65; not used: GTX 1080 Ti (compute capability 6.1, want at least 7.5)"},
		{needs, []gpu.Device{big, card("RTX 3090", "8.6")}, true, "RTX 4090, RTX 3090, driver 580.65"},
		{needs, []gpu.Device{old, old, big, lost}, true,
			"RTX 4090, driver 580.65; not used: 2 × GTX 1080 Ti (compute capability 6.1, want at least 7.5), NVIDIA GPU (GPU is lost)"},
		{needs, []gpu.Device{old, old}, false, "GTX 1080 Ti has compute capability 6.1, want at least 7.5"},
		{needs, []gpu.Device{old, lost}, false, "GTX 1080 Ti has compute capability 6.1, want at least 7.5, the driver of the NVIDIA GPU fails: GPU is lost"},
		{needs, []gpu.Device{{Vendor: "amd"}}, false, "no NVIDIA GPU found"},
		{&wire.DeviceRequirements{Vendor: "any"}, []gpu.Device{big, {Vendor: "amd"}}, true, "RTX 4090, AMD GPU"},
	} {
		if ok, reason := checkDevices(tt.needs, 0, tt.devices); ok != tt.ok || reason != tt.reason {
			t.Errorf("checkDevices(%+v, %+v) = %t, %q, want %t, %q", tt.needs, tt.devices, ok, reason, tt.ok, tt.reason)
		}
	}
}
