package wheel

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestRank(t *testing.T) {
	t.Parallel()
	linux := Target{Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc"}, Python: "3.12", Glibc: 28}
	mac := Target{Platform: wire.Platform{OS: "darwin", Arch: "arm64"}, Python: "3.12"}
	musl := Target{Platform: wire.Platform{OS: "linux", Arch: "arm64", Libc: "musl"}, Python: "3.11"}
	for _, tt := range []struct {
		t    Target
		name string
		fits bool
	}{
		{linux, "torch-2.9.0-cp312-cp312-manylinux_2_28_x86_64.whl", true},
		{linux, "torch-2.9.0-cp313-cp313-manylinux_2_28_x86_64.whl", false},
		{linux, "torch-2.9.0+cu128-cp312-cp312-linux_x86_64.whl", true},
		{linux, "vllm-0.11.0-cp38-abi3-manylinux1_x86_64.whl", true},
		{linux, "vllm-0.11.0-cp313-abi3-manylinux1_x86_64.whl", false},
		{linux, "x-1-cp312-cp312-manylinux_2_34_x86_64.whl", false},
		{linux, "x-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", true},
		{linux, "x-1-cp312-cp312-manylinux_2_28_aarch64.whl", false},
		{linux, "x-1-cp312-cp312-musllinux_1_2_x86_64.whl", false},
		{linux, "six-1.17.0-py2.py3-none-any.whl", true},
		{linux, "x-1-1-py3-none-any.whl", true},
		{linux, "x-1-py2-none-any.whl", false},
		{linux, "x-1-py312-none-any.whl", true},
		{linux, "x-1-cp312-none-any.whl", true},
		{linux, "x-1-py3-none-manylinux2014_x86_64.whl", true},
		{linux, "x-1.tar.gz", false},
		{linux, "x-py3.whl", false},
		{mac, "torch-2.9.0-cp312-none-macosx_11_0_arm64.whl", true},
		{mac, "x-1-cp312-cp312-macosx_10_9_universal2.whl", true},
		{mac, "x-1-cp312-cp312-macosx_14_0_arm64.whl", false},
		{mac, "x-1-cp312-cp312-macosx_11_0_x86_64.whl", false},
		{musl, "x-1-cp311-cp311-musllinux_1_2_aarch64.whl", true},
		{musl, "x-1-cp311-cp311-manylinux_2_28_aarch64.whl", false},
	} {
		w, ok := Parse(tt.name)
		if got := ok && tt.t.Rank(w) > 0; got != tt.fits {
			t.Errorf("Rank(%s) > 0 on %s: %t, want %t", tt.name, tt.t.Platform.Key(), got, tt.fits)
		}
	}
	best := func(names ...string) string {
		name, rank := "", 0
		for _, n := range names {
			w, _ := Parse(n)
			if r := linux.Rank(w); r > rank {
				name, rank = n, r
			}
		}
		return name
	}
	if got := best("x-1-py3-none-any.whl", "x-1-cp312-cp312-manylinux_2_17_x86_64.whl", "x-1-cp38-abi3-manylinux_2_28_x86_64.whl"); got != "x-1-cp312-cp312-manylinux_2_17_x86_64.whl" {
		t.Errorf("the wheel with the highest Rank() is %s, want the wheel for cp312", got)
	}
}

func TestSelectWheels(t *testing.T) {
	t.Parallel()
	linux := Target{Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc"}, Python: "3.12", Glibc: 28}
	lock := func(wheels string) []byte {
		return []byte("lock-version = \"1.0\"\ncreated-by = \"uv\"\n[[packages]]\nname = \"x\"\nversion = \"1\"\nwheels = [" + wheels + "]\n")
	}
	one := `{ url = "https://h/p/x-1-py3-none-any.whl", upload-time = 2025-01-01T00:00:00Z, size = 9, hashes = { sha256 = "` + strings.ToUpper(sum) + `" } }`
	got, err := linux.wheels(lock(one))
	if want := (wire.Artifact{Name: "x-1-py3-none-any.whl", URL: "https://h/p/x-1-py3-none-any.whl", SHA256: sum, Size: 9}); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("SelectWheels() = %+v, %v, want %+v", got, err, want)
	}
	for text, want := range map[string]string{
		"": "x 1 has no wheel for Python 3.12 on linux/amd64 (glibc)",
		`{ url = "https://h/x-1-py3-none-any.whl", hashes = { md5 = "1" } }`: "the index has no SHA-256 of x-1-py3-none-any.whl",
		"{": "cannot parse the pylock.toml of uv",
	} {
		if _, err := linux.wheels(lock(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("SelectWheels(%s) = %v, want %s", text, err, want)
		}
	}
}

const sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// wheels parses a pylock.toml file and selects wheels.
func (t Target) wheels(data []byte) ([]wire.Artifact, error) {
	lock, err := ParsePylock(data)
	if err != nil {
		return nil, err
	}
	return t.SelectWheels(lock)
}
