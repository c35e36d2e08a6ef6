package catalog

import (
	"maps"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestLaunchBySource checks the arguments and variables that depend on the variant of a
// built-in recipe.
func TestLaunchBySource(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		typ, version string
		devices      []gpu.Device
		want         string
		check        func(*wire.Launch) bool
	}{
		{"llama-cpp", "b9", []gpu.Device{{Vendor: "nvidia", Driver: "580"}}, "-ngl 999", hasArgs("-ngl", "999")},
		{"llama-cpp", "b9", []gpu.Device{{Vendor: "amd"}}, "-ngl 999", hasArgs("-ngl", "999")},
		{"llama-cpp", "b9", []gpu.Device{{Vendor: "intel"}}, "-ngl 999", hasArgs("-ngl", "999")},
		{"llama-cpp", "b9", nil, "no -ngl", func(l *wire.Launch) bool { return !slices.Contains(l.Args, "-ngl") }},
		{"llama-cpp", "b9", nil, "-c {context_total}", hasArgs("-c", "{context_total}")},
		{"ollama", "0.30", []gpu.Device{{Vendor: "nvidia", Driver: "580", ComputeCapability: "8.9"}}, "OLLAMA_VULKAN=0", hasEnv("OLLAMA_VULKAN", "0")},
		{"ollama", "0.30", []gpu.Device{{Vendor: "intel"}}, "no OLLAMA_VULKAN", func(l *wire.Launch) bool { return !slices.Contains(slices.Collect(maps.Keys(l.Env)), "OLLAMA_VULKAN") }},
		{"ollama", "0.30", nil, "OLLAMA_CONTEXT_LENGTH={context}", hasEnv("OLLAMA_CONTEXT_LENGTH", "{context}")},
		{"comfyui", "0.3.62", nil, "the link custom_nodes", func(l *wire.Launch) bool { return l.Links["custom_nodes"] == "{payload}/app/custom_nodes" }},
	} {
		r, _ := Builtin().Recipe(tt.typ)
		c, err := r.Choose(tt.version, Machine{
			Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.39"}, Devices: tt.devices, DevicesKnown: true,
		}, "")
		if err != nil {
			t.Errorf("%s on %v: Choose(%q) = %v, want a source", tt.typ, tt.devices, tt.version, err)
			continue
		}
		if l := r.Launch(&c.Source); !tt.check(l) {
			t.Errorf("%s %s on %v: Launch() has arguments %q, variables %v and links %v, want %s", tt.typ, c.Source.Name, tt.devices, l.Args, l.Env, l.Links, tt.want)
		}
	}
	// The variables of a source must not leak into the recipe.
	r, _ := Builtin().Recipe("ollama")
	if _, ok := r.Start.Env["OLLAMA_VULKAN"]; ok {
		t.Error("after Launch(), the recipe has OLLAMA_VULKAN of a source, want it unchanged")
	}
}

func hasArgs(args ...string) func(*wire.Launch) bool {
	return func(l *wire.Launch) bool {
		i := slices.Index(l.Args, args[0])
		return i >= 0 && len(l.Args) >= i+len(args) && slices.Equal(l.Args[i:i+len(args)], args)
	}
}

func hasEnv(name, value string) func(*wire.Launch) bool {
	return func(l *wire.Launch) bool { return l.Env[name] == value }
}

// TestSourceEnv checks that variables of a source are validated and take precedence over
// those in start.
func TestSourceEnv(t *testing.T) {
	t.Parallel()
	r, err := ParseRecipe("x.yaml", []byte("type: x\nsources:\n- {version: \"1\", file: ./x, env: {A: \"{port}\", B: \"2\"}}\nstart: {env: {A: \"1\", C: \"3\"}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Launch(&r.Sources[0]).Env, map[string]string{"A": "{port}", "B": "2", "C": "3"}; !maps.Equal(got, want) {
		t.Errorf("Launch().Env = %v, want %v", got, want)
	}
	for _, bad := range []string{"{1A: x}", "{A: \"{nope}\"}"} {
		if _, err := ParseRecipe("x.yaml", []byte("type: x\nsources:\n- {version: \"1\", file: ./x, env: "+bad+"}\n")); err == nil {
			t.Errorf("ParseRecipe() with env %s = nil, want an error", bad)
		}
	}
}
