package gpu_test

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee/gpu"
)

// This example prints the name and memory size of each device.
func ExampleDetect() {
	report, err := gpu.Detect(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range report.Devices {
		if d.Error != "" {
			fmt.Printf("%s: %s\n", d.Vendor, d.Error)
			continue
		}
		fmt.Printf("%s %d: %s, %d bytes\n", d.Vendor, d.Index, d.Name, d.MemoryTotal)
	}
}
