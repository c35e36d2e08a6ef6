package placement_test

import (
	"fmt"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/placement"
)

func ExamplePlace() {
	free := uint64(22 << 30)
	devices := []placement.Device{
		{Device: gpu.Device{Vendor: "nvidia", Index: 0, Name: "NVIDIA L4", MemoryTotal: 24 << 30, MemoryFree: &free, MemoryReserved: 16 << 30}},
		{Device: gpu.Device{Vendor: "nvidia", Index: 1, Name: "NVIDIA L4", MemoryTotal: 24 << 30, MemoryFree: &free}},
	}
	request := placement.Request{
		Worker: "llama-cpp", Model: "org/model", UsesAccelerator: true,
		Estimate: 17 << 30, Overhead: 1 << 30, Breakdown: "weights 15.0 GiB + cache 2.0 GiB",
	}
	d, err := placement.Place(request, devices)
	fmt.Println(d.Env["CUDA_VISIBLE_DEVICES"], err)
	fmt.Println(d.Reason)

	request.Estimate, request.Breakdown = 40<<30, "weights 38.0 GiB + cache 2.0 GiB"
	_, err = placement.Place(request, devices)
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// nvidia 1 (NVIDIA L4): most memory free of 2 devices; needs 18.0 GiB = 17.0 GiB (weights 15.0 GiB + cache 2.0 GiB) + overhead 1.0 GiB; 22.0 GiB free of 24.0 GiB, 2.0 GiB in use
	// llama-cpp with org/model does not fit on this machine
	//   needed: 41.0 GiB = 40.0 GiB (weights 38.0 GiB + cache 2.0 GiB) + overhead 1.0 GiB
	//   needed: 21.0 GiB on each of 2 devices = 40.0 GiB (weights 38.0 GiB + cache 2.0 GiB) / 2 + overhead 1.0 GiB
	//   nvidia 0 (NVIDIA L4): 22.0 GiB free of 24.0 GiB, 2.0 GiB in use, 16.0 GiB reserved for loading workers, 6.0 GiB available
	//   nvidia 1 (NVIDIA L4): 22.0 GiB free of 24.0 GiB, 2.0 GiB in use
	//   missing: 15.0 GiB on nvidia 0 (NVIDIA L4); it would fit with 21.0 GiB free on each of 2 devices
}
