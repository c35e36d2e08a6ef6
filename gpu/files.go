package gpu

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sysfs is what a detector reads of the kernel's files. Paths are relative to
// /sys, with slashes: "bus/pci/devices".
type sysfs interface {
	// read returns the content of a file; "" if it cannot be read.
	read(name string) string
	// list returns the names in a directory, sorted; nil if there is none.
	list(dir string) []string
	// link returns what a symbolic link points to; "" if it is not one.
	link(name string) string
}

// dirSysfs is the sysfs that is mounted at a directory.
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

// recordedSysfs is the part of a sysfs that a probe recorded: the files and the
// targets of the links, by path.
type recordedSysfs struct{ files, links map[string]string }

func (r recordedSysfs) read(name string) string { return r.files[name] }
func (r recordedSysfs) link(name string) string { return r.links[name] }

func (r recordedSysfs) list(dir string) []string {
	var names []string
	for name := range r.files {
		if rest, below := strings.CutPrefix(name, dir+"/"); below {
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
	first, rest, more := strings.Cut(pattern, "/")
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
		if more {
			files = append(files, glob(fs, path.Join(dir, name), rest)...)
		} else {
			files = append(files, path.Join(dir, name))
		}
	}
	return files
}

// readLine returns a small file's text without the white space around it, or "".
func readLine(fs sysfs, name string) string { return strings.TrimSpace(fs.read(name)) }

// readBytes returns the number of bytes that a file holds; nil if there is none.
func readBytes(fs sysfs, name string) *uint64 {
	n, err := strconv.ParseUint(readLine(fs, name), 0, 63)
	if err != nil {
		return nil
	}
	return &n
}
