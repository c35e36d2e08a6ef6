package gpu

import (
	"context"
	"encoding/json"
	"strings"
)

// apple returns the GPU of a Mac with Apple silicon. It omits the GPUs of Macs with Intel
// processors, because inference engines cannot use them.
func (d *Detector) apple(ctx context.Context) []Device {
	r, err := d.runTool(ctx, "system_profiler", "SPDisplaysDataType", "-json")
	if err != nil {
		return []Device{{Index: -1, Vendor: Apple, Error: err.Error()}}
	}
	devices, err := parseApple(r.Stdout)
	if err != nil {
		return []Device{{Index: -1, Vendor: Apple, Error: "system_profiler: " + err.Error()}}
	}
	if len(devices) == 0 {
		return nil
	}
	memory, err := d.runTool(ctx, "sysctl", "-n", "hw.memsize")
	for i := range devices {
		if err == nil {
			devices[i].MemoryTotal = orZero(toBytes(number(string(memory.Stdout)), 1))
		}
	}
	return devices
}

// parseApple parses the output of `system_profiler SPDisplaysDataType -json`. The GPU families
// are labels such as "spdisplays_metal3" or, on older macOS, "spdisplays_mtlgpufamilyapple7".
func parseApple(out []byte) ([]Device, error) {
	doc, err := jsonPart(out)
	if err != nil {
		return nil, err
	}
	var output struct {
		GPUs []struct {
			Model        text `json:"sppci_model"`
			Vendor       text `json:"spdisplays_vendor"`
			MetalSupport text `json:"spdisplays_mtlgpufamilysupport"`
			MetalFamily  text `json:"spdisplays_metalfamily"` // on older macOS
		} `json:"SPDisplaysDataType"`
	}
	if err := json.Unmarshal(doc, &output); err != nil {
		return nil, err
	}
	var devices []Device
	for _, g := range output.GPUs {
		if g.Vendor != "sppci_vendor_Apple" {
			continue
		}
		family := g.MetalSupport
		if family == "" {
			family = g.MetalFamily
		}
		label := strings.TrimPrefix(strings.TrimPrefix(string(family), "spdisplays_"), "mtlgpufamily")
		devices = append(devices, Device{
			Index: len(devices), Vendor: Apple, Name: string(g.Model), Architecture: label, Unified: true,
		})
	}
	return devices, nil
}
