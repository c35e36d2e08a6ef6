package pkgmgr_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestValidateReportsMissingSoftware checks that Validate reports missing libraries and a
// missing ROCm with install hints: as an error if no variant can run, and as a warning if
// only the CPU variant can.
func TestValidateReportsMissingSoftware(t *testing.T) {
	t.Parallel()
	base := []string{"libcrypto.so.3", "libgomp.so.1", "libssl.so.3"}
	amd := []gpu.Device{{Vendor: "amd", Name: "RX 7900"}}
	for _, tt := range []struct {
		name      string
		worker    string
		libraries []string
		devices   []gpu.Device
		errors    string // part of the only error; empty for none
		warnings  string
	}{
		{"all libraries", "llama-cpp", append(slices.Clip(base), "libvulkan.so.1"), amd, "", ""},
		{"unknown libraries", "llama-cpp", nil, amd, "", ""},
		{"no Vulkan loader", "llama-cpp", base, amd, "",
			"worker type 'llama-cpp' will run on the CPU: not cuda-13: no NVIDIA GPU found, not cuda-12: no NVIDIA GPU found, " +
				"not rocm: ROCm 10 is missing (install it: https://rocm.docs.amd.com), not sycl: no Intel GPU found, " +
				"not vulkan: libvulkan.so.1 is missing (Debian: libvulkan1, Fedora: vulkan-loader)"},
		{"no GPU", "llama-cpp", base, nil, "", ""},
		{"no OpenMP", "llama-cpp", []string{"libssl.so.3", "libcrypto.so.3"}, amd, "cpu: libgomp.so.1 is missing (Debian: libgomp1, Fedora: libgomp)", ""},
		{"no ROCm", "vllm", base, amd, "rocm: ROCm 7 is missing", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := config.Hive{Alias: "a", Hostname: "a.example", HivePort: 8600, Workers: []config.Worker{{Type: tt.worker, Version: version.Latest}}}
			m := &fakehost.Machine{Initial: wire.State{
				Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.39"},
				Devices:  tt.devices, DevicesKnown: true, Libraries: tt.libraries,
			}}
			f := openFleet(t, &config.Config{Path: "hives.conf", Hives: []config.Hive{h}}, fakehost.Machines{"a": m}, nil)
			f.Read(t.Context(), pkgmgr.ReadOptions{Devices: true})
			report := f.Validate(t.Context())
			var errs, warnings []string
			for _, e := range report.Errors {
				errs = append(errs, e.Error)
			}
			for _, w := range report.Warnings {
				warnings = append(warnings, w.Warning)
			}
			for _, k := range []struct {
				kind, want string
				got        []string
			}{{"errors", tt.errors, errs}, {"warnings", tt.warnings, warnings}} {
				switch {
				case k.want == "" && len(k.got) > 0, k.want != "" && (len(k.got) != 1 || !strings.Contains(k.got[0], k.want)):
					t.Errorf("Validate() returned %s %q, want %q", k.kind, k.got, k.want)
				}
			}
		})
	}
}
