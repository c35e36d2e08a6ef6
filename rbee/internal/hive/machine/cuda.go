package machine

import (
	"os"
	"path/filepath"
)

// CUDAHome returns the directory of the CUDA toolkit, which contains bin/nvcc. It checks
// CUDA_HOME, CUDA_PATH, the nvcc on the PATH, and /usr/local/cuda, in this order. It
// returns "" if it finds no nvcc.
func CUDAHome() string { return cudaHome("/usr/local/cuda", os.Getenv) }

func cudaHome(defaultDir string, env func(string) string) string {
	for _, home := range []string{env("CUDA_HOME"), env("CUDA_PATH")} {
		if filepath.IsAbs(home) && isExecutable(filepath.Join(home, "bin", "nvcc")) {
			return home
		}
	}
	for _, dir := range filepath.SplitList(env("PATH")) {
		nvcc := filepath.Join(dir, "nvcc")
		if !filepath.IsAbs(dir) || !isExecutable(nvcc) {
			continue
		}
		if resolved, err := filepath.EvalSymlinks(nvcc); err == nil {
			return filepath.Dir(filepath.Dir(resolved))
		}
	}
	if isExecutable(filepath.Join(defaultDir, "bin", "nvcc")) {
		return defaultDir
	}
	return ""
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
