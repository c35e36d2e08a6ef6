package pkgmgr

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// The tools that installs need, by the type of their recipes.
const (
	uvTool     = "uv"
	pythonTool = "python"
)

// setTools chooses the tools that make an environment with a version of Python. fresh
// asks for the newest.
func (r *resolver) setTools(ctx context.Context, env *wire.Python, python string, p Platform, fresh bool) (err error) {
	if env.UV, err = r.tool(ctx, uvTool, "", p, fresh); err != nil {
		return err
	}
	env.Interpreter, err = r.tool(ctx, pythonTool, python, p, fresh)
	return err
}

// retool brings the tools of steps that are known to the newest, and leaves all else
// as it is.
func (r *resolver) retool(ctx context.Context, recipe *Recipe, c Choice, p Platform, steps []wire.InstallStep) error {
	for i, step := range c.Source.Steps {
		if step.Python == nil || steps[i].Python == nil {
			continue
		}
		if err := r.setTools(ctx, steps[i].Python, step.Python.Version, p, true); err != nil {
			return at(recipe, step.Pos, err)
		}
	}
	return nil
}

// tool is a tool for a platform, from the lock or resolved now; fresh asks for the
// newest.
func (r *resolver) tool(ctx context.Context, name, python string, p Platform, fresh bool) (wire.Tool, error) {
	recipe := r.tools[name]
	version, err := r.toolVersion(ctx, recipe, python, p, fresh)
	if err != nil {
		return wire.Tool{}, fmt.Errorf("the tool %s: %w", name, err)
	}
	choice, err := recipe.Choose(version, Machine{Platform: p}, "")
	if err != nil {
		return wire.Tool{}, err
	}
	key := LockedSource{
		Type: name, Version: version, Source: strings.TrimSuffix(choice.Source.Name+"-"+python, "-"),
		Platform: platformName(p.OS, p.Arch, p.Libc), Recipe: recipeDigest(&choice.Source),
	}
	step := forPython(choice.Source, python).Steps[0]
	steps, ok := r.lock.steps(key)
	if !ok {
		a, err := r.artefact(ctx, recipe.Versions, step.Origin, version)
		if err != nil {
			return wire.Tool{}, at(recipe, step.Pos, err)
		}
		steps = []wire.InstallStep{{Kind: step.Kind, Artefact: a, Format: step.Format, Strip: step.Strip}}
		r.lock.setSteps(key, steps)
	}
	r.lock.setWorker(name, Latest, version, time.Now())
	return wire.Tool{
		Name: name, Version: version, Artefact: *steps[0].Artefact, Format: steps[0].Format, Strip: steps[0].Strip, Entry: choice.Source.Entry,
	}, nil
}

// forPython is a tool's source for a version of Python.
func forPython(s Source, version string) Source {
	s.Steps = slices.Clone(s.Steps)
	for i := range s.Steps {
		o := &s.Steps[i].Origin
		o.Asset = strings.ReplaceAll(o.Asset, "{python}", version)
	}
	return s
}

// toolVersion is what the lock says, or the newest version for all machines of the
// plan. It is asked for once a plan, and never an older one than before.
func (r *resolver) toolVersion(ctx context.Context, recipe *Recipe, python string, p Platform, fresh bool) (string, error) {
	if v := r.versions[recipe.Type]; v != "" {
		return v, nil
	}
	locked, ok := r.lock.worker(recipe.Type, Latest)
	if ok && !fresh {
		return locked.Version, nil
	}
	platforms := append(slices.Clone(r.platforms), p)
	if recipe.Type == uvTool {
		platforms = append(platforms, thisPlatform()) // which resolves with it
	}
	var needs []need
	for _, p := range platforms {
		if _, err := recipe.Choose("", Machine{Platform: p}, ""); err != nil {
			continue // there is none for it, whatever the version
		}
		needs = append(needs, need{PlatformKey(p), func(version string) ([]Source, error) {
			choice, err := recipe.Choose(version, Machine{Platform: p}, "")
			if err != nil {
				return nil, err
			}
			return []Source{forPython(choice.Source, python)}, nil
		}})
	}
	v, err := r.version(ctx, recipe, Latest, needs)
	if err != nil {
		return "", err
	}
	if ok && CompareVersions(v, locked.Version) < 0 {
		v = locked.Version
	}
	r.versions[recipe.Type] = v
	return v, nil
}

func thisPlatform() Platform { return Platform{OS: runtime.GOOS, Arch: runtime.GOARCH} }

// uv is the program for this very machine, unpacked in the cache.
func (r *resolver) uv(ctx context.Context) (string, error) {
	tool, err := r.tool(ctx, uvTool, "", thisPlatform(), false)
	if err != nil {
		return "", err
	}
	program := filepath.Join(r.cacheDir, "tools", "uv-"+tool.Artefact.SHA256[:12], "uv")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	f, _, err := r.art.open(ctx, tool.Artefact, "", false)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return program, readPacked(f, tool.Format, tool.Strip, tool.Entry, func(content io.Reader) error {
		return writeWhole(program, 0o700, func(w io.Writer) error {
			_, err := io.Copy(w, content) //nolint:gosec // its checksum is right
			return err
		})
	})
}
