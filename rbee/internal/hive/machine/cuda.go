package machine

import (
	"os"
	"path/filepath"
)

// CUDAHome returns the directory of this machine's CUDA toolkit, which has bin/nvcc:
// that of CUDA_HOME or CUDA_PATH, that of the nvcc on the PATH, or /usr/local/cuda.
// It returns "" if there is no nvcc.
func CUDAHome() string { return cudaHome("/usr/local/cuda", os.Getenv) }

func cudaHome(usual string, env func(string) string) string {
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
	if isExecutable(filepath.Join(usual, "bin", "nvcc")) {
		return usual
	}
	return ""
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
