package gpu

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

const rocmSMI = "rocm-smi"

// rocmDevices asks rocm-smi, amd-smi's forerunner, which older machines have.
func (d *Detector) rocmDevices(ctx context.Context) ([]Device, error) {
	r, err := d.ask(ctx, rocmSMI, "--showproductname", "--showuniqueid", "--showbus", "--showmeminfo", "vram",
		"--showuse", "--showtemp", "--showpower", "--showdriverversion", "--json")
	if err != nil {
		return nil, err
	}
	devices, err := parseROCm(r.Stdout)
	if err != nil {
		return nil, &toolError{tool: rocmSMI, words: fmt.Sprintf("rocm-smi: %v: %s", err, r.complaint(rocmSMI))}
	}
	return devices, nil
}

// parseROCm reads rocm-smi's JSON: an object "card<N>" per device, and one
// called "system". All values are text, and the keys' capitals change between
// versions. Example: https://github.com/sebhildebrandt/systeminformation/pull/960
func parseROCm(out []byte) ([]Device, error) {
	doc, err := jsonPart(out)
	if err != nil {
		return nil, err
	}
	var sections map[string]section[rocmCard]
	if err := json.Unmarshal(doc, &sections); err != nil {
		return nil, err
	}
	driver := sections["system"].value.first("driver version")
	var devices []Device
	for name, s := range sections {
		digits, isCard := strings.CutPrefix(name, "card")
		index, err := strconv.Atoi(digits)
		if !isCard || err != nil || index < 0 {
			continue
		}
		g := s.value.device(index)
		g.Driver = driver
		devices = append(devices, g)
	}
	sortDevices(devices)
	return devices, nil
}

type rocmCard map[string]text

// first is the value of the first key that has one.
func (c rocmCard) first(keys ...string) string {
	for _, key := range keys {
		for k, v := range c {
			if strings.EqualFold(k, key) && known(string(v)) != "" {
				return known(string(v))
			}
		}
	}
	return ""
}

func (c rocmCard) device(index int) Device {
	memory := func(key string) *uint64 { return toBytes(number(c.first(key)), 1) }
	g := Device{
		Index: index, Vendor: AMD,
		UUID:         c.first("unique id"),
		Name:         c.first("card series", "device name", "card model"),
		PCIBusID:     busID(c.first("pci bus")),
		Architecture: c.first("gfx version"),
		MemoryTotal:  orZero(memory("vram total memory (b)")),
		MemoryUsed:   memory("vram total used memory (b)"),
		Utilization:  number(c.first("gpu use (%)")),
		Temperature:  number(c.first("temperature (sensor edge) (c)", "temperature (sensor junction) (c)")),
		Power:        number(c.first("average graphics package power (w)", "current socket graphics package power (w)")),
	}
	g.MemoryFree = less(g.MemoryTotal, g.MemoryUsed)
	return g
}
