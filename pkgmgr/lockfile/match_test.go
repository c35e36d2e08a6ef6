package lockfile

import (
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestMayBe holds what tells locked steps from those that other steps of a recipe
// came to.
func TestMayBe(t *testing.T) {
	t.Parallel()
	linux := wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc"}
	python := func(p catalog.Python) catalog.Source {
		return catalog.Source{Steps: []catalog.Step{{Kind: wire.StepPython, Python: &p, Into: "venv"}}}
	}
	env := func(interpreter string, wheels ...string) []wire.InstallStep {
		p := &wire.Python{Interpreter: wire.Tool{Artefact: wire.Artefact{Name: interpreter}}}
		for _, w := range wheels {
			p.Wheels = append(p.Wheels, wire.Artefact{Name: w})
		}
		return []wire.InstallStep{{Kind: wire.StepPython, Python: p, Into: "venv"}}
	}
	file := func(o catalog.Origin) catalog.Source {
		return catalog.Source{Version: "1.0", Steps: []catalog.Step{{Kind: wire.StepFile, Origin: o}}}
	}
	one := func(a wire.Artefact) []wire.InstallStep {
		return []wire.InstallStep{{Kind: wire.StepFile, Artefact: &a}}
	}
	py312, engine := "cpython-3.12.12+20251120-x.tar.gz", "engine-1.0-py3-none-any.whl"
	torch := func(version, platform string) string { return "torch-" + version + "-cp312-cp312-" + platform + ".whl" }
	for name, k := range map[string]struct {
		source catalog.Source
		steps  []wire.InstallStep
		want   bool
	}{
		"no step":             {file(catalog.Origin{Asset: "a"}), nil, false},
		"another kind":        {python(catalog.Python{Version: "3.12"}), one(wire.Artefact{}), false},
		"asset":               {file(catalog.Origin{Asset: "e-1.0-*.gz"}), one(wire.Artefact{Name: "e-1.0-any.gz"}), true},
		"another asset":       {file(catalog.Origin{Asset: "e-1.0-*.gz"}), one(wire.Artefact{Name: "f-1.0-any.gz"}), false},
		"code":                {file(catalog.Origin{Code: true}), one(wire.Artefact{Name: "engine-1.0.tar.gz"}), true},
		"url":                 {file(catalog.Origin{URL: "https://h/x"}), one(wire.Artefact{URL: "https://h/x", SHA256: "a"}), true},
		"another url":         {file(catalog.Origin{URL: "https://h/x"}), one(wire.Artefact{URL: "https://h/y"}), false},
		"another sum":         {file(catalog.Origin{URL: "https://h/x", SHA256: "b"}), one(wire.Artefact{URL: "https://h/x", SHA256: "a"}), false},
		"file":                {file(catalog.Origin{File: "/a/x"}), one(wire.Artefact{Name: "x"}), true},
		"python":              {python(catalog.Python{Version: "3.12", Packages: []string{"engine==1.0"}}), env(py312, engine), true},
		"an extra":            {python(catalog.Python{Version: "3.12", Packages: []string{"engine[all] >=0.9, <2"}}), env(py312, engine), true},
		"what nobody reads":   {python(catalog.Python{Version: "3.12", Packages: []string{"engine~=1.0"}}), env(py312, engine), true},
		"another python":      {python(catalog.Python{Version: "3.1", Packages: []string{"engine"}}), env(py312, engine), false},
		"another version":     {python(catalog.Python{Version: "3.12", Packages: []string{"engine==1.1"}}), env(py312, engine), false},
		"another package":     {python(catalog.Python{Version: "3.12", Packages: []string{"engine", "wax"}}), env(py312, engine), false},
		"not for this one":    {python(catalog.Python{Version: "3.12", Packages: []string{"engine", "wax; sys_platform == 'darwin'"}}), env(py312, engine), true},
		"for another glibc":   {python(catalog.Python{Version: "3.12"}), env(py312, torch("2.9", "manylinux_2_35_x86_64")), false},
		"for the backend":     {python(catalog.Python{Version: "3.12", Torch: "cu128", Packages: []string{"torch==2.9"}}), env(py312, torch("2.9.0+cu128", "manylinux_2_28_x86_64")), true},
		"for another one":     {python(catalog.Python{Version: "3.12", Torch: "cu129"}), env(py312, torch("2.9.0+cu128", "manylinux_2_28_x86_64")), false},
		"for none":            {python(catalog.Python{Version: "3.12"}), env(py312, torch("2.9.0+cu128", "manylinux_2_28_x86_64")), false},
		"an unmarked one":     {python(catalog.Python{Version: "3.12", Torch: "cu128"}), env(py312, torch("2.9.0", "manylinux_2_28_x86_64")), false},
		"for the CPU":         {python(catalog.Python{Version: "3.12", Torch: "cpu"}), env(py312, torch("2.9.0", "manylinux_2_28_x86_64")), true},
		"somewhere else":      {catalog.Source{Steps: []catalog.Step{{Kind: wire.StepFile, Into: "lib", Origin: catalog.Origin{File: "x"}}}}, one(wire.Artefact{Name: "x"}), false},
		"a pattern that errs": {file(catalog.Origin{Asset: "[x"}), one(wire.Artefact{Name: "x"}), false},
	} {
		if got := MayBe(&k.source, &catalog.Versions{GitHub: "bees/engine"}, linux, k.steps); got != k.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestStepsDigest holds what makes steps others.
func TestStepsDigest(t *testing.T) {
	t.Parallel()
	const head = "type: x\nversions: { package: x }\nsources:\n"
	digest := func(source string) string {
		r, err := catalog.ParseRecipe("x.yaml", []byte(head+"- "+source))
		if err != nil {
			t.Fatal(err)
		}
		return StepsDigest(&r.Sources[0])
	}
	steps := func(python string) string {
		return "steps: [python: { version: \"3.12\", " + python + " }], entry: venv/bin/x"
	}
	base := digest("{ " + steps("packages: [x]") + " }")
	for source, same := range map[string]bool{
		"{ name: n, version: \">1\", os: linux, arch: arm64, libc: glibc, gpu: nvidia, driver: \"580\", compute: \"9\", " + steps("packages: [x]") + " }": true,
		"{ glibc: \"2.28\", " + steps("packages: [x]") + " }":                                           true,
		"{ glibc: \"2.35\", " + steps("packages: [x]") + " }":                                           false,
		"{ args: [a], env: { A: b }, steps: [python: { version: \"3.12\", packages: [x] }], entry: y }": true,
		"{ " + steps("packages: [x, y]") + " }":                                                         false,
		"{ " + steps("packages: [x], torch: cpu") + " }":                                                false,
		"{ " + steps("packages: [x], prerelease: true") + " }":                                          false,
	} {
		if got := digest(source) == base; got != same {
			t.Errorf("%s: %t", source, got)
		}
	}
	file := func(glibc string) string {
		return digest("{ glibc: \"" + glibc + "\", steps: [archive: { url: \"https://h/x.zip\" }], entry: y }")
	}
	if file("2.28") != file("2.35") {
		t.Error("the glibc of a source without packages counts")
	}
}

// TestEnvIsNotInTheDigest holds that the variables of a source do not make another
// install of it.
func TestEnvIsNotInTheDigest(t *testing.T) {
	t.Parallel()
	r, err := catalog.ParseRecipe("x.yaml", []byte("type: x\nsources:\n- {version: \"1\", file: ./x, env: {A: \"{port}\", B: \"2\"}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	without := r.Sources[0]
	without.Env = nil
	if got, want := StepsDigest(&without), StepsDigest(&r.Sources[0]); got != want {
		t.Errorf("StepsDigest() without env = %s, with it %s", got, want)
	}
}
