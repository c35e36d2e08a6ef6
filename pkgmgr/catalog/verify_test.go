package catalog

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/problemtest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestParseVerify(t *testing.T) {
	t.Parallel()
	text := `type: x
versions: { package: x }
sources:
  - { os: linux, file: x.zip, entry: x, version: "<2", verify: { command: ["{payload}/bin/x"] } }
  - { os: linux, file: x.zip, entry: x }
verify:
  command: ["{entry}", -c, "print('{state}')"]
  env: { HF_HUB_OFFLINE: "1", CONFIG: "{state}/config" }
  matches: '(?m)^GPU\d+'
  limit: 90s
  before_start: true
`
	r, err := ParseRecipe("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []*wire.Verify{
		{Command: []string{"{payload}/bin/x"}},
		{
			Command: []string{"{entry}", "-c", "print('{state}')"}, Env: map[string]string{"HF_HUB_OFFLINE": "1", "CONFIG": "{state}/config"},
			Matches: `(?m)^GPU\d+`, LimitSeconds: 90, BeforeStart: true,
		},
	}
	for i := range r.Sources {
		if got := r.Verification(&r.Sources[i]); !reflect.DeepEqual(got, want[i]) {
			t.Errorf("Verification(source %d) = %+v, want %+v", i, got, want[i])
		}
	}
	none, err := ParseRecipe("x.yaml", []byte(plain))
	if err != nil || none.Verification(&none.Sources[0]) != nil {
		t.Errorf("ParseRecipe() without verify = %+v, %v, want no verify command", none, err)
	}
}

func TestParseVerifyProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ fields, want string }{
		{"matches: x", "4:9 verify has no command"},
		{"command: x", `4:19 command is a string (want a list, for example ["{entry}", --version])`},
		{"command: []", `4:19 verify.command is empty (for example ["{entry}", --version])`},
		{"command: [x]", `4:20 invalid verify program "x" (want {entry}, or a path such as {payload}/bin/tool)`},
		{"command: [/bin/sh]", `4:20 invalid verify program "/bin/sh"`},
		{`command: ["{payload}/../x"]`, `4:20 invalid verify program "{payload}/../x"`},
		{`command: ["{entry} -v"]`, `4:20 invalid verify program "{entry} -v"`},
		{`command: ["{entry}", "{port}"]`, "4:31 unknown placeholder {port} (known placeholders: {entry}, {payload}, {state})"},
		{`command: ["{entry}", "a\nb"]`, `4:31 "a\nb" contains control characters`},
		{`command: ["{entry}"], matches: "a("`, `4:41 invalid regular expression "a(" (missing closing ): ` + "`a(`)"},
		{`command: ["{entry}"], matches: "(?=a)"`, `4:41 invalid regular expression "(?=a)"`},
		{`command: ["{entry}"], matches: ".*"`, `4:41 verify.matches ".*" matches empty output (want a part of the output, or remove it)`},
		{`command: ["{entry}"], limit: 31m`, "4:39 invalid verify.limit 31m0s (want at most 30m)"},
		{`command: ["{entry}"], limit: 0s`, `4:39 limit: invalid duration "0s": want more than 0`},
		{`command: ["{entry}"], limit: 60`, "4:39 limit: invalid duration: an integer, want a string"},
		{`command: ["{entry}"], env: { A B: x }`, `4:44 invalid environment variable name "A B"`},
		{`command: ["{entry}"], env: { A: "{model}" }`, "4:42 unknown placeholder {model}"},
		{`command: ["{entry}"], before_start: 1`, "4:46 before_start is an integer (want true or false"},
		{`command: ["{entry}"], matche: x`, `4:32 unknown key "matche" (did you mean "matches"?)`},
	} {
		_, err := ParseRecipe("x.yaml", []byte(plain+"verify: {"+tt.fields+"}\n"))
		if err == nil {
			t.Errorf("ParseRecipe(verify: %q) returned no error, want %s", tt.fields, tt.want)
			continue
		}
		if got := problemtest.Lines(t, err); len(got) != 1 || !strings.HasPrefix(got[0], tt.want) {
			t.Errorf("ParseRecipe(verify: %q) reports\n%s\nwant %s", tt.fields, strings.Join(got, "\n"), tt.want)
		}
	}
}

// TestBuiltinVerify checks that every engine has a verify command whose expression
// distinguishes real output with a device from output without one.
func TestBuiltinVerify(t *testing.T) {
	t.Parallel()
	const none = "Available devices:\n  (none)\n"
	found := map[string]string{
		"llama-cpp cuda-13": "ggml_cuda_init: found 1 CUDA devices:\nAvailable devices:\n  CUDA0: NVIDIA GeForce RTX 4090 (24080 MiB, 23500 MiB free)\n",
		"llama-cpp cuda-12": "Available devices:\n  CUDA0: NVIDIA GeForce GTX 1080 (8110 MiB, 8000 MiB free)\n  CUDA1: NVIDIA GeForce GTX 1080 (8110 MiB, 8000 MiB free)\n",
		"llama-cpp rocm":    "Available devices:\n  ROCm0: AMD Radeon RX 7900 XTX (24560 MiB, 24000 MiB free)\n",
		"llama-cpp vulkan":  "Available devices:\n  Vulkan0: Intel(R) Arc(tm) A770 Graphics (16032 MiB, 15000 MiB free)\n",
		"llama-cpp metal":   "Available devices:\n  MTL0: Apple M4 (11453 MiB, 11453 MiB free)\n",
		"llama-cpp cpu":     none,
		"vllm":              "vllm 0.32.0\ncuda True\n",
		"sglang":            "sglang 0.5.23\ncuda True\n",
		"comfyui cuda-13":   "Total VRAM 24080 MB, total RAM 64000 MB\nDevice: cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync\n",
		"comfyui rocm":      "Device: cuda:0 AMD Radeon RX 7900 XTX : native\n",
		"comfyui metal":     "Device: mps\n",
		"comfyui cpu":       "Device: cpu\n",
		"ollama":            "Warning: could not connect to a running Ollama instance\nWarning: client version is 0.32.15\n",
	}
	missing := map[string][]string{
		"llama-cpp": {"", none, "Available devices:\n  RPC0: CUDA0 remote\n"},
		"vllm":      {"", "vllm 0.32.0\ncuda False\n"},
		"sglang":    {"", "sglang 0.5.23\ncuda False\n"},
		"comfyui":   {"", "Device: cpu\n", "Could not pick default device.\n"},
		"ollama":    {""},
	}
	c, seen := Builtin(), map[string]bool{}
	for _, typ := range c.Types() {
		r, _ := c.Recipe(typ)
		for i := range r.Sources {
			s := &r.Sources[i]
			v := r.Verification(s)
			if typ == "echo" {
				continue // built into rbee
			}
			if v == nil || v.Matches == "" {
				t.Errorf("%s %s: verify = %+v, want a command with an expression", typ, s.Name, v)
				continue
			}
			re := regexp.MustCompile(v.Matches)
			for _, key := range []string{typ, typ + " " + s.Name} {
				if out, ok := found[key]; ok {
					seen[key] = true
					if !re.MatchString(out) {
						t.Errorf("%s %s: expression %s does not match %q, want a match", typ, s.Name, v.Matches, out)
					}
				}
			}
			for _, out := range missing[typ] {
				if s.needsGPU() && re.MatchString(out) {
					t.Errorf("%s %s: expression %s matches %q, want no match of output without a device", typ, s.Name, v.Matches, out)
				}
			}
			if want := typ == "llama-cpp"; v.BeforeStart != want {
				t.Errorf("%s %s: before_start = %t, want %t", typ, s.Name, v.BeforeStart, want)
			}
			if program := v.Command[0]; !slices.Contains([]string{"{entry}", "{payload}/venv/bin/python"}, program) {
				t.Errorf("%s %s: verify runs %s, want the entry or its Python", typ, s.Name, program)
			}
		}
	}
	for key := range found {
		if !seen[key] {
			t.Errorf("the built-in recipes have no source %s, want a source for each example", key)
		}
	}
}
