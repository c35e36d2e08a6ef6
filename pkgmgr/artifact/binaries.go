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

// Binary is an rbee binary that can be installed on a machine.
type Binary struct {
	Version string
	SHA256  string // in hex
	Size    int64  // in bytes

	// Open opens the content of the binary. It can be called several times and is
	// safe for concurrent use.
	Open func() (io.ReadCloser, error)
}

// BinarySource finds the rbee binary for a platform.
type BinarySource interface {
	// Binary returns the binary for p. If fetch is false it searches only this
	// machine and returns nil, nil if it finds none. If fetch is true it may download
	// a release. It is safe for concurrent use.
	Binary(ctx context.Context, p wire.Platform, fetch bool) (*Binary, error)
}

// ReleaseURL is the base URL of released binaries. A binary is at
// v<version>/rbee-<os>-<arch> below it, and its checksum at the same path with the suffix
// .sha256.
const ReleaseURL = "https://github.com/rbee-keeper/rbee/releases/download"

// mainPackage is the path that the Go linker records in an rbee binary.
const mainPackage = "github.com/rbee-keeper/rbee"

// Binaries searches for rbee binaries in this order: the running program, a directory of
// builds, the cache, and the release URL. The zero value finds no binaries.
type Binaries struct {
	// Self is the path of an rbee binary for the platform of this machine, usually the
	// running program. It is empty if the running program is not rbee.
	Self string

	// Version is the version of Self and of the release to download.
	Version string

	// Dir is a directory of builds named rbee-<os>-<arch>, <os>-<arch>/rbee or
	// <os>_<arch>/rbee. Empty for none.
	Dir string

	// Cache is the directory for downloaded binaries. If it is empty, Binaries does
	// not download.
	Cache string

	// ReleaseURL overrides the constant [ReleaseURL] unless it is empty.
	ReleaseURL string

	// Client is the client for downloads; nil means [http.DefaultClient].
	Client *http.Client

	mu    sync.Mutex
	found map[string]*Binary // by [wire.Platform.Key]
}

// Binary implements [BinarySource].
func (b *Binaries) Binary(ctx context.Context, p wire.Platform, fetch bool) (*Binary, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := p.Key()
	if found, ok := b.found[key]; ok && b.checkSelf(p) == nil {
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
	var selfErr error
	if b.Self != "" && p.OS == runtime.GOOS && p.Arch == runtime.GOARCH {
		if selfErr = checkLibc(b.Self, p); selfErr == nil {
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
		return nil, nil // as BinarySource documents
	}
	path, err := b.fetch(ctx, p)
	if err != nil {
		return nil, &NoBinaryError{Platform: p, Version: b.Version, Err: errors.Join(selfErr, err)}
	}
	return openBinary(path, b.Version)
}

// checkSelf returns an error if b.Self has the OS and architecture of p but cannot run with
// the C library of p.
func (b *Binaries) checkSelf(p wire.Platform) error {
	if b.Self != "" && p.OS == runtime.GOOS && p.Arch == runtime.GOARCH {
		return checkLibc(b.Self, p)
	}
	return nil
}

// NoBinaryError reports that no rbee binary was found for a platform.
type NoBinaryError struct {
	Platform wire.Platform
	Version  string
	Err      error // of the download and, if it was rejected, of the running program
}

// Error returns a message that includes the command to build the missing binary.
func (e *NoBinaryError) Error() string {
	return fmt.Sprintf("cannot find an rbee binary for %s: %v; build one with `GOOS=%s GOARCH=%s CGO_ENABLED=0 go build -o dist/rbee-%s-%s .` and pass its directory with --binaries",
		e.Platform.Key(), e.Err, e.Platform.OS, e.Platform.Arch, e.Platform.OS, e.Platform.Arch)
}

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *NoBinaryError) ErrorCode() string { return string(operations.ReasonNoBinary) }

// Unwrap returns e.Err.
func (e *NoBinaryError) Unwrap() error { return e.Err }

// candidates returns the paths of possible binaries for p, in the order of the search.
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

// CheckBuild checks that the file at path is an rbee binary for p, using the build
// information that the Go linker embeds. It returns the release version of the binary, such
// as "1.2.3", or an empty string for a development build.
func CheckBuild(path string, p wire.Platform) (version string, err error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		return "", fmt.Errorf("%s is not a Go program: %w", path, err)
	}
	if info.Path != mainPackage {
		return "", fmt.Errorf("%s is %s, not rbee", path, info.Path)
	}
	for _, s := range info.Settings {
		if (s.Key == "GOOS" && s.Value != p.OS) || (s.Key == "GOARCH" && s.Value != p.Arch) {
			return "", fmt.Errorf("%s is built with %s=%s, want %s", path, s.Key, s.Value, p.Key())
		}
	}
	if err := checkLibc(path, p); err != nil {
		return "", err
	}
	return ReleaseVersion(info.Main.Version), nil
}

// DevVersion is the version of builds without a release version.
const DevVersion = "0.1.0-dev"

// releasePattern matches release tags, but not the pseudo-versions of the go command, which
// contain a date and a commit.
var releasePattern = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[a-z]+\.?[0-9]*)?$`)

// ReleaseVersion returns the release of a Go module version without its prefix v, such as
// "1.2.3" for "v1.2.3". It returns an empty string for a development build, such as
// "(devel)" or a pseudo-version.
func ReleaseVersion(module string) string {
	if !releasePattern.MatchString(module) {
		return ""
	}
	return module[1:]
}

// checkLibc returns an error if the binary at path is dynamically linked and the C library of
// p is musl. A build with CGO_ENABLED=0 is statically linked.
func checkLibc(path string, p wire.Platform) error {
	f, err := elf.Open(path)
	if err != nil {
		return nil // not an ELF file, so not a Linux program
	}
	defer f.Close()
	dynamic := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if dynamic && p.Libc == "musl" {
		return fmt.Errorf("%s is linked against glibc, but the machine has musl: build it with CGO_ENABLED=0", path)
	}
	return nil
}

func openBinary(path, version string) (*Binary, error) {
	sum, size, err := fetch.HashFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the rbee binary: %w", err)
	}
	return &Binary{
		Version: version, SHA256: sum, Size: size,
		Open: func() (io.ReadCloser, error) { return os.Open(path) },
	}, nil
}

// Maximum sizes of release files, in bytes.
const (
	maxChecksumSize = 4 << 10
	maxBinarySize   = 1 << 30
)

// fetch downloads a released binary into the cache and verifies its published checksum.
func (b *Binaries) fetch(ctx context.Context, p wire.Platform) (path string, err error) {
	switch {
	case b.Cache == "":
		return "", errors.New("cannot download a release: no cache directory")
	case b.Version == "" || strings.Contains(b.Version, "dev"):
		return "", fmt.Errorf("cannot download a release for development build %q", b.Version)
	}
	name := fmt.Sprintf("rbee-%s-%s", p.OS, p.Arch)
	base := b.ReleaseURL
	if base == "" {
		base = ReleaseURL
	}
	url := fmt.Sprintf("%s/v%s/%s", strings.TrimSuffix(base, "/"), strings.TrimPrefix(b.Version, "v"), name)
	client := &fetch.Client{HTTP: b.Client}
	text, err := client.Text(ctx, url+".sha256", maxChecksumSize)
	if err != nil {
		return "", err
	}
	sum, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	if !wire.ValidSHA256(sum) {
		return "", fmt.Errorf("invalid checksum in %s.sha256: want a SHA-256", url)
	}
	path = filepath.Join(b.Cache, b.Version, name)
	return path, client.Download(ctx, fetch.File{URL: url, Sum: sum, Limit: maxBinarySize, Path: path, Mode: 0o755})
}
