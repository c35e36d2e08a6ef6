// Package machinestest provides machines for decision tables in tests.
package machinestest

import (
	"slices"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Machine is a machine in the decision tables of the built-in recipes.
type Machine struct {
	Name     string
	state    wire.State
	commands []string // programs in its PATH, from [wire.ProbedCommands]
}

// State returns a copy of the state that the machine reports.
func (m Machine) State() *wire.State {
	s := m.state
	s.Commands = m.commands
	return &s
}

// Machines returns machines with each kind and generation of GPU that builds distinguish, with
// old and new drivers and C libraries, and with missing libraries or tools. All properties of
// a machine are known unless its name states otherwise.
func Machines() []Machine {
	base := []string{"libcrypto.so.3", "libgomp.so.1", "libssl.so.3"} // OpenSSL 3, OpenMP
	vulkan := append(slices.Clip(base), "libvulkan.so.1")
	intel := append(slices.Clip(vulkan), "libOpenCL.so.1", "libze_loader.so.1")
	tools := []string{"cc", "nvcc"}
	linux := func(arch, glibc string, libraries []string, devices ...gpu.Device) wire.State {
		return wire.State{
			Platform: wire.Platform{OS: "linux", Arch: arch, Libc: "glibc", LibcVersion: glibc},
			Devices:  devices, DevicesKnown: true, Libraries: libraries,
		}
	}
	nvidia := func(name, driver, compute string) gpu.Device {
		return gpu.Device{Vendor: "nvidia", Name: name, Driver: driver, ComputeCapability: compute, MemoryTotal: 24 << 30}
	}
	amd := func(name string) gpu.Device { return gpu.Device{Vendor: "amd", Name: name, MemoryTotal: 192 << 30} }
	rocm := func(m wire.State, version string) wire.State { m.ROCm = version; return m }
	mac := func(arch string, devices ...gpu.Device) wire.State {
		return wire.State{Platform: wire.Platform{OS: "darwin", Arch: arch}, Devices: devices, DevicesKnown: true}
	}
	alpine := linux("amd64", "1.2.5", vulkan)
	alpine.Libc = "musl"

	rtx4090, gtx1080 := nvidia("RTX 4090", "580.65", "8.9"), nvidia("GTX 1080 Ti", "580.65", "6.1")
	openMPI := append(slices.Clip(vulkan), "libmpi_cxx.so.40")
	return []Machine{
		{"RTX 4090, driver 580, glibc 2.39", linux("amd64", "2.39", vulkan, rtx4090), tools},
		{"RTX 4090, driver 580, glibc 2.35", linux("amd64", "2.35", vulkan, rtx4090), tools},
		{"RTX 4090, driver 580, glibc 2.31", linux("amd64", "2.31", vulkan, rtx4090), tools},
		{"RTX 4090, no toolkit", linux("amd64", "2.39", vulkan, rtx4090), []string{"cc"}},
		{"A100, driver 535", linux("amd64", "2.35", vulkan, nvidia("A100", "535.183", "8.0")), tools},
		{"A100, driver 570", linux("amd64", "2.35", vulkan, nvidia("A100", "570.133", "8.0")), tools},
		{"RTX 3090, driver 535", linux("amd64", "2.35", vulkan, nvidia("RTX 3090", "535.183", "8.6")), tools},
		{"GTX 1080 Ti, driver 580", linux("amd64", "2.39", vulkan, gtx1080), tools},
		{"GTX 1080 Ti, driver 550", linux("amd64", "2.39", vulkan, nvidia("GTX 1080 Ti", "550.90", "6.1")), tools},
		{"GTX 980, driver 580", linux("amd64", "2.39", vulkan, nvidia("GTX 980", "580.65", "5.2")), tools},
		{"V100, driver 580", linux("amd64", "2.35", vulkan, nvidia("V100", "580.65", "7.0")), tools},
		{"B200, driver 580", linux("amd64", "2.39", vulkan, nvidia("B200", "580.95", "10.0")), tools},
		{"RTX 5090, driver 580", linux("amd64", "2.39", vulkan, nvidia("RTX 5090", "580.95", "12.0")), tools},
		{"RTX 5090, driver 570", linux("amd64", "2.39", vulkan, nvidia("RTX 5090", "570.133", "12.0")), tools},
		{"2 × RTX 4090 and GTX 1080 Ti", linux("amd64", "2.39", vulkan, rtx4090, gtx1080, rtx4090), tools},
		{"GH200, driver 580", linux("arm64", "2.39", vulkan, nvidia("GH200", "580.65", "9.0")), tools},
		{"GB10, driver 580", linux("arm64", "2.39", vulkan, nvidia("GB10", "580.95", "12.1")), tools},
		{"Jetson Orin, glibc 2.35", linux("arm64", "2.35", vulkan, nvidia("Orin", "540.4", "8.7")), tools},
		{"MI300X, ROCm 10", rocm(linux("amd64", "2.39", vulkan, amd("MI300X")), "10.0.0"), tools},
		{"MI300X, ROCm 7, Open MPI", rocm(linux("amd64", "2.39", openMPI, amd("MI300X")), "7.2.1"), tools},
		{"MI300X, no ROCm", linux("amd64", "2.39", vulkan, amd("MI300X")), tools},
		{"Ryzen AI Max, no ROCm", linux("amd64", "2.41", vulkan, amd("Radeon 8060S")), tools},
		{"Arc B580", linux("amd64", "2.39", intel, gpu.Device{Vendor: "intel", Name: "Arc B580", Driver: "xe"}), tools},
		{"Arc B580, no Level Zero", linux("amd64", "2.39", vulkan, gpu.Device{Vendor: "intel", Name: "Arc B580", Driver: "xe"}), tools},
		{"CPU, amd64", linux("amd64", "2.36", base), []string{"cc"}},
		{"CPU, arm64", linux("arm64", "2.39", base), []string{"cc"}},
		{"Alpine", alpine, tools},
		{"Mac, arm64", mac("arm64", gpu.Device{Vendor: "apple", Name: "Apple M4"}), []string{"cc"}},
		{"Mac, amd64", mac("amd64"), []string{"cc"}},
		{"RX 7900, no Vulkan loader", linux("amd64", "2.39", base, amd("RX 7900")), tools},
		{"RTX 4090, no OpenMP", linux("amd64", "2.39", []string{"libcrypto.so.3", "libssl.so.3"}, rtx4090), tools},
		{"RTX 4090, glibc and libraries unknown", linux("amd64", "", nil, rtx4090), nil},
		{"NVIDIA, driver broken", linux("amd64", "2.39", vulkan, gpu.Device{Vendor: "nvidia", Error: "version mismatch"}), tools},
	}
}
