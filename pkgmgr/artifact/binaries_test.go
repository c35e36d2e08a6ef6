package artifact_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

var localPlatform = wire.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH}

// buildRbee builds a minimal program whose build information has the module path of rbee.
func buildRbee(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	putFile(t, []byte("module github.com/rbee-keeper/rbee"+"\n\ngo 1.21\n"), dir, "go.mod")
	putFile(t, []byte("package main\n\nfunc main() {}\n"), dir, "main.go")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", "rbee", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off", "GOOS=", "GOARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "rbee"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func putFile(t *testing.T, data []byte, elem ...string) string {
	t.Helper()
	path := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBinariesSearchOrder adds a build to each location, in order of increasing priority, and
// checks that Binary returns it. The builds differ only in trailing bytes, which have no
// effect on a program.
func TestBinariesSearchOrder(t *testing.T) {
	t.Parallel()
	rbee := buildRbee(t)
	build := func(mark string) []byte { return append(rbee[:len(rbee):len(rbee)], mark...) }
	name := "rbee-" + localPlatform.OS + "-" + localPlatform.Arch
	dir, cache := t.TempDir(), t.TempDir()
	released, requests := build("released"), atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		switch r.URL.Path {
		case "/v1.2.3/" + name:
			_, _ = w.Write(released)
		case "/v1.2.3/" + name + ".sha256":
			_, _ = io.WriteString(w, hexSum(released)+"  "+name+"\n")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	find := func(self string, fetch bool) (string, *artifact.Binary) {
		t.Helper()
		b := &artifact.Binaries{Self: self, Version: "1.2.3", Dir: dir, Cache: cache, ReleaseURL: server.URL + "/"}
		found, err := b.Binary(t.Context(), localPlatform, fetch)
		if err != nil {
			t.Fatal(err)
		}
		if found == nil {
			return "none", nil
		}
		in, err := found.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		data, err := io.ReadAll(in)
		if err != nil || int64(len(data)) != found.Size || hexSum(data) != found.SHA256 {
			t.Errorf("content of the binary = %d bytes with SHA-256 %s, %v, want size and checksum of %+v", len(data), hexSum(data), err, found)
		}
		return string(data[len(rbee):]), found
	}
	expect := func(self string, fetch bool, want string) *artifact.Binary {
		t.Helper()
		got, found := find(self, fetch)
		if got != want {
			t.Errorf("Binary(fetch %t) finds the build %q, want %q", fetch, got, want)
		}
		return found
	}

	expect("", false, "none")
	expect("", true, "released")
	if info, err := os.Stat(filepath.Join(cache, "1.2.3", name)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("Stat() of the downloaded release in the cache = %v, %v, want mode 0755", info, err)
	}
	before := requests.Load()
	expect("", false, "released") // from the cache
	if got := requests.Load(); got != before {
		t.Errorf("Binary() of a cached release sends %d requests, want none", got-before)
	}
	for _, layout := range [][]string{{localPlatform.OS + "_" + localPlatform.Arch, "rbee"}, {localPlatform.OS + "-" + localPlatform.Arch, "rbee"}, {name}} {
		mark := strings.Join(layout, "/")
		putFile(t, build(mark), append([]string{dir}, layout...)...)
		if b := expect("", true, mark); b.Version != "" {
			t.Errorf("version of the build %s without a version = %q, want empty", mark, b.Version)
		}
	}
	self := putFile(t, build("self"), t.TempDir(), "rbee")
	if b := expect(self, true, "self"); b.Version != "1.2.3" {
		t.Errorf("version of the running program = %q, want 1.2.3", b.Version)
	}
	if got := requests.Load(); got != before {
		t.Errorf("Binary() of local builds sends %d requests, want none", got-before)
	}

	wrong := wire.Platform{OS: "freebsd", Arch: localPlatform.Arch}
	putFile(t, rbee, dir, "rbee-freebsd-"+localPlatform.Arch)
	_, err := (&artifact.Binaries{Self: self, Version: "1.2.3", Dir: dir}).Binary(t.Context(), wrong, true)
	if want := "is built with GOOS=" + localPlatform.OS + ", want freebsd/"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Binary(freebsd) of a build for %s = %v, want an error with %q", localPlatform.OS, err, want)
	}
}

func TestBinariesRejectOtherPrograms(t *testing.T) {
	t.Parallel()
	test, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name, dir := "rbee-"+localPlatform.OS+"-"+localPlatform.Arch, t.TempDir()
	if err := os.Symlink(test, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	text := t.TempDir()
	putFile(t, []byte("#!/bin/sh\n"), text, name)
	for d, want := range map[string]string{dir: "not rbee", text: "is not a Go program"} {
		if b, err := (&artifact.Binaries{Dir: d}).Binary(t.Context(), localPlatform, false); b != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Binary() of the program in %s = %+v, %v, want an error with %q", d, b, err, want)
		}
	}
}

func TestBinariesRelease(t *testing.T) {
	t.Parallel()
	body := "the release"
	for name, k := range map[string]struct {
		sums    string // content of the .sha256 file; empty if it does not exist
		version string
		cache   bool
		want    string
	}{
		"wrong checksum":    {hexSum([]byte("another")), "1.0", true, "its SHA-256 is " + hexSum([]byte(body))},
		"no checksum":       {"", "1.0", true, "404"},
		"invalid checksum":  {"not found", "1.0", true, "invalid checksum"},
		"endless checksum":  {strings.Repeat("a", 5000), "1.0", true, "larger than"},
		"development build": {hexSum([]byte(body)), "1.0-dev", true, "development build"},
		"no version":        {hexSum([]byte(body)), "", true, "development build"},
		"no cache":          {hexSum([]byte(body)), "1.0", false, "no cache"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !strings.HasSuffix(r.URL.Path, ".sha256"):
					_, _ = io.WriteString(w, body)
				case k.sums == "":
					http.NotFound(w, r)
				default:
					_, _ = io.WriteString(w, k.sums)
				}
			}))
			t.Cleanup(server.Close)
			cache := t.TempDir()
			b := &artifact.Binaries{Version: k.version, ReleaseURL: server.URL, Client: server.Client()}
			if k.cache {
				b.Cache = cache
			}
			found, err := b.Binary(t.Context(), wire.Platform{OS: "linux", Arch: "arm64"}, true)
			var missing *artifact.NoBinaryError
			if found != nil || !errors.As(err, &missing) || missing.Platform.Arch != "arm64" || missing.Version != k.version {
				t.Fatalf("Binary() = %+v, %v, want a NoBinaryError for arm64 and version %q", found, err, k.version)
			}
			for _, want := range []string{k.want, "GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build -o dist/rbee-linux-arm64 .", "--binaries"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Binary() = %v, want an error with %q", err, want)
				}
			}
			files, err := filepath.Glob(filepath.Join(cache, "*", "*"))
			if err != nil || len(files) != 0 {
				t.Errorf("files in the cache = %v, %v, want none", files, err)
			}
		})
	}
}

// TestBinariesLibc checks that Binary does not return a dynamically linked program for a
// machine with musl.
func TestBinariesLibc(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("requires Linux")
	}
	musl := localPlatform
	musl.Libc = "musl"
	for _, first := range []wire.Platform{localPlatform, musl} { // the first result must not affect the next one
		b := &artifact.Binaries{Self: "/bin/sh", Version: "1.0-dev"}
		_, _ = b.Binary(t.Context(), first, false)
		if _, err := b.Binary(t.Context(), musl, true); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") || !strings.Contains(err.Error(), "the machine has musl") {
			t.Errorf("Binary(musl) after Binary(%+v) = %v, want an error with %q and %q", first, err, "CGO_ENABLED=0", "the machine has musl")
		}
		if found, err := b.Binary(t.Context(), localPlatform, false); found == nil || err != nil {
			t.Errorf("Binary(%+v) after Binary(%+v) = %+v, %v, want a binary", localPlatform, first, found, err)
		}
	}
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
