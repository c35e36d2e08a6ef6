// Package wheel parses the names of Python wheels and pylock.toml files, and selects wheels
// for a platform.
package wheel

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Wheel contains the parts of a wheel's file name:
// https://packaging.python.org/en/latest/specifications/binary-distribution-format/
type Wheel struct {
	Name, Version          string
	python, abi, Platforms []string
}

// Parse parses the file name of a wheel. It reports false if the name is not valid.
func Parse(filename string) (w Wheel, ok bool) {
	stem, ok := strings.CutSuffix(filename, ".whl")
	parts := strings.Split(stem, "-")
	if !ok || len(parts) != 5 && len(parts) != 6 {
		return Wheel{}, false
	}
	tags := parts[len(parts)-3:]
	return Wheel{
		Name: parts[0], Version: parts[1],
		python: strings.Split(tags[0], "."), abi: strings.Split(tags[1], "."), Platforms: strings.Split(tags[2], "."),
	}, true
}

// Target describes a Python environment for which wheels are selected.
type Target struct {
	Platform wire.Platform
	Python   string // "3.12"
	Glibc    int    // minor version of the newest glibc that wheels may require
}

// UVPlatform returns the value of uv's flag --python-platform for the target.
func (t Target) UVPlatform() (string, error) {
	switch p := t.Platform; {
	case p.OS == "linux" && p.Libc == "musl":
		return cpuName(p) + "-unknown-linux-musl", nil
	case p.OS == "linux":
		return fmt.Sprintf("%s-manylinux_2_%d", cpuName(p), t.Glibc), nil
	case p.OS == "darwin":
		return cpuName(p) + "-apple-darwin", nil
	default:
		return "", fmt.Errorf("unsupported platform %s for Python packages: want linux or darwin", p.Key())
	}
}

// Rank returns the rank of a wheel for the target, or 0 if the wheel does not support the
// target. Among the wheels of a package, the wheel with the highest rank is the best.
func (t Target) Rank(w Wheel) int {
	best := 0
	for _, py := range w.python {
		for _, abi := range w.abi {
			for _, plat := range w.Platforms {
				a, b := t.interpreterRank(py, abi), t.platformRank(plat)
				if a > 0 && b > 0 {
					best = max(best, a*1000+b)
				}
			}
		}
	}
	return best
}

// interpreterRank ranks the Python and ABI tags of a wheel, such as cp312-cp312, cp38-abi3
// and py3-none.
func (t Target) interpreterRank(py, abi string) int {
	exact := "cp" + strings.ReplaceAll(t.Python, ".", "")
	_, minor, _ := strings.Cut(t.Python, ".")
	targetMinor, _ := strconv.Atoi(minor)
	version := func(prefix string) (int, bool) {
		rest, ok := strings.CutPrefix(py, prefix+"3")
		if !ok {
			return 0, false
		}
		n, err := strconv.Atoi(rest)
		return n, err == nil && n <= targetMinor
	}
	switch {
	case py == exact && abi == exact:
		return 6
	case abi == "abi3":
		if _, ok := version("cp"); ok {
			return 5
		}
	case py == exact && abi == "none":
		return 4
	case py == "py"+strings.TrimPrefix(exact, "cp") && abi == "none":
		return 3
	case abi == "none" && (py == "py3" || py == "py2.py3"):
		return 2
	case abi == "none":
		if _, ok := version("py"); ok {
			return 1
		}
	}
	return 0
}

// platformRank ranks a platform tag of a wheel, such as manylinux_2_28_x86_64.
func (t Target) platformRank(tag string) int {
	p, cpu := t.Platform, cpuName(t.Platform)
	macCPU := cpu
	if p.Arch == "arm64" {
		macCPU = "arm64"
	}
	rank := func(m []string, newest int) int {
		if m == nil || m[2] != cpu {
			return 0
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || n > newest {
			return 0
		}
		return 100 + n
	}
	switch {
	case tag == "any":
		return 1
	case p.OS == "linux" && p.Libc == "musl":
		return rank(musllinux.FindStringSubmatch(tag), newestMusl)
	case p.OS == "linux":
		switch tag {
		case "linux_" + cpu:
			return 50
		case "manylinux1_" + cpu:
			return 105
		case "manylinux2010_" + cpu:
			return 112
		case "manylinux2014_" + cpu:
			return 117
		}
		return rank(Manylinux.FindStringSubmatch(tag), t.Glibc)
	case p.OS == "darwin":
		m := macosx.FindStringSubmatch(tag)
		if m == nil || m[3] != macCPU && m[3] != "universal2" {
			return 0
		}
		if major, err := strconv.Atoi(m[1]); err == nil && major <= newestMacOS {
			return 100 + major
		}
	}
	return 0
}

// MissingWheels returns the sorted names of the packages of a lock that have no wheel for the
// target.
func (t Target) MissingWheels(lock *Pylock) []string {
	var names []string
	for _, p := range lock.Packages {
		found := false
		for _, w := range p.Wheels {
			name := w.Name
			if u, err := url.Parse(w.URL); name == "" && err == nil {
				name = path.Base(u.Path)
			}
			parsed, ok := Parse(name)
			found = found || ok && t.Rank(parsed) > 0
		}
		if !found {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// SelectWheels returns the best wheel of each package of a lock, sorted by name.
func (t Target) SelectWheels(lock *Pylock) ([]wire.Artifact, error) {
	var all []wire.Artifact
	for _, p := range lock.Packages {
		best, a := 0, wire.Artifact{}
		for _, w := range p.Wheels {
			name := w.Name
			if u, err := url.Parse(w.URL); name == "" && err == nil {
				name = path.Base(u.Path)
			}
			parsed, ok := Parse(name)
			if rank := t.Rank(parsed); ok && rank > best {
				best, a = rank, wire.Artifact{Name: name, URL: w.URL, SHA256: strings.ToLower(w.Hashes["sha256"]), Size: w.Size}
			}
		}
		switch {
		case best == 0:
			return nil, fmt.Errorf("%s %s has no wheel for Python %s on %s", p.Name, p.Version, t.Python, t.Platform.Name())
		case !wire.ValidSHA256(a.SHA256):
			return nil, fmt.Errorf("the index has no SHA-256 of %s", a.Name)
		}
		all = append(all, a)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

// NormalizeName returns the normalized form of a package name (PEP 503).
func NormalizeName(name string) string { return strings.ToLower(nameRuns.ReplaceAllString(name, "-")) }

var nameRuns = regexp.MustCompile(`[-_.]+`)

// cpuName returns the name of a CPU in platform tags and in uv's platforms.
func cpuName(p wire.Platform) string {
	switch p.Arch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	default:
		return p.Arch
	}
}

// Manylinux matches a platform tag for glibc. The groups are the minor version of glibc 2 and
// the CPU.
var Manylinux = regexp.MustCompile(`^manylinux_2_([0-9]+)_(.+)$`)

var (
	musllinux = regexp.MustCompile(`^musllinux_1_([0-9]+)_(.+)$`)
	macosx    = regexp.MustCompile(`^macosx_([0-9]+)_([0-9]+)_(.+)$`)
)

// newestMacOS and newestMusl are the newest systems that a wheel may require: macOS 13 and
// musl 1.2, the defaults of uv.
const (
	newestMacOS = 13 // major version
	newestMusl  = 2  // minor version
)

// DefaultGlibc is the minor version of the newest glibc 2 that a wheel may require if the
// recipe does not specify a minimum.
const DefaultGlibc = 28
