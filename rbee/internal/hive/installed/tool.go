package installed

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// ToolDir returns the name of the directory of a tool in tools/.
func ToolDir(t *wire.Tool) string {
	return t.Name + "-" + t.Version + "-" + strings.ToLower(t.Artifact.SHA256[:min(12, len(t.Artifact.SHA256))])
}

// ToolFiles is the name of the file, in the directory of a tool, that lists the files of the
// tool.
const ToolFiles = ".rbee-files.json"

// ToolPath returns the path of the directory of a tool.
func (s *Store) ToolPath(t *wire.Tool) string {
	return s.Home.Path(wire.ToolsDir + "/" + ToolDir(t))
}

// CheckTool returns a description of the first damaged file of a tool; empty if the tool
// is intact. If deep is set, it compares the checksum of every file.
func (s *Store) CheckTool(ctx context.Context, t *wire.Tool, deep bool) string {
	dir := s.ToolPath(t)
	name := func(path string) string { return wire.ToolsDir + "/" + ToolDir(t) + "/" + path }
	switch info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(t.Entry))); {
	case err != nil:
		return name(t.Entry) + " is missing"
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return name(t.Entry) + " is not executable"
	case !deep:
		return ""
	}
	var files []File
	if err := atomicfile.ReadJSON(filepath.Join(dir, ToolFiles), &files); errors.Is(err, fs.ErrNotExist) {
		return name(ToolFiles) + " is missing"
	} else if err != nil {
		return name(ToolFiles) + " cannot be read: " + err.Error()
	}
	for _, f := range files {
		if ctx.Err() != nil {
			return ""
		}
		if !filepath.IsLocal(f.Path) {
			return name(ToolFiles) + " lists a file outside its directory"
		}
		if problem := f.check(filepath.Join(dir, filepath.FromSlash(f.Path)), true); problem != "" {
			return name(f.Path) + " " + problem
		}
	}
	return ""
}
