package pkgmgr

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Origins are the places that versions and files of workers come from. The zero
// value means the public ones.
type Origins struct {
	// GitHubAPI is the base address of the release API; empty for that of
	// github.com. GitHubToken, if not empty, goes along with requests to it.
	GitHubAPI, GitHubToken string

	// PythonIndex is the base address of the package index; empty for that of
	// pypi.org.
	PythonIndex string

	// HTTP makes the requests; nil is [http.DefaultClient].
	HTTP *http.Client
}

// The tools that installs need, by the type of their recipes.
const (
	uvTool     = "uv"
	pythonTool = "python"
)

// The public places.
const (
	publicGitHubAPI   = "https://api.github.com"
	publicPythonIndex = "https://pypi.org/simple"
)

// resolver finds out what sources consist of.
type resolver struct {
	releases releases
	index    index
	art      *artefacts
	lock     *Lock
	cacheDir string
	tools    map[string]*Recipe
	versions map[string]string // of tools, in this run
	note     func(string)
}

func newResolver(from *fetcher, lock *Lock, art *artefacts, cacheDir string, note func(string)) *resolver {
	return &resolver{
		releases: releases{from: from}, index: index{from: from},
		art: art, lock: lock, cacheDir: cacheDir, tools: toolRecipes(), versions: map[string]string{}, note: note,
	}
}

// fetcher asks these places.
func (o Origins) fetcher() *fetcher {
	return &fetcher{
		http: o.HTTP, api: cmp.Or(o.GitHubAPI, publicGitHubAPI), token: o.GitHubToken, index: cmp.Or(o.PythonIndex, publicPythonIndex),
	}
}

// version asks for the newest version that a wish allows, on a platform that has
// to get it.
func (r *resolver) version(ctx context.Context, recipe *Recipe, wish string, p Platform) (string, error) {
	if exactWish(wish) {
		set, err := ParseRange(wish)
		return set.Exact(), err
	}
	r.note(fmt.Sprintf("looking for the newest %s", recipe.Type))
	v := recipe.Versions
	if v.Package != "" {
		versions, err := r.index.versions(ctx, v.Package)
		if err != nil {
			return "", err
		}
		if best := newest(wish, versions); best != "" {
			return best, nil
		}
		return "", fmt.Errorf("the package index has no version %s of %s", wish, v.Package)
	}
	return r.releases.newest(ctx, v, wish, func(rel *release, version string) bool {
		return slices.ContainsFunc(recipe.Sources, func(s Source) bool {
			return recipe.has(&s, version, "") && s.fitsPlatform(p) && rel.hasAll(&s, version, p)
		})
	})
}

// hasAll reports whether a release has every file that a source takes from it.
func (rel *release) hasAll(s *Source, version string, p Platform) bool {
	filled, err := s.fill(version, p, ".")
	if err != nil {
		return false
	}
	for _, step := range filled.Steps {
		if step.Origin.Asset == "" {
			continue
		}
		pattern := strings.ReplaceAll(step.Origin.Asset, "{python}", "*")
		if _, ok := rel.asset(pattern); !ok {
			return false
		}
	}
	return true
}

// steps finds out what a chosen source consists of.
func (r *resolver) steps(ctx context.Context, recipe *Recipe, c Choice, p Platform) ([]wire.InstallStep, error) {
	r.note(fmt.Sprintf("resolving %s %s%s", recipe.Type, c.Version, after(", ", c.Source.Name)))
	var out []wire.InstallStep
	for i, step := range c.Source.Steps {
		ws := wire.InstallStep{Kind: step.Kind, Builtin: step.Builtin, Format: step.Format, Strip: step.Strip, Into: step.Into}
		var err error
		if step.Kind == wire.StepPython {
			ws.Python, err = r.python(ctx, step.Python, c.Source.Glibc, p, c.Source.Steps[:i], out)
		} else {
			ws.Artefact, err = r.artefact(ctx, recipe.Versions, step.Origin, c.Version)
		}
		if err != nil {
			return nil, at(recipe, step.Pos, err)
		}
		out = append(out, ws)
	}
	return out, nil
}

// pinned are the steps of a source that the recipe says all of.
func (r *resolver) pinned(recipe *Recipe, c Choice) ([]wire.InstallStep, error) {
	var out []wire.InstallStep
	for _, step := range c.Source.Steps {
		ws := wire.InstallStep{Kind: step.Kind, Builtin: step.Builtin, Format: step.Format, Strip: step.Strip, Into: step.Into}
		if step.Kind != wire.StepBuiltin {
			a, err := r.artefact(context.Background(), nil, step.Origin, c.Version) // nothing is asked for
			if err != nil {
				return nil, at(recipe, step.Pos, err)
			}
			ws.Artefact = a
		}
		out = append(out, ws)
	}
	return out, nil
}

// place is where something stands in a recipe.
func place(recipe *Recipe, pos Pos) string { return recipe.File + ":" + strconv.Itoa(pos.Line) }

// at says where in a recipe an error comes from.
func at(recipe *Recipe, pos Pos, err error) error {
	return fmt.Errorf("%s: %w", place(recipe, pos), err)
}

// artefact finds the file that an origin stands for.
func (r *resolver) artefact(ctx context.Context, v *Versions, o Origin, version string) (*wire.Artefact, error) {
	switch {
	case o.Asset != "" || o.Code:
		rel, err := r.releases.tagged(ctx, v.GitHub, v.tag(version))
		if err != nil {
			return nil, err
		}
		if o.Code {
			return r.learn(ctx, path.Base(v.GitHub)+"-"+version+".tar.gz", rel.Code, 0)
		}
		a, err := rel.artefact(v.GitHub, o.Asset)
		if err != nil {
			return nil, err
		}
		if a.SHA256 == "" {
			return r.learn(ctx, a.Name, a.URL, a.Size)
		}
		return &a, nil
	case o.URL != "":
		name := "download"
		if u, err := url.Parse(o.URL); err == nil {
			name = path.Base(u.Path)
		}
		if o.SHA256 == "" {
			return r.learn(ctx, name, o.URL, o.Size)
		}
		return &wire.Artefact{Name: name, URL: o.URL, SHA256: o.SHA256, Size: o.Size}, nil
	default:
		sum, size, err := r.art.sum(o.File, o.SHA256)
		return &wire.Artefact{Name: filepath.Base(o.File), SHA256: sum, Size: size}, err
	}
}

// learn fetches a file of which no checksum is published. It is kept, so that this
// machine can still send it if the address answers with something else one day.
func (r *resolver) learn(ctx context.Context, name, from string, size int64) (*wire.Artefact, error) {
	r.note("fetching " + name + " to learn its checksum")
	sum, got, err := r.art.learn(ctx, from, size)
	switch {
	case err != nil:
		return nil, err
	case size > 0 && got != size:
		return nil, fmt.Errorf("fetching %s: %d bytes came, %d were promised", shown(from), got, size)
	}
	return &wire.Artefact{Name: name, URL: from, SHA256: sum, Size: got}, nil
}

// recipeDigest tells a source's steps from others.
func recipeDigest(s *Source) string {
	plain := *s
	plain.Pos = Pos{}
	plain.Steps = slices.Clone(s.Steps)
	for i := range plain.Steps {
		plain.Steps[i].Pos = Pos{}
	}
	data, err := json.Marshal(plain)
	if err != nil {
		return "" // plain values: it cannot fail
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// lockedTool is a tool for a platform, from the lock or resolved now.
func (r *resolver) tool(ctx context.Context, name, python string, p Platform) (wire.Tool, error) {
	recipe := r.tools[name]
	version, err := r.toolVersion(ctx, recipe, p)
	if err != nil {
		return wire.Tool{}, fmt.Errorf("the tool %s: %w", name, err)
	}
	choice, err := recipe.Choose(version, Machine{Platform: p}, "")
	if err != nil {
		return wire.Tool{}, err
	}
	step := choice.Source.Steps[0]
	step.Origin.Asset = strings.ReplaceAll(step.Origin.Asset, "{python}", python)
	key := LockedSource{
		Type: name, Version: version, Source: strings.TrimSuffix(choice.Source.Name+"-"+python, "-"),
		Platform: platformName(p.OS, p.Arch, p.Libc), Recipe: recipeDigest(&choice.Source),
	}
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

func (r *resolver) toolVersion(ctx context.Context, recipe *Recipe, p Platform) (string, error) {
	if w, ok := r.lock.worker(recipe.Type, Latest); ok {
		return w.Version, nil
	}
	if v := r.versions[recipe.Type]; v != "" {
		return v, nil
	}
	v, err := r.version(ctx, recipe, Latest, p)
	if err == nil {
		r.versions[recipe.Type] = v
	}
	return v, err
}

// python resolves packages, with all that they depend on, to wheels. It is uv
// that does so, here: machines need not reach an index, and all get the same.
func (r *resolver) python(ctx context.Context, want *Python, glibc string, p Platform, before []Step, done []wire.InstallStep) (*wire.Python, error) {
	t := target{platform: p, python: want.Version, glibc: defaultGlibc}
	if _, minor, ok := strings.Cut(glibc, "."); ok {
		if n, err := strconv.Atoi(minor); err == nil {
			t.glibc = n
		}
	}
	requirements := strings.Join(want.Packages, "\n") + "\n"
	if want.Requirements != "" {
		text, err := r.fileOf(ctx, want.Requirements, before, done)
		if err != nil {
			return nil, err
		}
		requirements += text
	}
	out := &wire.Python{}
	var err error
	if out.UV, err = r.tool(ctx, uvTool, "", p); err != nil {
		return nil, err
	}
	if out.Interpreter, err = r.tool(ctx, pythonTool, want.Version, p); err != nil {
		return nil, err
	}
	if out.Wheels, err = r.wheels(ctx, t, want, requirements); err != nil {
		return nil, err
	}
	for i := range out.Wheels {
		w := &out.Wheels[i]
		if w.URL, err = absoluteURL(r.index.from.index, w.URL); err != nil {
			return nil, fmt.Errorf("the address of %s: %w", w.Name, err)
		}
	}
	return out, nil
}

// absoluteURL is the address that a reference in the index means, without the
// credentials of the index: the lock is for others to read.
func absoluteURL(base, ref string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", errors.New("the index has no address")
	}
	u, err := b.Parse(ref)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return "", errors.New("it is not one of https or http")
	}
	u.Fragment, u.User = "", nil
	return u.String(), nil
}

// wheels has uv choose packages.
func (r *resolver) wheels(ctx context.Context, t target, want *Python, requirements string) ([]wire.Artefact, error) {
	platform, err := t.uvPlatform()
	if err != nil {
		return nil, err
	}
	program, err := r.uv(ctx)
	if err != nil {
		return nil, fmt.Errorf("uv for this machine: %w", err)
	}
	dir, err := os.MkdirTemp("", "rbee-resolve-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	lock := filepath.Join(dir, "pylock.toml")
	args := []string{
		"pip", "compile", "--no-config", "--no-progress", "--quiet", "--no-build",
		"--python-version", want.Version, "--python-platform", platform,
	}
	if want.Torch != "" {
		args = append(args, "--torch-backend", want.Torch)
	}
	if want.Prerelease {
		args = append(args, "--prerelease", "allow")
	}
	cmd := exec.CommandContext(ctx, program, append(args, "--output-file", lock, "-")...)
	cmd.Dir, cmd.Stdin, cmd.WaitDelay = dir, strings.NewReader(requirements), time.Second
	cmd.Env = append(os.Environ(),
		"UV_DEFAULT_INDEX="+r.index.from.index, "UV_CACHE_DIR="+filepath.Join(r.cacheDir, "uv"),
		"UV_PYTHON_INSTALL_DIR="+filepath.Join(r.cacheDir, "python"),
	)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("uv cannot resolve %s for %s: %s", strings.Join(want.Packages, ", "), platform, cmp.Or(strings.TrimSpace(stderr.String()), err.Error()))
	}
	data, err := os.ReadFile(lock)
	if err != nil {
		return nil, fmt.Errorf("what uv resolved: %w", err)
	}
	return t.wheels(data)
}

// uv is the program for this very machine, unpacked in the cache.
func (r *resolver) uv(ctx context.Context) (string, error) {
	tool, err := r.tool(ctx, uvTool, "", Platform{OS: runtime.GOOS, Arch: runtime.GOARCH})
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

// fileOf reads a file that an archive of an earlier step puts into the payload.
func (r *resolver) fileOf(ctx context.Context, name string, before []Step, done []wire.InstallStep) (string, error) {
	for i := len(before) - 1; i >= 0; i-- {
		step := done[i]
		inside := name
		if step.Into != "" {
			rest, ok := strings.CutPrefix(name, step.Into+"/")
			if !ok {
				continue
			}
			inside = rest
		}
		if step.Kind != wire.StepArchive {
			continue
		}
		f, _, err := r.art.open(ctx, *step.Artefact, before[i].Origin.File, false)
		if err != nil {
			return "", err
		}
		var text strings.Builder
		err = readPacked(f, step.Format, step.Strip, inside, func(content io.Reader) error {
			_, err := io.Copy(&text, io.LimitReader(content, 1<<20))
			return err
		})
		_ = f.Close()
		if !errors.Is(err, errNotPacked) {
			return text.String(), err
		}
	}
	return "", fmt.Errorf("no step before unpacks %s", name)
}
