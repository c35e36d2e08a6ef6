package placement

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Variables that select the devices of engines and their runtimes.
//
// NVIDIA: https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables.
// Without CUDA_DEVICE_ORDER, index 0 is the fastest device, not the first in PCI order.
//
// AMD: https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html. This page
// recommends ROCR_VISIBLE_DEVICES, one layer below HIP, but Ray, which vLLM uses,
// does not start if only that variable is set. If both variables are set, devices are
// filtered twice, because ROCR_VISIBLE_DEVICES renumbers them. HIP also reads
// CUDA_VISIBLE_DEVICES, but vLLM fails if this variable differs from
// HIP_VISIBLE_DEVICES. Therefore only HIP_VISIBLE_DEVICES is set.
//
// Intel: https://intel.github.io/llvm/EnvironmentVariables.html, ONEAPI_DEVICE_SELECTOR.
//
// Vulkan ignores all of these variables. Engines built on ggml read
// GGML_VK_VISIBLE_DEVICES, with indices that count the devices of all vendors
// together: https://docs.ollama.com/gpu. The Vulkan loader sorts devices by PCI
// address, discrete devices first.
const (
	cudaOrder   = "CUDA_DEVICE_ORDER"
	cudaVisible = "CUDA_VISIBLE_DEVICES"
	hipVisible  = "HIP_VISIBLE_DEVICES"
	oneAPI      = "ONEAPI_DEVICE_SELECTOR"
	ggmlVulkan  = "GGML_VK_VISIBLE_DEVICES"
)

// noDevice is an invalid index. It ends the list of visible devices, so the list is
// empty. CUDA also accepts an empty value, but HIP and others treat it as not set.
const noDevice = "-1"

// visibleEnv returns the variables that hide all devices except the chosen ones from an
// engine. The chosen devices have the same vendor. present are all devices of the machine.
func visibleEnv(chosen, present []Device) map[string]string {
	env := map[string]string{}
	if len(chosen) == 0 {
		return env
	}
	values := make([]int, len(chosen))
	for i, d := range chosen {
		values[i] = d.Index
	}
	switch chosen[0].Vendor {
	case "nvidia":
		env[cudaOrder] = "PCI_BUS_ID"
		env[cudaVisible] = joinIndices(values)
	case "amd":
		env[hipVisible] = joinIndices(values)
	case "intel":
		env[oneAPI] = "level_zero:" + joinIndices(values)
	}
	if vulkan := vulkanIndices(chosen, present); vulkan != nil {
		env[ggmlVulkan] = joinIndices(vulkan)
	}
	return env
}

// vulkanIndices returns the indices of the chosen devices in the order of Vulkan, which
// counts the devices of all vendors together. It returns nil if Vulkan is not available
// or the order is not known, for example because a device is broken: Vulkan may or may not
// count it.
func vulkanIndices(chosen, present []Device) []int {
	if slices.ContainsFunc(present, func(d Device) bool { return d.Vendor == "apple" || d.PCIBusID == "" || !d.works() }) {
		return nil
	}
	order := slices.Clone(present)
	slices.SortStableFunc(order, func(a, b Device) int { return cmp.Compare(a.PCIBusID, b.PCIBusID) })
	var values []int
	for _, c := range chosen {
		values = append(values, slices.IndexFunc(order, func(d Device) bool { return d.PCIBusID == c.PCIBusID }))
	}
	return values
}

// hiddenEnv returns the variables that hide all devices from an engine.
func hiddenEnv(devices []Device) map[string]string {
	env := map[string]string{}
	for _, vendor := range vendors(devices) {
		switch vendor {
		case "nvidia":
			env[cudaVisible] = noDevice
		case "amd":
			env[hipVisible] = noDevice
		case "intel":
			env[oneAPI] = "*:cpu"
		}
		if vendor != "apple" {
			env[ggmlVulkan] = noDevice
		}
	}
	return env
}

// joinIndices formats indices as "0,1".
func joinIndices(values []int) string {
	var parts []string
	for _, n := range values {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, ",")
}
