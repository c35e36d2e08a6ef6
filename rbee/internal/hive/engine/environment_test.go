package engine

import (
	"slices"
	"strings"
	"testing"
)

// TestEnvironmentPath checks that the directory of the program is first in PATH,
// with and without a PATH of the hive, and that the recipe can override PATH.
func TestEnvironmentPath(t *testing.T) {
	e := Engine{Entry: "/w/payload/venv/bin/vllm"}
	for hivePath, want := range map[string]string{"/opt/bin:/bin": "/w/payload/venv/bin:/opt/bin:/bin", "": "/w/payload/venv/bin:" + defaultPath} {
		t.Setenv("PATH", hivePath)
		if got := valuesOf(Environment(e, Placeholders{}, nil, nil, ""), "PATH"); !slices.Equal(got, []string{want}) {
			t.Errorf("Environment() with PATH=%q has PATH = %q, want %q", hivePath, got, want)
		}
	}
	e.Launch.Env = map[string]string{"PATH": "/recipe/bin"}
	if got := valuesOf(Environment(e, Placeholders{}, nil, nil, ""), "PATH"); got[len(got)-1] != "/recipe/bin" { // the last value applies
		t.Errorf("Environment() with PATH in the recipe has PATH = %q, want /recipe/bin last", got)
	}
}

// TestEnvironmentDevices checks that workers do not inherit a variable that selects
// devices for the hive.
func TestEnvironmentDevices(t *testing.T) {
	const name = "GGML_VK_VISIBLE_DEVICES"
	t.Setenv(name, "3")
	if got := valuesOf(Environment(Engine{}, Placeholders{}, map[string]string{name: "0"}, nil, ""), name); !slices.Equal(got, []string{"0"}) {
		t.Errorf("Environment() has %s = %q, want only 0", name, got)
	}
}

// valuesOf returns the values of a variable in env.
func valuesOf(env []string, name string) (values []string) {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			values = append(values, value)
		}
	}
	return values
}
