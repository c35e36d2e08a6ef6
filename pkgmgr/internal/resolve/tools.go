package resolve

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// The tools that installs need, by the type of their recipes.
const (
	uvTool = "uv"
)

// setTools chooses the tools that make an environment with a version of Python. fresh
// asks for the newest; where those cannot be had, the ones that are known stay, with
// a note.
func (r *Resolver) setTools(ctx context.Context, env *wire.Python, python string, p wire.Platform, fresh bool) error {
	for _, t := range []struct {
		key  toolKey
		into *wire.Tool
	}{{toolKey{uvTool, ""}, &env.UV}, {toolKey{catalog.PythonTool, python}, &env.Interpreter}} {
		tool, err := r.resolveTool(ctx, t.key, p, fresh)
		if err != nil && fresh && ctx.Err() == nil {
			if tool, err = r.currentTool(ctx, t.key, p, *t.into, err); err == nil {
				*t.into = tool
				continue
			}
		}
		if err != nil {
			return err
		}
		*t.into = tool
	}
	return nil
}

// currentTool is the tool that stays where the newest cannot be had: the one that is used
// so far, or else that of the lock. It is failed if there is none.
func (r *Resolver) currentTool(ctx context.Context, key toolKey, p wire.Platform, used wire.Tool, failed error) (wire.Tool, error) {
	if used.Version == "" {
		locked, err := r.resolveTool(ctx, key, p, false)
		if err != nil {
			return wire.Tool{}, failed
		}
		used = locked
	}
	if !r.reportedTools[key] {
		r.reportedTools[key] = true
		r.note(fmt.Sprintf("%s stays at %s: %v", key, used.Version, failed))
	}
	return used, nil
}

// upgradeTools brings the tools of steps that are known to the newest, and leaves all else
// as it is.
func (r *Resolver) upgradeTools(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, steps []wire.InstallStep) error {
	for i, step := range c.Source.Steps {
		if step.Python == nil || steps[i].Python == nil {
			continue
		}
		if err := r.setTools(ctx, steps[i].Python, step.Python.Version, p, true); err != nil {
			return withLocation(recipe, step.Pos, err)
		}
	}
	return nil
}

// toolKey is a tool, for one version of Python where it is Python: a release of it
// may have lost an old one, or not have the newest yet.
type toolKey struct{ name, python string }

// String names the tool.
func (k toolKey) String() string { return strings.TrimSuffix(k.name+" "+k.python, " ") }

// constraint is what the lock has the tool's version under.
func (k toolKey) constraint() string { return cmp.Or(k.python, version.Latest) }

// resolveTool is a tool for a platform, from the lock or resolved now; fresh asks for the
// newest.
func (r *Resolver) resolveTool(ctx context.Context, tool toolKey, p wire.Platform, fresh bool) (wire.Tool, error) {
	recipe := r.tools[tool.name]
	version, err := r.toolVersion(ctx, recipe, tool, p, fresh)
	if err != nil {
		return wire.Tool{}, fmt.Errorf("the tool %s: %w", tool, err)
	}
	choice, err := recipe.Choose(version, catalog.Machine{Platform: p}, "")
	if err != nil {
		return wire.Tool{}, err
	}
	source := forPython(choice.Source, tool.python)
	key := lockfile.Source{
		Type: tool.name, Version: version, Source: strings.TrimSuffix(choice.Source.Name+"-"+tool.python, "-"),
		Platform: p.Name(), Recipe: lockfile.StepsDigest(&source),
	}
	step := source.Steps[0]
	steps, ok := r.lock.Steps(key)
	if !ok {
		a, err := r.artifact(ctx, recipe.Versions, step.Origin, version)
		if err != nil {
			return wire.Tool{}, withLocation(recipe, step.Pos, err)
		}
		steps = []wire.InstallStep{{Kind: step.Kind, Artifact: a, Format: step.Format, Strip: step.Strip}}
		r.lock.SetSteps(key, steps)
	}
	r.lock.SetWorker(tool.name, tool.constraint(), version, time.Now())
	return wire.Tool{
		Name: tool.name, Version: version, Artifact: *steps[0].Artifact, Format: steps[0].Format, Strip: steps[0].Strip, Entry: choice.Source.Entry,
	}, nil
}

// forPython is a tool's source for a version of Python.
func forPython(s catalog.Source, version string) catalog.Source {
	s.Steps = slices.Clone(s.Steps)
	for i := range s.Steps {
		o := &s.Steps[i].Origin
		o.Asset = strings.ReplaceAll(o.Asset, "{python}", version)
	}
	return s
}

// toolVersion is what the lock says, or the newest version for all machines of the
// plan. It is asked for once a plan, and never an older one than before.
func (r *Resolver) toolVersion(ctx context.Context, recipe *catalog.Recipe, tool toolKey, p wire.Platform, fresh bool) (string, error) {
	locked, ok := r.lock.Worker(tool.name, tool.constraint())
	if ok && !fresh {
		return locked.Version, nil
	}
	if asked, ok := r.versions[tool]; ok {
		return asked.version, asked.err
	}
	v, err := r.resolveVersion(ctx, recipe, version.Latest, r.toolConsumers(recipe, tool, p), nil)
	if err == nil && ok && version.Compare(v, locked.Version) < 0 {
		v = locked.Version
	}
	r.versions[tool] = versionOrErr{v, err}
	return v, err
}

// toolConsumers are what the machines of the plan take from a release of a tool.
func (r *Resolver) toolConsumers(recipe *catalog.Recipe, tool toolKey, p wire.Platform) []consumer {
	platforms := append(slices.Clone(r.platforms), p)
	if tool.name == uvTool {
		platforms = append(platforms, thisPlatform()) // which resolves with it
	}
	var needs []consumer
	for _, p := range platforms {
		if _, err := recipe.Choose("", catalog.Machine{Platform: p}, ""); err != nil {
			continue // there is none for it, whatever the version
		}
		needs = append(needs, consumer{p.Key(), func(version string) ([]catalog.Source, error) {
			choice, err := recipe.Choose(version, catalog.Machine{Platform: p}, "")
			if err != nil {
				return nil, err
			}
			return []catalog.Source{forPython(choice.Source, tool.python)}, nil
		}})
	}
	return needs
}

func thisPlatform() wire.Platform { return wire.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH} }

// uv is the program for this very machine, unpacked in the cache. A locked one that is
// older than oldest makes room for the newest; empty accepts any.
func (r *Resolver) uvProgram(ctx context.Context, oldest string) (string, error) {
	tool, err := r.resolveTool(ctx, toolKey{uvTool, ""}, thisPlatform(), false)
	if err == nil && oldest != "" && version.Compare(tool.Version, oldest) < 0 {
		tool, err = r.resolveTool(ctx, toolKey{uvTool, ""}, thisPlatform(), true)
	}
	if err != nil {
		return "", err
	}
	program := filepath.Join(r.cacheDir, "tools", "uv-"+tool.Artifact.SHA256[:12], "uv")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	f, _, err := r.cache.Open(ctx, tool.Artifact, "", false)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// A child that is forked while the program is written would inherit it, open for
	// writing, and until it runs something else the kernel would refuse to run it.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return program, artifact.ReadPacked(f, tool.Format, tool.Strip, tool.Entry, func(content io.Reader) error {
		return atomicfile.Write(program, 0o700, func(w io.Writer) error {
			_, err := io.Copy(w, content)
			return err
		})
	})
}
