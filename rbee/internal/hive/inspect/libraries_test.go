package inspect

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// rootWith creates files in a temporary directory, which replaces /, and returns its path.
func rootWith(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFindLibraries(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("findLibraries supports only Linux")
	}
	libDir := filepath.Join(rootWith(t, map[string]string{"libze_loader.so.1": ""}), "/")
	for _, tt := range []struct {
		name        string
		files       map[string]string
		libc        string
		libraryPath string
		want        []string
	}{
		{"none", nil, "glibc", "", []string{}},
		{"no C library", map[string]string{"/lib64/libgomp.so.1": ""}, "", "", nil},
		{"Debian", map[string]string{"/usr/lib/x86_64-linux-gnu/libgomp.so.1": "", "/usr/lib/x86_64-linux-gnu/libssl.so.3": "", "/usr/lib/x86_64-linux-gnu/libvulkan.so": ""},
			"glibc", "", []string{"libgomp.so.1", "libssl.so.3"}},
		{"Fedora", map[string]string{"/usr/lib64/libvulkan.so.1": "", "/lib64/libcrypto.so.3": ""}, "glibc", "", []string{"libcrypto.so.3", "libvulkan.so.1"}},
		{"arm64", map[string]string{"/usr/lib/aarch64-linux-gnu/libgomp.so.1": ""}, "glibc", "", []string{"libgomp.so.1"}},
		{"configured", map[string]string{"/etc/ld.so.conf.d/a.conf": "# comment\n/opt/vk/lib\n", "/opt/vk/lib/libvulkan.so.1": ""}, "glibc", "", []string{"libvulkan.so.1"}},
		{"LD_LIBRARY_PATH", nil, "glibc", ":relative:" + libDir, []string{"libze_loader.so.1"}},
		{"musl", map[string]string{"/usr/lib/libssl.so.3": ""}, "musl", "", []string{"libssl.so.3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := findLibraries(rootWith(t, tt.files), tt.libc, tt.libraryPath)
			if !slices.Equal(got, tt.want) || (got == nil) != (tt.want == nil) {
				t.Errorf("findLibraries() = %#v, want %#v", got, tt.want)
			}
		})
	}
}

func TestROCmVersion(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		files map[string]string
		want  string
	}{
		{nil, ""},
		{map[string]string{"/opt/rocm/.info/version": "7.2.1-43\n"}, "7.2.1"},
		{map[string]string{"/opt/rocm/.info/version": "7.2.1\n", "/opt/rocm-10.0.0/x": ""}, "7.2.1"},
		{map[string]string{"/opt/rocm-7.2.1/x": "", "/opt/rocm-10.0.0/x": "", "/opt/rocm-old/x": ""}, "10.0.0"},
		{map[string]string{"/opt/rocm/.info/version": "unknown\n", "/opt/rocm-6.4/x": ""}, "6.4"},
		{map[string]string{"/opt/rocm/bin/rocminfo": ""}, ""},
	} {
		if got := rocmVersion(rootWith(t, tt.files)); got != tt.want {
			t.Errorf("rocmVersion() with %v = %q, want %q", tt.files, got, tt.want)
		}
	}
}
