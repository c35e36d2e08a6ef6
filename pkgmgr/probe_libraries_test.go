package pkgmgr_test

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestProbeLibraries checks that the shell script finds the libraries, ROCm and the CUDA
// toolkit.
func TestProbeLibraries(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("libraries are read on Linux only")
	}
	inEveryShell(t, func(t *testing.T, shell []string) {
		for _, tt := range []struct {
			name      string
			files     map[string]string
			libraries []string
			rocm      string
			commands  []string
		}{
			{"none", nil, []string{}, "", []string{}},
			{"Debian", map[string]string{"/usr/lib/x86_64-linux-gnu/libgomp.so.1": "", "/lib/x86_64-linux-gnu/libssl.so.3": "", "/usr/lib/libvulkan.so": ""},
				[]string{"libgomp.so.1", "libssl.so.3"}, "", []string{}},
			{"Fedora", map[string]string{"/usr/lib64/libvulkan.so.1": "", "/opt/rocm/.info/version": "7.2.1-43\n"}, []string{"libvulkan.so.1"}, "7.2.1", []string{}},
			{"configured", map[string]string{"/etc/ld.so.conf.d/a.conf": "# comment\n/opt/vk/lib", "/opt/vk/lib/libvulkan.so.1": "", "/opt/rocm-10.0.0/x": "", "/opt/rocm-7.2/x": ""},
				[]string{"libvulkan.so.1"}, "10.0.0", []string{}},
			{"toolkit", map[string]string{"/usr/local/cuda/bin/nvcc": ""}, []string{}, "", []string{"nvcc"}},
		} {
			h := newShellHost(t, "home", shell...)
			for name, text := range tt.files {
				h.write(t, 0o755, text, h.root, name)
			}
			s := h.mustRead(t, pkgmgr.ReadOptions{})
			if !reflect.DeepEqual(s.Libraries, tt.libraries) || s.ROCm != tt.rocm || !slices.Equal(s.Commands, tt.commands) {
				t.Errorf("%s: the probe returned libraries %#v, ROCm %q, commands %q, want %#v, %q, %q", tt.name, s.Libraries, s.ROCm, s.Commands, tt.libraries, tt.rocm, tt.commands)
			}
		}
	})
}

// TestProbeAPU checks that the memory of an APU is the sum of its carve-out and its GTT, and
// that a card has only its own memory.
func TestProbeAPU(t *testing.T) {
	t.Parallel()
	inEveryShell(t, func(t *testing.T, shell []string) {
		h := newShellHost(t, "home", shell...)
		var want wire.Devices
		for i, tt := range []struct {
			id             string
			vram, gtt, sum uint64 // GiB
		}{{"0x1586", 1, 120, 121}, {"0x98e4", 1, 7, 8}, {"0x744c", 24, 64, 24}} {
			bus := fmt.Sprintf("0000:0%d:00.0", i+1)
			for name, text := range map[string]string{
				"class": "0x038000", "vendor": "0x1002", "device": tt.id,
				"mem_info_vram_total": fmt.Sprint(tt.vram << 30), "mem_info_gtt_total": fmt.Sprint(tt.gtt << 30),
			} {
				h.write(t, 0o644, text+"\n", h.pci, "devices", bus, name)
			}
			h.write(t, 0o644, "", h.pci, "drivers", "amdgpu", bus)
			want = append(want, gpu.Device{Index: i, Vendor: "amd", Name: "AMD GPU " + tt.id, PCIBusID: bus, MemoryTotal: tt.sum << 30, Unified: tt.sum > tt.vram})
		}
		if s := h.mustRead(t, pkgmgr.ReadOptions{Devices: true}); !reflect.DeepEqual(s.Devices, want) {
			t.Errorf("the devices of Read() differ (-want +got):\n%s", cmp.Diff(want, s.Devices))
		}
	})
}
