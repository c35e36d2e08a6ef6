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

// uvTool is the name of the tool recipe for uv.
const uvTool = "uv"

// setTools sets the tools that create an environment with a version of Python. If upgrade is
// true, it resolves the newest tools; if that fails, it keeps the current tools and reports
// a note.
func (r *Resolver) setTools(ctx context.Context, env *wire.Python, python string, p wire.Platform, upgrade bool) error {
	for _, t := range []struct {
		key  toolKey
		tool *wire.Tool
	}{{toolKey{uvTool, ""}, &env.UV}, {toolKey{catalog.PythonTool, python}, &env.Interpreter}} {
		resolved, err := r.resolveTool(ctx, t.key, p, upgrade)
		if err != nil && upgrade && ctx.Err() == nil {
			if resolved, err = r.currentTool(ctx, t.key, p, *t.tool, err); err == nil {
				*t.tool = resolved
				continue
			}
		}
		if err != nil {
			return err
		}
		*t.tool = resolved
	}
	return nil
}

// currentTool returns the tool to use if the upgrade failed with upgradeErr: current, or the
// locked tool if current is empty. It returns upgradeErr if neither exists.
func (r *Resolver) currentTool(ctx context.Context, key toolKey, p wire.Platform, current wire.Tool, upgradeErr error) (wire.Tool, error) {
	if current.Version == "" {
		locked, err := r.resolveTool(ctx, key, p, false)
		if err != nil {
			return wire.Tool{}, upgradeErr
		}
		current = locked
	}
	if !r.reportedTools[key] {
		r.reportedTools[key] = true
		r.note(fmt.Sprintf("keeping %s at %s: %v", key, current.Version, upgradeErr))
	}
	return current, nil
}

// upgradeTools upgrades the tools of steps to the newest versions and does not change the
// packages.
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

// toolKey identifies a tool. For Python, it includes the Python version, because a release
// of the tool does not contain all Python versions.
type toolKey struct{ name, python string }

// String returns the name of the tool and the Python version, for messages.
func (k toolKey) String() string { return strings.TrimSuffix(k.name+" "+k.python, " ") }

// constraint returns the version constraint of the tool in the lock.
func (k toolKey) constraint() string { return cmp.Or(k.python, version.Latest) }

// resolveTool returns a tool for a platform. It uses the lock, or resolves the newest version
// if the tool is not locked or upgrade is true.
func (r *Resolver) resolveTool(ctx context.Context, tool toolKey, p wire.Platform, upgrade bool) (wire.Tool, error) {
	recipe := r.tools[tool.name]
	version, err := r.toolVersion(ctx, recipe, tool, p, upgrade)
	if err != nil {
		return wire.Tool{}, fmt.Errorf("cannot resolve tool %s: %w", tool, err)
	}
	choice, err := recipe.Choose(version, catalog.Machine{Platform: p}, "")
	if err != nil {
		return wire.Tool{}, err
	}
	source := sourceForPython(choice.Source, tool.python)
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

// sourceForPython returns the source of a tool with the placeholder {python} replaced.
func sourceForPython(s catalog.Source, version string) catalog.Source {
	s.Steps = slices.Clone(s.Steps)
	for i := range s.Steps {
		o := &s.Steps[i].Origin
		o.Asset = strings.ReplaceAll(o.Asset, "{python}", version)
	}
	return s
}

// toolVersion returns the locked version of a tool, or the newest version for all machines of
// the plan. It resolves a tool once per plan. The result is never older than the locked
// version.
func (r *Resolver) toolVersion(ctx context.Context, recipe *catalog.Recipe, tool toolKey, p wire.Platform, upgrade bool) (string, error) {
	locked, isLocked := r.lock.Worker(tool.name, tool.constraint())
	if isLocked && !upgrade {
		return locked.Version, nil
	}
	if result, ok := r.versions[tool]; ok {
		return result.version, result.err
	}
	v, err := r.resolveVersion(ctx, recipe, version.Latest, r.toolConsumers(recipe, tool, p), nil)
	if err == nil && isLocked && version.Compare(v, locked.Version) < 0 {
		v = locked.Version
	}
	r.versions[tool] = versionResult{v, err}
	return v, err
}

// toolConsumers returns a consumer of a tool for each platform of the plan.
func (r *Resolver) toolConsumers(recipe *catalog.Recipe, tool toolKey, p wire.Platform) []consumer {
	platforms := append(slices.Clone(r.platforms), p)
	if tool.name == uvTool {
		platforms = append(platforms, localPlatform()) // to resolve packages
	}
	var consumers []consumer
	for _, p := range platforms {
		if _, err := recipe.Choose("", catalog.Machine{Platform: p}, ""); err != nil {
			continue // no version supports the platform
		}
		consumers = append(consumers, consumer{p.Key(), func(version string) ([]catalog.Source, error) {
			choice, err := recipe.Choose(version, catalog.Machine{Platform: p}, "")
			if err != nil {
				return nil, err
			}
			return []catalog.Source{sourceForPython(choice.Source, tool.python)}, nil
		}})
	}
	return consumers
}

// localPlatform returns the platform of this machine, without its libc.
func localPlatform() wire.Platform { return wire.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH} }

// uvProgram returns the path of uv for this machine, which it unpacks into the cache. If the
// locked version is older than minVersion, it upgrades uv. An empty minVersion permits any
// version.
func (r *Resolver) uvProgram(ctx context.Context, minVersion string) (string, error) {
	tool, err := r.resolveTool(ctx, toolKey{uvTool, ""}, localPlatform(), false)
	if err == nil && minVersion != "" && version.Compare(tool.Version, minVersion) < 0 {
		tool, err = r.resolveTool(ctx, toolKey{uvTool, ""}, localPlatform(), true)
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
	// Prevent forks while the program is open for writing: a child process would inherit
	// the open file, and running the program would fail with ETXTBSY until the child calls
	// exec.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return program, artifact.ReadArchiveFile(f, tool.Format, tool.Strip, tool.Entry, func(content io.Reader) error {
		return atomicfile.Write(program, 0o700, func(w io.Writer) error {
			_, err := io.Copy(w, content)
			return err
		})
	})
}
