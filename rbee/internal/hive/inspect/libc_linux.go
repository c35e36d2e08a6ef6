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

// libc names the C library that this machine's own programs use, and its
// version. It reads files; only musl, which says its version nowhere else, is run.
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

// interpreter is the dynamic loader that an ELF program names; empty if none.
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

// glibcVersion takes the version from the file's real name (before 2.34) or from
// the banner inside it: "GNU C Library (…) stable release version 2.36."
func glibcVersion(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		if m := libcName.FindStringSubmatch(filepath.Base(resolved)); m != nil {
			return m[1]
		}
	}
	return string(digits.Find(readBanner(path)))
}

// readBanner is what follows "release version " in a file's banner. The file is
// read in pieces, each begun with the end of the one before: it is some
// megabytes, and a process this short should not wake the garbage collector.
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
		piece := buf[:kept+n]
		if _, banner, ok := bytes.Cut(piece, []byte("GNU C Library ")); ok {
			_, rest, whole := bytes.Cut(banner, []byte("release version "))
			if whole && len(rest) >= 16 || err != nil {
				return rest[:min(len(rest), 16)]
			}
		}
		if err != nil {
			return nil
		}
		kept = copy(buf, piece[max(0, len(piece)-overlap):])
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

// noexec is the path if programs on its disk may not be run; else empty.
func noexec(path string) string {
	if st, ok := home.Statfs(path); !ok || st.Flags&unix.ST_NOEXEC == 0 {
		return ""
	}
	return path
}
