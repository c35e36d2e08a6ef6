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

// ToolDir returns the name of a tool's directory in tools/.
func ToolDir(t *wire.Tool) string {
	return t.Name + "-" + t.Version + "-" + strings.ToLower(t.Artifact.SHA256[:min(12, len(t.Artifact.SHA256))])
}

// ToolFiles lies in a tool's directory and lists its files, for [Store.CheckTool].
const ToolFiles = ".rbee-files.json"

// ToolPath returns the directory of a tool.
func (s *Store) ToolPath(t *wire.Tool) string {
	return s.Home.Path(wire.ToolsDir + "/" + ToolDir(t))
}

// CheckTool says what is wrong with a tool; empty if nothing is.
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
			return name(ToolFiles) + " names a file outside"
		}
		if wrong := f.check(filepath.Join(dir, filepath.FromSlash(f.Path)), true); wrong != "" {
			return name(f.Path) + " " + wrong
		}
	}
	return ""
}
