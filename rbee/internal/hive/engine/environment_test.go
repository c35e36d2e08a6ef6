package engine

import (
	"slices"
	"strings"
	"testing"
)

// TestEnvironmentPath holds that an engine finds the tools of its own environment,
// whether the hive was told a path or not, and that what a recipe says counts.
func TestEnvironmentPath(t *testing.T) {
	e := Engine{Entry: "/w/payload/venv/bin/vllm"}
	for own, want := range map[string]string{"/opt/bin:/bin": "/w/payload/venv/bin:/opt/bin:/bin", "": "/w/payload/venv/bin:" + usualPath} {
		t.Setenv("PATH", own)
		if got := valuesOf(Environment(e, Placeholders{}, nil, nil, ""), "PATH"); !slices.Equal(got, []string{want}) {
			t.Errorf("%q: %q", own, got)
		}
	}
	e.Launch.Env = map[string]string{"PATH": "/its/own"}
	if got := valuesOf(Environment(e, Placeholders{}, nil, nil, ""), "PATH"); got[len(got)-1] != "/its/own" { // the last one counts
		t.Errorf("%q", got)
	}
}

// TestEnvironmentDevices holds that what chooses devices for the hive does not
// number them anew for its workers.
func TestEnvironmentDevices(t *testing.T) {
	const name = "GGML_VK_VISIBLE_DEVICES"
	t.Setenv(name, "3")
	if got := valuesOf(Environment(Engine{}, Placeholders{}, map[string]string{name: "0"}, nil, ""), name); !slices.Equal(got, []string{"0"}) {
		t.Errorf("%q", got)
	}
}

func valuesOf(env []string, name string) (values []string) {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			values = append(values, value)
		}
	}
	return values
}
