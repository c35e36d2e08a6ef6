package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// tool installs a tool, if it is missing or damaged, and returns the path of its program.
// All workers share the tool. tool replaces a damaged tool even if processes use it.
func (st *stage) tool(ctx context.Context, t *wire.Tool) (program string, err error) {
	dir := st.Store.ToolPath(t)
	program = filepath.Join(dir, filepath.FromSlash(t.Entry))
	if st.Store.CheckTool(ctx, t, true) == "" {
		st.addReceived(t.Artifact.Size)
		return program, nil
	}
	paths, err := st.fetchArtifacts(ctx, &t.Artifact)
	if err != nil {
		return "", err
	}
	staged := st.Home.Path(wire.ToolsDir + "/" + stagingPrefix + home.RandomSuffix())
	if err := os.MkdirAll(staged, 0o755); err != nil { //nolint:gosec // world-readable programs
		return "", err
	}
	defer os.RemoveAll(staged)
	files, err := st.unpack(ctx, paths[0], t.Format, t.Strip, staged)
	if err != nil {
		return "", fmt.Errorf("cannot unpack %s: %w", t.Artifact.Name, err)
	}
	if info, err := os.Stat(filepath.Join(staged, filepath.FromSlash(t.Entry))); err != nil || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("cannot install %s %s: %s has no program %q", t.Name, t.Version, t.Artifact.Name, t.Entry)
	}
	// Python may rewrite bytecode files at any time.
	files = slices.DeleteFunc(files, func(f installed.File) bool { return strings.Contains("/"+f.Path, "/__pycache__/") })
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	if err := atomicfile.WriteJSON(filepath.Join(staged, installed.ToolFiles), files); err != nil {
		return "", err
	}
	if err := replaceDir(staged, dir); err != nil {
		return "", fmt.Errorf("cannot install %s %s: %w", t.Name, t.Version, err)
	}
	_ = os.RemoveAll(backupPath(dir)) // on failure, the next request removes it
	return program, atomicfile.SyncDir(filepath.Dir(dir))
}

// isInTools reports whether a path without symbolic links is below the tools directory.
func (in *Installer) isInTools(path string) bool {
	tools, err := filepath.EvalSymlinks(in.Home.Path(wire.ToolsDir))
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(tools, path)
	return err == nil && filepath.IsLocal(rel)
}

// cleanTools removes tools that no installed version needs. An environment needs the uv that
// created it. If the replacement of a tool was interrupted, cleanTools restores the old
// directory.
func (in *Installer) cleanTools() error {
	entries, err := os.ReadDir(in.Home.Path(wire.ToolsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	needed := map[string]bool{}
	manifests, _ := filepath.Glob(in.Home.Path(wire.WorkersDir + "/*/*/" + installed.ManifestName)) // the only possible error is a bad pattern
	for _, path := range manifests {
		var m installed.Manifest
		err := statefile.Read(path, &m)
		if newer := (*wire.NewerSchemaError)(nil); errors.As(err, &newer) {
			return nil // the tools of that worker are unknown
		}
		if err != nil {
			continue // damaged: Store.Worker reports it
		}
		for _, step := range m.Steps {
			if p := step.Python; p != nil {
				needed[installed.ToolDir(&p.UV)], needed[installed.ToolDir(&p.Interpreter)] = true, true
			}
		}
	}
	for _, e := range entries {
		path := filepath.Join(in.Home.Path(wire.ToolsDir), e.Name())
		name, old := strings.CutPrefix(e.Name(), oldPrefix)
		original := filepath.Join(filepath.Dir(path), name)
		switch _, statErr := os.Lstat(original); {
		case needed[e.Name()]:
		case old && needed[name] && errors.Is(statErr, fs.ErrNotExist):
			// replaceDir was killed between its two renames.
			err = errors.Join(err, os.Rename(path, original))
		default:
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	_ = os.Remove(in.Home.Path(wire.ToolsDir)) // fails unless it is empty
	return err
}
