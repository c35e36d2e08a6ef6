package inspect

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"golang.org/x/sys/unix"
)

// libc returns the name and the version of the C library of this machine. It reads the
// version of glibc from a file, and runs the loader of musl to get its version.
func libc(ctx context.Context) (name, version string) {
	loader := interpreter("/bin/sh")
	if strings.Contains(filepath.Base(loader), "ld-musl-") {
		return "musl", muslVersion(ctx, loader)
	}
	dirs := []string{filepath.Dir(loader), "/lib/*-linux-gnu*", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	for _, dir := range dirs {
		found, _ := filepath.Glob(filepath.Join(dir, "libc.so.6"))
		for _, path := range found {
			return "glibc", glibcVersion(path)
		}
	}
	if musl, _ := filepath.Glob("/lib/ld-musl-*.so.1"); len(musl) > 0 {
		return "musl", muslVersion(ctx, musl[0])
	}
	return "", ""
}

// interpreter returns the path of the dynamic loader of an ELF program; empty if it has
// none.
func interpreter(program string) string {
	f, err := elf.Open(program)
	if err != nil {
		return ""
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err == nil {
			return string(bytes.TrimRight(name, "\x00"))
		}
	}
	return ""
}

var (
	libcName        = regexp.MustCompile(`^libc-(\d+\.\d+[\d.]*)\.so$`)
	muslVersionLine = regexp.MustCompile(`(?m)^Version (\d+\.\d+[\d.]*)`)
	digits          = regexp.MustCompile(`^\d+\.\d+`)
)

// glibcVersion returns the version of glibc, from the target of the link libc.so.6 (before
// 2.34) or from the banner in the file: "GNU C Library (…) stable release version 2.36."
func glibcVersion(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		if m := libcName.FindStringSubmatch(filepath.Base(resolved)); m != nil {
			return m[1]
		}
	}
	return string(digits.Find(readBanner(path)))
}

// readBanner returns the bytes that follow "release version " in the banner of a file. It
// reads the file in overlapping chunks to use less memory than the file, which has a few
// MiB.
func readBanner(path string) []byte {
	const overlap = 512
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for kept := 0; ; {
		n, err := f.Read(buf[kept:])
		chunk := buf[:kept+n]
		if _, banner, ok := bytes.Cut(chunk, []byte("GNU C Library ")); ok {
			_, rest, complete := bytes.Cut(banner, []byte("release version "))
			if complete && len(rest) >= 16 || err != nil {
				return rest[:min(len(rest), 16)]
			}
		}
		if err != nil {
			return nil
		}
		kept = copy(buf, chunk[max(0, len(chunk)-overlap):])
	}
}

func muslVersion(ctx context.Context, loader string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, loader).CombinedOutput()
	if m := muslVersionLine.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return ""
}

// noexec returns path if its filesystem is mounted noexec; otherwise it returns "".
func noexec(path string) string {
	if st, ok := home.Statfs(path); !ok || st.Flags&unix.ST_NOEXEC == 0 {
		return ""
	}
	return path
}
