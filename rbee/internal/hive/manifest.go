package hive

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// manifest is what is known of an installed worker version. It is written last,
// so a directory that has one is whole.
type manifest struct {
	Type        string      `json:"type"`
	Version     string      `json:"version"`
	Requested   string      `json:"requested"`
	Source      wire.Source `json:"source"`
	SHA256      string      `json:"sha256"` // of the source
	Bytes       int64       `json:"bytes"`  // on disk
	InstalledAt time.Time   `json:"installed_at"`
	Entry       string      `json:"entry"` // the program, relative to the version's directory
	Files       []fileInfo  `json:"files"` // sorted by path
}

// fileInfo is one installed file or link.
type fileInfo struct {
	Path   string `json:"path"`
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Link   string `json:"link,omitempty"`
}

// listFiles hashes everything below dir.
func listFiles(dir string) (files []fileInfo, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f := fileInfo{Path: filepath.ToSlash(rel)}
		if d.Type()&fs.ModeSymlink != 0 {
			f.Link, err = os.Readlink(path)
		} else {
			f.SHA256, f.Size, err = hashFile(path)
		}
		bytes += f.Size
		files = append(files, f)
		return err
	})
	slices.SortFunc(files, func(a, b fileInfo) int { return strings.Compare(a.Path, b.Path) })
	return files, bytes, err
}

// check compares the files in dir with the manifest; it says what is wrong, or
// nothing. Only a deep check reads them; else only the entry point is looked at.
func (m *manifest) check(dir string, deep bool) string {
	entry := filepath.Join(dir, filepath.FromSlash(m.Entry))
	info, err := os.Stat(entry)
	switch {
	case err != nil:
		return m.Entry + " is missing"
	case info.Mode()&0o100 == 0:
		return m.Entry + " is not executable"
	}
	for _, f := range m.Files {
		if f.Path == m.Entry && f.Link == "" && f.Size != info.Size() {
			return fmt.Sprintf("%s has %d bytes, was installed with %d", f.Path, info.Size(), f.Size)
		}
	}
	if !deep {
		return ""
	}
	for _, f := range m.Files {
		if problem := f.check(dir); problem != "" {
			return problem
		}
	}
	return ""
}

func (f fileInfo) check(dir string) string {
	path := filepath.Join(dir, filepath.FromSlash(f.Path))
	if f.Link != "" {
		if link, err := os.Readlink(path); err != nil || link != f.Link {
			return f.Path + " is not the link that was installed"
		}
		return ""
	}
	sum, _, err := hashFile(path)
	switch {
	case err != nil:
		return f.Path + " cannot be read: " + err.Error()
	case sum != f.SHA256:
		return f.Path + " has changed since it was installed"
	}
	return ""
}
