package lockfile

import (
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
)

// TestStepsDigest checks which parts of a source affect its digest.
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
		"{ " + steps("packages: [x]") + " } # a comment\n# and another\ndescription: d\n":               true,
		"{ " + steps("packages: [x, y]") + " }":                                                         false,
		"{ " + steps("packages: [x], torch: cpu") + " }":                                                false,
		"{ " + steps("packages: [x], prerelease: true") + " }":                                          false,
	} {
		if got := digest(source) == base; got != same {
			t.Errorf("StepsDigest(%s) equals the digest of the base: %t, want %t", source, got, same)
		}
	}
	file := func(glibc string) string {
		return digest("{ glibc: \"" + glibc + "\", steps: [archive: { url: \"https://h/x.zip\" }], entry: y }")
	}
	if file("2.28") != file("2.35") {
		t.Error("StepsDigest() of a source without packages depends on glibc, want the same digest")
	}
}

// TestDigestIgnoresEnv checks that the variables of a source do not affect its digest.
func TestDigestIgnoresEnv(t *testing.T) {
	t.Parallel()
	r, err := catalog.ParseRecipe("x.yaml", []byte("type: x\nsources:\n- {version: \"1\", file: ./x, env: {A: \"{port}\", B: \"2\"}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	without := r.Sources[0]
	without.Env = nil
	if got, want := StepsDigest(&without), StepsDigest(&r.Sources[0]); got != want {
		t.Errorf("StepsDigest() without env = %s, want %s as with env", got, want)
	}
}
