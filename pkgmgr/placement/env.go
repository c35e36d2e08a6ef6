package placement

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// The variables that engines and their runtimes read.
//
// NVIDIA: https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables.
// Without CUDA_DEVICE_ORDER, index 0 is the fastest device and not the first.
//
// AMD: https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html. It
// recommends ROCR_VISIBLE_DEVICES, one layer below, but Ray and with it vLLM
// refuse to start with that one alone. Set together they would filter twice,
// because the lower one numbers the devices anew. CUDA_VISIBLE_DEVICES means the
// same to HIP, and vLLM refuses two that differ, so it stays unset.
//
// Intel: https://intel.github.io/llvm/EnvironmentVariables.html, ONEAPI_DEVICE_SELECTOR.
//
// Vulkan, of whatever vendor, listens to none of these. What engines built on ggml
// take of it is said by GGML_VK_VISIBLE_DEVICES, with indices that run through all
// vendors: https://docs.ollama.com/gpu. The Vulkan loader sorts devices by PCI
// address, discrete ones first.
const (
	cudaOrder   = "CUDA_DEVICE_ORDER"
	cudaVisible = "CUDA_VISIBLE_DEVICES"
	hipVisible  = "HIP_VISIBLE_DEVICES"
	oneAPI      = "ONEAPI_DEVICE_SELECTOR"
	ggmlVulkan  = "GGML_VK_VISIBLE_DEVICES"
)

// nothing is an index that no device has, which ends the list of visible ones
// before it began. An empty value would do for CUDA, but HIP and others take it
// for one that is not set; and where CUDA and HIP variables must agree, these do.
const nothing = "-1"

// visible lets an engine see these devices, all of one vendor, and no others of
// those that are here.
func visible(chosen, here []Device) map[string]string {
	env := map[string]string{}
	if len(chosen) == 0 {
		return env
	}
	list := make([]int, len(chosen))
	for i, d := range chosen {
		list[i] = d.Index
	}
	switch chosen[0].Vendor {
	case "nvidia":
		env[cudaOrder] = "PCI_BUS_ID"
		env[cudaVisible] = indices(list)
	case "amd":
		env[hipVisible] = indices(list)
	case "intel":
		env[oneAPI] = "level_zero:" + indices(list)
	}
	if vulkan := vulkanIndices(chosen, here); vulkan != nil {
		env[ggmlVulkan] = indices(vulkan)
	}
	return env
}

// vulkanIndices are the indices of devices where those of all vendors are counted
// together; nil if that cannot be told, or if there is no Vulkan. It cannot where a
// device is broken: nobody knows whether Vulkan counts that one.
func vulkanIndices(chosen, here []Device) []int {
	if slices.ContainsFunc(here, func(d Device) bool { return d.Vendor == "apple" || d.PCIBusID == "" || !d.works() }) {
		return nil
	}
	order := slices.Clone(here)
	slices.SortStableFunc(order, func(a, b Device) int { return cmp.Compare(a.PCIBusID, b.PCIBusID) })
	var list []int
	for _, c := range chosen {
		list = append(list, slices.IndexFunc(order, func(d Device) bool { return d.PCIBusID == c.PCIBusID }))
	}
	return list
}

// hidden lets an engine see none of the devices that are here.
func hidden(devices []Device) map[string]string {
	env := map[string]string{}
	for _, vendor := range vendors(devices) {
		switch vendor {
		case "nvidia":
			env[cudaVisible] = nothing
		case "amd":
			env[hipVisible] = nothing
		case "intel":
			env[oneAPI] = "*:cpu"
		}
		if vendor != "apple" {
			env[ggmlVulkan] = nothing
		}
	}
	return env
}

// indices writes "0,1".
func indices(list []int) string {
	var words []string
	for _, n := range list {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}
