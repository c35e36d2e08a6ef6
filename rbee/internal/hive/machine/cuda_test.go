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
	for _, home := range []string{"cuda-12", "cuda-13", "usual"} {
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
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, tt := range []struct {
		env   map[string]string
		usual string
		want  string
	}{
		{nil, "none", ""},
		{nil, "usual", at("usual")},
		{map[string]string{"PATH": "relative:" + at("bin")}, "usual", at("cuda-13")},
		{map[string]string{"PATH": at("bin"), "CUDA_HOME": at("cuda-12")}, "usual", at("cuda-12")},
		{map[string]string{"PATH": at("bin"), "CUDA_HOME": at("gone")}, "usual", at("cuda-13")},
		{map[string]string{"CUDA_PATH": at("cuda-12")}, "none", at("cuda-12")},
	} {
		if got := cudaHome(at(tt.usual), func(name string) string { return tt.env[name] }); got != tt.want {
			t.Errorf("cudaHome() with %v = %q, want %q", tt.env, got, tt.want)
		}
	}
}
