package gpu

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sysfs provides access to the files in /sys. Paths are relative to /sys and slash-separated,
// such as "bus/pci/devices".
type sysfs interface {
	// read returns the contents of a file, or "" if it cannot be read.
	read(name string) string
	// list returns the sorted names in a directory, or nil if it does not exist.
	list(dir string) []string
	// link returns the target of a symbolic link, or "" if name is not a link.
	link(name string) string
}

// dirSysfs is a sysfs mounted at a directory.
type dirSysfs string

func (d dirSysfs) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

func (d dirSysfs) read(name string) string {
	b, err := os.ReadFile(d.path(name))
	if err != nil {
		return ""
	}
	return string(b)
}

func (d dirSysfs) list(dir string) []string {
	entries, _ := os.ReadDir(d.path(dir)) // sorted by name
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (d dirSysfs) link(name string) string {
	target, err := os.Readlink(d.path(name))
	if err != nil {
		return ""
	}
	return target
}

// recordedSysfs is the part of a sysfs that a probe recorded: the contents of files and the
// targets of links, by path.
type recordedSysfs struct{ files, links map[string]string }

func (r recordedSysfs) read(name string) string { return r.files[name] }
func (r recordedSysfs) link(name string) string { return r.links[name] }

func (r recordedSysfs) list(dir string) []string {
	var names []string
	for name := range r.files {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			first, _, _ := strings.Cut(rest, "/")
			names = append(names, first)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// glob returns the files below dir that match a pattern such as
// "tile*/physical_vram_size_bytes", sorted.
func glob(fs sysfs, dir, pattern string) []string {
	first, rest, hasRest := strings.Cut(pattern, "/")
	names := []string{first}
	if strings.Contains(first, "*") {
		names = nil
		for _, name := range fs.list(dir) {
			if ok, _ := path.Match(first, name); ok { // the patterns are valid
				names = append(names, name)
			}
		}
	}
	var files []string
	for _, name := range names {
		if hasRest {
			files = append(files, glob(fs, path.Join(dir, name), rest)...)
		} else {
			files = append(files, path.Join(dir, name))
		}
	}
	return files
}

// readLine returns the contents of a file without leading and trailing white space.
func readLine(fs sysfs, name string) string { return strings.TrimSpace(fs.read(name)) }

// readBytes parses a number of bytes in a file. It returns nil if the file does not contain a
// number.
func readBytes(fs sysfs, name string) *uint64 {
	n, err := strconv.ParseUint(readLine(fs, name), 0, 63)
	if err != nil {
		return nil
	}
	return &n
}
