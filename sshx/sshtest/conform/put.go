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
	"time"

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

// wantFile checks a file's content and mode, and that no temporary file lies beside it.
func wantFile(t *testing.T, path string, mode os.FileMode, data []byte) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s: %d bytes instead of %d, or other ones (%v)", path, len(got), len(data), err)
	}
	if info.Mode() != mode {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
	}
	wantNoTemp(t, filepath.Dir(path))
}

func tempFiles(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, ".*.tmp"))
	return found
}

func wantNoTemp(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "the end of temporary files in "+dir, func() bool { return len(tempFiles(dir)) == 0 })
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
		t.Errorf("new folder: %v, %v", info.Mode(), err)
	}
	// A link is replaced, what it points to is left alone; a folder is never written into.
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
		t.Errorf("put over a folder: %v", err)
	}
	for _, path := range []string{"", "/", "a/", "a/..", "a/.", "a\x00b"} {
		wantCode(t, put(t.Context(), m, path, 0o600, nil), "failed")
	}
	if err := os.WriteFile(filepath.Join(m.Home, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), m, "file/below", 0o600, []byte("x")); err == nil {
		t.Error("put below a file worked")
	}
}

func testPutPaths(t *testing.T, open Open) {
	m := open(t, Options{})
	for i, name := range []string{"it's", `a\\b\`, "$(id)`id`", "~", "!!", "a;b &|<>", "*?[a]{b,c}", "-rf", "a\nb", " ", "é\t", "#x"} {
		dir := fmt.Sprintf("d%d", i)
		if err := put(t.Context(), m, dir+"/"+name+"/"+name, 0o600, []byte(name)); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		wantFile(t, filepath.Join(m.Home, dir)+"/"+name+"/"+name, 0o600, []byte(name))
	}
	long := strings.Repeat("n", 255)
	if err := put(t.Context(), m, long, 0o600, nil); err != nil {
		t.Errorf("name of 255 bytes: %v", err)
	}
}

// testPutRunning replaces a program while it runs, which writing in place could not.
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
		t.Errorf("%q, %v", out.String(), err)
	}
}

// withOld makes a machine with a file that must stay as it is.
func withOld(t *testing.T, m Machine) (check func()) {
	t.Helper()
	if err := put(t.Context(), m, "dir/file", 0o640, []byte("old")); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		wantFile(t, filepath.Join(m.Home, "dir/file"), 0o640, []byte("old"))
	}
}

func testPutWrongSum(t *testing.T, open Open) {
	m := open(t, Options{})
	check := withOld(t, m)
	err := m.Host.Put(t.Context(), "dir/file", 0o755, bytes.NewReader(compress([]byte("new"))), [32]byte{1})
	if err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("error %v", err)
	}
	check()
}

func testPutBroken(t *testing.T, open Open) {
	m := open(t, Options{})
	check := withOld(t, m)
	data := pattern(1 << 20)
	gz := compress(data)
	sum := sha256.Sum256(data)
	err := m.Host.Put(t.Context(), "dir/file", 0o755, io.MultiReader(bytes.NewReader(gz[:len(gz)/2]), brokenReader{}), sum)
	if !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	check()
	if err := m.Host.Put(t.Context(), "dir/file", 0o755, bytes.NewReader(gz[:len(gz)/2]), sum); err == nil {
		t.Error("half a file was taken")
	}
	check()
	if err := m.Host.Put(t.Context(), "dir/file", 0o755, strings.NewReader("no gzip"), sum); err == nil {
		t.Error("something that is not compressed was taken")
	}
	check()
}

// endless gives the first half of a file and then nothing, until its context ends.
type endless struct {
	ctx     context.Context
	data    io.Reader
	reached chan struct{}
	once    sync.Once
}

func (e *endless) Read(p []byte) (int, error) {
	if n, err := e.data.Read(p); err == nil {
		return n, nil
	}
	e.once.Do(func() { close(e.reached) })
	<-e.ctx.Done()
	return 0, e.ctx.Err()
}

func testPutCancel(t *testing.T, open Open) {
	m := open(t, Options{})
	check := withOld(t, m)
	data := pattern(1 << 20)
	gz := compress(data)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := &endless{ctx: ctx, data: bytes.NewReader(gz[:len(gz)/2]), reached: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- m.Host.Put(ctx, "dir/file", 0o755, src, sha256.Sum256(data)) }()
	<-src.reached
	eventually(t, "a temporary file", func() bool { return len(tempFiles(filepath.Join(m.Home, "dir"))) == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	check()
}

func testPutCut(t *testing.T, open Open) {
	m := open(t, Options{})
	if m.CutAfter == nil {
		return // there is no line
	}
	check := withOld(t, m)
	m.CutAfter(1 << 20)
	err := put(t.Context(), m, "dir/file", 0o755, pattern(3<<20))
	wantCode(t, err, "lost")
	check()
	wantCode(t, m.Host.Run(t.Context(), []string{"true"}, nil, nil, nil), "lost")
	// The machine's own process ends later, and removes what it has written by then.
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left, err := os.ReadDir(filepath.Join(m.Home, "dir")); err == nil && len(left) == 1 {
			return
		}
	}
	t.Error("the machine still has what came before the line was cut")
}

func testPutTools(t *testing.T, open Open) {
	for name, extra := range map[string][]string{"no gzip": {"sha256sum"}, "no sum": {"gzip"}, "neither": nil} {
		t.Run(name, func(t *testing.T) {
			path, err := sshtest.Tools(t.TempDir(), extra...)
			if err != nil {
				t.Fatal(err)
			}
			m := open(t, Options{Path: path})
			check := withOld(t, m)
			for _, size := range []int{0, 1, 300_005} {
				data := pattern(size)
				if err := put(t.Context(), m, "dir/new", 0o750, data); err != nil {
					t.Fatal(err)
				}
				wantFile(t, filepath.Join(m.Home, "dir/new"), 0o750, data)
			}
			err = m.Host.Put(t.Context(), "dir/file", 0o755, bytes.NewReader(compress([]byte("new"))), [32]byte{1})
			if err == nil || !strings.Contains(err.Error(), "sha256") {
				t.Errorf("wrong sum: %v", err)
			}
			check()
		})
	}
}

func testPutSumTools(t *testing.T, open Open) {
	for name, extra := range map[string][]string{"sha256sum": nil, "openssl": nil, "shasum": {"perl"}} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				return // this machine does not have it
			}
			path, err := sshtest.Tools(t.TempDir(), append(extra, name, "gzip")...)
			if err != nil {
				t.Fatal(err)
			}
			m := open(t, Options{Path: path})
			check := withOld(t, m)
			err = m.Host.Put(t.Context(), "dir/file", 0o755, bytes.NewReader(compress([]byte("new"))), [32]byte{1})
			if err == nil || !strings.Contains(err.Error(), "sha256") {
				t.Errorf("wrong sum: %v", err)
			}
			check()
		})
	}
}

// testPutFull runs out of room in the middle: by a limit on the size of files, which any user can set.
func testPutFull(t *testing.T, open Open) {
	shell := filepath.Join(t.TempDir(), "limited")
	text := "#!/bin/sh\ntrap '' XFSZ\nulimit -f 600\nexec /bin/sh \"$@\"\n"
	if err := os.WriteFile(shell, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	m := open(t, Options{Shell: shell})
	if m.CutAfter == nil {
		return // no login, so no login shell
	}
	check := withOld(t, m)
	err := put(t.Context(), m, "dir/file", 0o755, pattern(1<<20))
	wantCode(t, err, "failed")
	if !strings.Contains(strings.ToLower(err.Error()), "file too large") {
		t.Errorf("error %q does not carry the tool's words", err)
	}
	check()
}

func testPutMany(t *testing.T, open Open) {
	m := open(t, Options{})
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			if err := put(t.Context(), m, "same/file", 0o644, bytes.Repeat([]byte{byte(i)}, 100000)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := os.ReadFile(filepath.Join(m.Home, "same/file"))
	if err != nil || len(got) != 100000 || len(bytes.Trim(got, string(got[:1]))) != 0 {
		t.Errorf("the file is a mixture: %d bytes, %v", len(got), err)
	}
	wantNoTemp(t, filepath.Join(m.Home, "same"))
}
