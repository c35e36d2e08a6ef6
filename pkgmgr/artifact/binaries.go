package artifact

import (
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Binary is an rbee binary that can be brought to a machine.
type Binary struct {
	Version string
	SHA256  string // in hex
	Size    int64  // in bytes

	// Open opens its content. It may be called several times, from several
	// goroutines.
	Open func() (io.ReadCloser, error)
}

// BinarySource finds the rbee binary for a platform.
type BinarySource interface {
	// Binary finds it. With fetch false it looks only at what is on this
	// machine, and a nil Binary without an error means that there is none.
	// With fetch true it may download, and an error says what was tried. It
	// is called from several goroutines.
	Binary(ctx context.Context, p wire.Platform, fetch bool) (*Binary, error)
}

// ReleaseURL is where released binaries are: below it, v<version>/rbee-<os>-<arch>
// and, beside that, the same name with .sha256 added.
const ReleaseURL = "https://github.com/rbee-keeper/rbee/releases/download"

// mainPackage is the path that the Go linker records in an rbee binary.
const mainPackage = "github.com/rbee-keeper/rbee"

// Binaries finds rbee binaries in this order: the running program, a directory
// of builds, the cache, and the release address. The zero value knows only the
// release address, with no version to ask for; it then finds nothing.
type Binaries struct {
	// Self is the path of an rbee for this machine's own platform, usually the
	// running program. Empty if the running program is no rbee.
	Self string

	// Version is the version of Self, and the release to fetch.
	Version string

	// Dir holds builds named rbee-<os>-<arch>, or in <os>-<arch>/rbee or
	// <os>_<arch>/rbee. Empty for none.
	Dir string

	// Cache is where fetched binaries are kept. Empty keeps none and fetches none.
	Cache string

	// ReleaseURL takes the place of [ReleaseURL]; empty for that itself.
	ReleaseURL string

	// Client fetches; nil is [http.DefaultClient].
	Client *http.Client

	mu    sync.Mutex
	found map[string]*Binary
}

// Binary implements [BinarySource].
func (b *Binaries) Binary(ctx context.Context, p wire.Platform, fetch bool) (*Binary, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := p.Key()
	if found, ok := b.found[key]; ok && b.fits(found, p) == nil {
		return found, nil
	}
	bin, err := b.find(ctx, p, fetch)
	if bin != nil {
		if b.found == nil {
			b.found = map[string]*Binary{}
		}
		b.found[key] = bin
	}
	return bin, err
}

func (b *Binaries) find(ctx context.Context, p wire.Platform, fetch bool) (*Binary, error) {
	var refused error
	if b.Self != "" && p.OS == runtime.GOOS && p.Arch == runtime.GOARCH {
		if refused = fitsLibc(b.Self, p); refused == nil {
			return openBinary(b.Self, b.Version)
		}
	}
	for _, path := range b.candidates(p) {
		version, err := CheckBuild(path, p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		return openBinary(path, version)
	}
	if !fetch {
		return nil, nil // the documented answer for "none here"
	}
	path, err := b.fetch(ctx, p)
	if err != nil {
		return nil, &NoBinaryError{Platform: p, Version: b.Version, Err: errors.Join(refused, err)}
	}
	return openBinary(path, b.Version)
}

// fits checks a binary found earlier for a machine of the same platform but
// perhaps another libc.
func (b *Binaries) fits(_ *Binary, p wire.Platform) error {
	if b.Self != "" && p.OS == runtime.GOOS && p.Arch == runtime.GOARCH {
		return fitsLibc(b.Self, p)
	}
	return nil
}

// NoBinaryError says that there is no rbee for a platform and how to get one.
type NoBinaryError struct {
	Platform wire.Platform
	Version  string
	Err      error // what was tried last
}

// Error names the command that builds what is missing.
func (e *NoBinaryError) Error() string {
	return fmt.Sprintf("no rbee for %s: %v; build one with `GOOS=%s GOARCH=%s CGO_ENABLED=0 go build -o dist/rbee-%s-%s .` and name its directory with --binaries",
		e.Platform.Key(), e.Err, e.Platform.OS, e.Platform.Arch, e.Platform.OS, e.Platform.Arch)
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *NoBinaryError) ErrorCode() string { return string(operations.ReasonNoBinary) }

// Unwrap gives what was tried last.
func (e *NoBinaryError) Unwrap() error { return e.Err }

func (b *Binaries) candidates(p wire.Platform) []string {
	name := fmt.Sprintf("rbee-%s-%s", p.OS, p.Arch)
	var paths []string
	if b.Dir != "" {
		paths = append(paths,
			filepath.Join(b.Dir, name),
			filepath.Join(b.Dir, p.OS+"-"+p.Arch, "rbee"),
			filepath.Join(b.Dir, p.OS+"_"+p.Arch, "rbee"))
	}
	if b.Cache != "" && b.Version != "" {
		paths = append(paths, filepath.Join(b.Cache, b.Version, name))
	}
	return paths
}

// CheckBuild returns an error unless a file is an rbee for the platform, by what the Go
// linker wrote into it. The version is the release that it was built as, such as "1.2.3";
// empty for a development build.
func CheckBuild(path string, p wire.Platform) (version string, err error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		return "", fmt.Errorf("%s is no Go program: %w", path, err)
	}
	if info.Path != mainPackage {
		return "", fmt.Errorf("%s is %s, not rbee", path, info.Path)
	}
	for _, s := range info.Settings {
		if (s.Key == "GOOS" && s.Value != p.OS) || (s.Key == "GOARCH" && s.Value != p.Arch) {
			return "", fmt.Errorf("%s is built with %s=%s, want %s", path, s.Key, s.Value, p.Key())
		}
	}
	if err := fitsLibc(path, p); err != nil {
		return "", err
	}
	return ReleaseVersion(info.Main.Version), nil
}

// DevVersion is the version of builds that the go command gives none.
const DevVersion = "0.1.0-dev"

// releasePattern is a version that a release is tagged with. The go command also
// records pseudo-versions, made of a date and a commit, which are none.
var releasePattern = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[a-z]+\.?[0-9]*)?$`)

// ReleaseVersion is the release that a Go module version names, without its v:
// "1.2.3" for "v1.2.3". It is empty for a development build, such as "(devel)"
// or a pseudo-version.
func ReleaseVersion(module string) string {
	if !releasePattern.MatchString(module) {
		return ""
	}
	return module[1:]
}

// fitsLibc refuses a binary that needs a dynamic linker which the machine may
// not have. A build with CGO_ENABLED=0 needs none.
func fitsLibc(path string, p wire.Platform) error {
	f, err := elf.Open(path)
	if err != nil {
		return nil // no ELF file: not a Linux program, and nothing to check
	}
	defer f.Close()
	dynamic := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if dynamic && p.Libc == "musl" {
		return fmt.Errorf("%s is linked against glibc, the machine has musl: build it with CGO_ENABLED=0", path)
	}
	return nil
}

func openBinary(path, version string) (*Binary, error) {
	sum, size, err := fetch.HashFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the rbee binary: %w", err)
	}
	return &Binary{
		Version: version, SHA256: sum, Size: size,
		Open: func() (io.ReadCloser, error) { return os.Open(path) },
	}, nil
}

// Bounds of what is downloaded of a release, in bytes.
const (
	maxSums   = 4 << 10
	maxBinary = 1 << 30
)

// fetch downloads a released binary into the cache and checks it against the
// checksum published beside it.
func (b *Binaries) fetch(ctx context.Context, p wire.Platform) (path string, err error) {
	switch {
	case b.Cache == "":
		return "", errors.New("there is no cache to fetch a release into")
	case b.Version == "" || strings.Contains(b.Version, "dev"):
		return "", fmt.Errorf("this is a development build (%q), which has no release to fetch", b.Version)
	}
	name := fmt.Sprintf("rbee-%s-%s", p.OS, p.Arch)
	base := b.ReleaseURL
	if base == "" {
		base = ReleaseURL
	}
	url := fmt.Sprintf("%s/v%s/%s", strings.TrimSuffix(base, "/"), strings.TrimPrefix(b.Version, "v"), name)
	from := &fetch.Client{HTTP: b.Client}
	sums, err := from.Text(ctx, url+".sha256", maxSums)
	if err != nil {
		return "", err
	}
	sum, _, _ := strings.Cut(strings.TrimSpace(sums), " ")
	if !wire.ValidSHA256(sum) {
		return "", fmt.Errorf("%s.sha256 holds no checksum", url)
	}
	path = filepath.Join(b.Cache, b.Version, name)
	return path, from.Download(ctx, fetch.File{URL: url, Sum: sum, Limit: maxBinary, Path: path, Mode: 0o755})
}
