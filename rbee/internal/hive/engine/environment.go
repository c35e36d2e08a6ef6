package engine

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// defaultPath is the PATH of an engine if the hive has none.
const defaultPath = "/usr/local/bin:/usr/bin:/bin"

// Environment returns the environment of an engine: the hive's environment without the
// variables that concern only the hive or select devices, followed by the variables of
// the recipe, the placement and the user, in this order. The directory of the engine's
// program is first in PATH, because engines that compile kernels start the tools there
// by name.
func Environment(e Engine, values Placeholders, placementEnv, userEnv map[string]string, marker string) []string {
	l := e.Launch
	env := []string{"PATH=" + filepath.Dir(e.Entry) + string(filepath.ListSeparator) + cmp.Or(os.Getenv("PATH"), defaultPath)}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "PATH":
			continue // set above
		case "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR",
			"GGML_VK_VISIBLE_DEVICES":
			continue // they would renumber the devices that the placement selects
		case "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "LISTEN_FDS", "LISTEN_PID":
			continue // set by systemd for the hive
		}
		if !strings.HasPrefix(name, "RBEE_") {
			env = append(env, v)
		}
	}
	add := func(name, value string) { env = append(env, name+"="+value) }
	// py-setproctitle, which vLLM and SGLang use, overwrites the environment of the
	// process with its title, including the marker, unless SPT_NOENV is set.
	add("SPT_NOENV", "1")
	for _, name := range slices.Sorted(maps.Keys(l.Env)) {
		if value, ok := values.Expand(l.Env[name]); ok {
			add(name, value)
		}
	}
	for _, vars := range []map[string]string{placementEnv, userEnv} {
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			add(name, vars[name])
		}
	}
	add(MarkerEnv, marker)
	return env
}

// MarkerEnv is the environment variable that marks the processes of a worker.
const MarkerEnv = "RBEE_WORKER"
