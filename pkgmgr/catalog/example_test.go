package catalog_test

import (
	"fmt"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// This example selects the builds for machines with and without a GPU.
func ExampleRecipe_Choose() {
	recipe, ok := catalog.Builtin().Recipe("llama-cpp")
	if !ok {
		fmt.Println("unknown worker type")
		return
	}
	machine := catalog.Machine{
		Platform:     wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.39"},
		DevicesKnown: true,
	}
	choice, err := recipe.Choose("b10811", machine, "")
	fmt.Println(choice.Source.Name, err)

	machine.Devices = []gpu.Device{{Vendor: gpu.NVIDIA, Driver: "580.95.05", ComputeCapability: "9.0"}}
	choice, err = recipe.Choose("b10811", machine, "")
	fmt.Println(choice.Source.Name, err)

	_, err = recipe.Choose("b10811", catalog.Machine{Platform: wire.Platform{OS: "plan9", Arch: "386"}}, "")
	fmt.Println(err != nil)
	// Output:
	// cpu <nil>
	// cuda-13 <nil>
	// true
}
