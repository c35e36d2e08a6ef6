package conform

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

func compress(data []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func put(ctx context.Context, m Machine, path string, mode os.FileMode, data []byte) error {
	return m.Host.Put(ctx, path, mode, bytes.NewReader(compress(data)), sha256.Sum256(data))
}

// wantFile checks the content and mode of a file, and that its directory has no temporary files.
func wantFile(t *testing.T, path string, mode os.FileMode, data []byte) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("ReadFile(%s) after Put() = %d bytes, error %v, want the %d bytes sent", path, len(got), err, len(data))
	}
	if info.Mode() != mode {
		t.Errorf("%s has mode %v after Put(), want %v", path, info.Mode(), mode)
	}
	wantNoTemp(t, filepath.Dir(path))
}

func tempFiles(dir string) []string {
	files, _ := filepath.Glob(filepath.Join(dir, ".*.tmp"))
	return files
}

func wantNoTemp(t *testing.T, dir string) {
	t.Helper()
	waitUntil(t, "no temporary files in "+dir, func() bool { return len(tempFiles(dir)) == 0 })
}

func testPut(t *testing.T, open Open) {
	m := open(t, Options{})
	big := pattern(3<<20 + 3)
	for _, c := range []struct {
		path string
		mode os.FileMode
		data []byte
	}{
		{"new/deep/er/file", 0o755, big},
		{"new/deep/er/file", 0o600, []byte("replaced")},
		{"empty", 0o644, nil},
		{filepath.Join(m.Home, "absolute"), 0o400, []byte("x")},
		{"~/tilde", 0o640, []byte("home")},
	} {
		if err := put(t.Context(), m, c.path, c.mode, c.data); err != nil {
			t.Fatal(err)
		}
		path := strings.TrimPrefix(c.path, "~/")
		if !filepath.IsAbs(path) {
			path = filepath.Join(m.Home, path)
		}
		wantFile(t, path, c.mode, c.data)
	}
	info, err := os.Stat(filepath.Join(m.Home, "new/deep"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("new directory has mode %v, error %v, want mode 0700", info.Mode(), err)
	}
	// Put replaces a symbolic link, not its target. It does not replace a directory.
	if err := os.Symlink("absolute", filepath.Join(m.Home, "link")); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), m, "link", 0o600, []byte("no link")); err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(m.Home, "link"), 0o600, []byte("no link"))
	wantFile(t, filepath.Join(m.Home, "absolute"), 0o400, []byte("x"))
	err = put(t.Context(), m, "new/deep", 0o600, []byte("x"))
	if err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("Put() over a directory returned %v, want an error about a directory", err)
	}
	for _, path := range []string{"", "/", "a/", "a/..", "a/.", "a\x00b"} {
		wantCode(t, fmt.Sprintf("Put(%q)", path), put(t.Context(), m, path, 0o600, nil), "failed")
	}
	if err := os.WriteFile(filepath.Join(m.Home, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), m, "file/below", 0o600, []byte("x")); err == nil {
		t.Error("Put() below a file returned no error, want one")
	}
}

func testPutPaths(t *testing.T, open Open) {
	m := open(t, Options{})
	for i, name := range []string{"it's", `a\\b\`, "$(id)`id`", "~", "!!", "a;b &|<>", "*?[a]{b,c}", "-rf", "a\nb", " ", "é\t", "#x"} {
		dir := fmt.Sprintf("d%d", i)
		if err := put(t.Context(), m, dir+"/"+name+"/"+name, 0o600, []byte(name)); err != nil {
			t.Errorf("Put(%q) = %v, want nil", name, err)
			continue
		}
		wantFile(t, filepath.Join(m.Home, dir)+"/"+name+"/"+name, 0o600, []byte(name))
	}
	long := strings.Repeat("n", 255)
	if err := put(t.Context(), m, long, 0o600, nil); err != nil {
		t.Errorf("Put() with a name of 255 bytes = %v, want nil", err)
	}
}

// testPutRunning replaces a running program, which is not possible by writing to the file.
func testPutRunning(t *testing.T, open Open) {
	m := open(t, Options{})
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), m, "prog", 0o755, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(m.Home, "prog"), "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	script := []byte("#!/bin/sh\necho new\n")
	if err := put(t.Context(), m, "prog", 0o755, script); err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(m.Home, "prog"), 0o755, script)
	var out bytes.Buffer
	if err := m.Host.Run(t.Context(), []string{"./prog"}, nil, &out, nil); err != nil || out.String() != "new\n" {
		t.Errorf("new program printed %q, error %v, want %q", out.String(), err, "new\n")
	}
}

// createOld creates the file dir/file. check verifies that it has not changed.
func createOld(t *testing.T, m Machine) (check func()) {
	t.Helper()
	if err := put(t.Context(), m, "dir/file", 0o640, []byte("old")); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		wantFile(t, filepath.Join(m.Home, "dir/file"), 0o640, []byte("old"))
	}
}

func testPutWrongChecksum(t *testing.T, open Open) {
	m := open(t, Options{})
	check := createOld(t, m)
	err := m.Host.Put(t.Context(), "dir/file", 0o755, bytes.NewReader(compress([]byte("new"))), [32]byte{1})
	if err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("Put() with a wrong checksum returned %v, want an error about sha256", err)
	}
	check()
}

func testPutBroken(t *testing.T, open Open) {
	m := open(t, Options{})
	check := createOld(t, m)
	data := pattern(1 << 20)
	gz := compress(data)
	sum := sha256.Sum256(data)
	err := m.Host.Put(t.Context(), "dir/file", 0o755, io.MultiReader(bytes.NewReader(gz[:len(gz)/2]), brokenReader{}), sum)
	if !errors.Is(err, errBroken) {
		t.Errorf("Put() with a failing reader returned %v, want %v", err, errBroken)
	}
	check()
	if err := m.Host.Put(t.Context(), "dir/file", 0o755, bytes.NewReader(gz[:len(gz)/2]), sum); err == nil {
		t.Error("Put() of truncated data returned no error, want one")
	}
	check()
	if err := m.Host.Put(t.Context(), "dir/file", 0o755, strings.NewReader("no gzip"), sum); err == nil {
		t.Error("Put() of uncompressed data returned no error, want one")
	}
	check()
}

// blockingReader reads data and then blocks until its context ends.
type blockingReader struct {
	ctx     context.Context
	data    io.Reader
	blocked chan struct{} // closed when all data was read
	once    sync.Once
}

func (r *blockingReader) Read(p []byte) (int, error) {
	if n, err := r.data.Read(p); err == nil {
		return n, nil
	}
	r.once.Do(func() { close(r.blocked) })
	<-r.ctx.Done()
	return 0, r.ctx.Err()
}

func testPutCancel(t *testing.T, open Open) {
	m := open(t, Options{})
	check := createOld(t, m)
	data := pattern(1 << 20)
	gz := compress(data)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := &blockingReader{ctx: ctx, data: bytes.NewReader(gz[:len(gz)/2]), blocked: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- m.Host.Put(ctx, "dir/file", 0o755, src, sha256.Sum256(data)) }()
	<-src.blocked
	waitUntil(t, "a temporary file", func() bool { return len(tempFiles(filepath.Join(m.Home, "dir"))) == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Put() with a canceled context returned %v, want %v", err, context.Canceled)
	}
	check()
}

func testPutCut(t *testing.T, open Open) {
	m := open(t, Options{})
	if m.CutAfter == nil {
		return // no connection
	}
	check := createOld(t, m)
	m.CutAfter(1 << 20)
	err := put(t.Context(), m, "dir/file", 0o755, pattern(3<<20))
	wantCode(t, "Put() on a lost connection", err, "lost")
	check()
	wantCode(t, "Run() on a lost connection", m.Host.Run(t.Context(), []string{"true"}, nil, nil, nil), "lost")
	// The process on the machine exits later and then removes the temporary file.
	waitUntil(t, "the temporary file was removed after the connection was lost", func() bool {
		files, err := os.ReadDir(filepath.Join(m.Home, "dir"))
		return err == nil && len(files) == 1
	})
}

func testPutTools(t *testing.T, open Open) {
	for name, extra := range map[string][]string{"no gzip": {"sha256sum"}, "no checksum tool": {"gzip"}, "no gzip, no checksum tool": nil} {
		t.Run(name, func(t *testing.T) {
			path, err := sshtest.Tools(t.TempDir(), extra...)
			if err != nil {
				t.Fatal(err)
			}
			m := open(t, Options{Path: path})
			check := createOld(t, m)
			for _, size := range []int{0, 1, 300_005} {
				data := pattern(size)
				if err := put(t.Context(), m, "dir/new", 0o750, data); err != nil {
					t.Fatal(err)
				}
				wantFile(t, filepath.Join(m.Home, "dir/new"), 0o750, data)
			}
			err = m.Host.Put(t.Context(), "dir/file", 0o755, bytes.NewReader(compress([]byte("new"))), [32]byte{1})
			if err == nil || !strings.Contains(err.Error(), "sha256") {
				t.Errorf("Put() with a wrong checksum returned %v, want an error about sha256", err)
			}
			check()
		})
	}
}

func testPutChecksumTools(t *testing.T, open Open) {
	for name, extra := range map[string][]string{"sha256sum": nil, "openssl": nil, "shasum": {"perl"}} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				return // not installed
			}
			path, err := sshtest.Tools(t.TempDir(), append(extra, name, "gzip")...)
			if err != nil {
				t.Fatal(err)
			}
			m := open(t, Options{Path: path})
			check := createOld(t, m)
			err = m.Host.Put(t.Context(), "dir/file", 0o755, bytes.NewReader(compress([]byte("new"))), [32]byte{1})
			if err == nil || !strings.Contains(err.Error(), "sha256") {
				t.Errorf("Put() with a wrong checksum returned %v, want an error about sha256", err)
			}
			check()
		})
	}
}

// testPutFull simulates a full disk with a limit on the size of files.
func testPutFull(t *testing.T, open Open) {
	shell := filepath.Join(t.TempDir(), "limited")
	text := "#!/bin/sh\ntrap '' XFSZ\nulimit -f 600\nexec /bin/sh \"$@\"\n"
	if err := os.WriteFile(shell, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	m := open(t, Options{Shell: shell})
	if m.CutAfter == nil {
		return // no login shell
	}
	check := createOld(t, m)
	err := put(t.Context(), m, "dir/file", 0o755, pattern(1<<20))
	wantCode(t, "Put() on a full disk", err, "failed")
	if !strings.Contains(strings.ToLower(err.Error()), "file too large") {
		t.Errorf("Put() returned error %q, want the message of the tool", err)
	}
	check()
}

func testPutConcurrent(t *testing.T, open Open) {
	m := open(t, Options{})
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			if err := put(t.Context(), m, "same/file", 0o644, bytes.Repeat([]byte{byte(i)}, 100000)); err != nil {
				t.Errorf("concurrent Put() = %v, want nil", err)
			}
		})
	}
	all.Wait()
	got, err := os.ReadFile(filepath.Join(m.Home, "same/file"))
	if err != nil || len(got) != 100000 || len(bytes.Trim(got, string(got[:1]))) != 0 {
		t.Errorf("file has %d bytes, error %v after concurrent Put() calls, want the content of one call", len(got), err)
	}
	wantNoTemp(t, filepath.Join(m.Home, "same"))
}
