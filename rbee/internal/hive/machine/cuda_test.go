package machine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCUDAHome(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, home := range []string{"cuda-12", "cuda-13", "default"} {
		if err := os.MkdirAll(filepath.Join(dir, home, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, home, "bin", "nvcc"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "cuda-13", "bin", "nvcc"), filepath.Join(dir, "bin", "nvcc")); err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, tt := range map[string]struct {
		env        map[string]string
		defaultDir string
		want       string
	}{
		"not installed":     {nil, "missing", ""},
		"default directory": {nil, "default", path("default")},
		"PATH":              {map[string]string{"PATH": "relative:" + path("bin")}, "default", path("cuda-13")},
		"CUDA_HOME":         {map[string]string{"PATH": path("bin"), "CUDA_HOME": path("cuda-12")}, "default", path("cuda-12")},
		"invalid CUDA_HOME": {map[string]string{"PATH": path("bin"), "CUDA_HOME": path("missing")}, "default", path("cuda-13")},
		"CUDA_PATH":         {map[string]string{"CUDA_PATH": path("cuda-12")}, "missing", path("cuda-12")},
	} {
		if got := cudaHome(path(tt.defaultDir), func(name string) string { return tt.env[name] }); got != tt.want {
			t.Errorf("%s: cudaHome() with %v = %q, want %q", name, tt.env, got, tt.want)
		}
	}
}
