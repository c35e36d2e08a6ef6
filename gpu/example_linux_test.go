package gpu_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
)

// A Detector with a custom Runner parses the output of tools on another machine.
func ExampleDetector() {
	const output = "0, GPU-5d1f2c9e, NVIDIA H100 80GB HBM3, 00000000:41:00.0, 81559, 1204, 79874, 570.86.15, 9.0, Disabled, 37, 41, 182.53\n"
	d := &gpu.Detector{
		Sys: "/nonexistent", Proc: "/nonexistent",
		Run: func(_ context.Context, name string, args ...string) (gpu.Result, error) {
			if name != "nvidia-smi" || !strings.HasPrefix(args[0], "--query-gpu=") {
				return gpu.Result{}, exec.ErrNotFound
			}
			return gpu.Result{Stdout: []byte(output)}, nil
		},
	}
	devices, err := d.Devices(context.Background())
	for _, d := range devices {
		free, known := d.Available()
		fmt.Println(d.Vendor, d.Index, d.Name, d.Driver, free>>30, known)
	}
	fmt.Println(err)
	// Output:
	// nvidia 0 NVIDIA H100 80GB HBM3 570.86.15 78 true
	// <nil>
}
