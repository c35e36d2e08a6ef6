package engine

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// usualPath is where programs are if the hive itself was told nothing.
const usualPath = "/usr/local/bin:/usr/bin:/bin"

// Environment returns the hive's own environment without what belongs to the hive alone or chooses
// devices, then what the recipe, the placement and the user add, in this order. The
// engine finds first what lies beside its program: engines that compile kernels
// start the tools of their own environment by name.
func Environment(e Engine, words Placeholders, place, own map[string]string, mark string) []string {
	l := e.Launch
	env := []string{"PATH=" + filepath.Dir(e.Entry) + string(filepath.ListSeparator) + cmp.Or(os.Getenv("PATH"), usualPath)}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "PATH":
			continue // told above
		case "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR",
			"GGML_VK_VISIBLE_DEVICES":
			continue // they would number the devices anew, under those that the worker is given
		case "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "LISTEN_FDS", "LISTEN_PID":
			continue // between systemd and the hive
		}
		if !strings.HasPrefix(name, "RBEE_") {
			env = append(env, v)
		}
	}
	add := func(name, value string) { env = append(env, name+"="+value) }
	// py-setproctitle, which vLLM and SGLang use, writes a process's title over its
	// environment, and with it over the mark, unless it is told not to.
	add("SPT_NOENV", "1")
	for _, name := range slices.Sorted(maps.Keys(l.Env)) {
		if value, ok := words.Fill(l.Env[name]); ok {
			add(name, value)
		}
	}
	for _, more := range []map[string]string{place, own} {
		for _, name := range slices.Sorted(maps.Keys(more)) {
			add(name, more[name])
		}
	}
	add(MarkName, mark)
	return env
}

// MarkName is the variable by which a worker's processes are known.
const MarkName = "RBEE_WORKER"
