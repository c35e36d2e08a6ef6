package inspect

import (
	"bufio"
	"cmp"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// loaderDirs are the default directories of the dynamic loader of glibc, on all
// distributions.
var loaderDirs = []string{
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib",
}

// findLibraries returns the elements of [wire.ProbedLibraries] that the dynamic loader finds
// in LD_LIBRARY_PATH, in the directories of /etc/ld.so.conf.d, or in its default directories.
// The result has the order of wire.ProbedLibraries. findLibraries runs no program. It returns
// nil on systems other than Linux, and if the C library is unknown, because the directories
// of the loader depend on it. root replaces / in tests.
func findLibraries(root, libc, libraryPath string) []string {
	if runtime.GOOS != "linux" || libc == "" {
		return nil
	}
	dirs := configuredDirs(root)
	for _, dir := range loaderDirs {
		dirs = append(dirs, filepath.Join(root, dir))
	}
	for _, dir := range filepath.SplitList(libraryPath) {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	found := []string{}
	for _, name := range wire.ProbedLibraries {
		for _, dir := range dirs {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

// configuredDirs returns the directories listed in /etc/ld.so.conf and in the files of
// /etc/ld.so.conf.d.
func configuredDirs(root string) []string {
	files, _ := filepath.Glob(filepath.Join(root, "/etc/ld.so.conf.d/*.conf"))
	var dirs []string
	for _, name := range append(files, filepath.Join(root, "/etc/ld.so.conf")) {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if dir := strings.TrimSpace(lines.Text()); filepath.IsAbs(dir) {
				dirs = append(dirs, filepath.Join(root, dir))
			}
		}
		f.Close()
	}
	return dirs
}

// rocmVersion returns the version of ROCm in /opt/rocm, such as "7.2.1". If /opt/rocm has no
// version, it returns the newest version in /opt, or "" if ROCm is not installed.
// root replaces / in tests.
func rocmVersion(root string) string {
	if data, err := os.ReadFile(filepath.Join(root, "/opt/rocm/.info/version")); err == nil {
		if v := numericPrefix(strings.TrimSpace(string(data))); v != "" {
			return v
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(root, "/opt/rocm-*"))
	best := ""
	for _, dir := range dirs {
		if v := numericPrefix(strings.TrimPrefix(filepath.Base(dir), "rocm-")); isNewerVersion(v, best) {
			best = v
		}
	}
	return best
}

// numericPrefix returns the leading dotted numbers of a version: "7.2.1" for "7.2.1-43".
func numericPrefix(s string) string {
	if i := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); i >= 0 {
		s = s[:i]
	}
	return strings.Trim(s, ".")
}

// isNewerVersion reports whether the dotted numeric version a is newer than b.
func isNewerVersion(a, b string) bool {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		m, _ := strconv.Atoi(x)
		n, _ := strconv.Atoi(y)
		if c := cmp.Compare(m, n); c != 0 {
			return c > 0
		}
	}
	return false
}
