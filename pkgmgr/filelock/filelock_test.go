package filelock_test

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
)

// TestMain plays another process: with RBEE_TEST_LOCK it locks that file, prints a line
// and waits.
func TestMain(m *testing.M) {
	if path := os.Getenv("RBEE_TEST_LOCK"); path != "" {
		if _, err := filelock.Try(path, 0o700); err != nil {
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString("locked\n")
		time.Sleep(time.Minute)
	}
	os.Exit(m.Run())
}

func TestTry(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "lock")
	l, err := filelock.Try(path, 0o750)
	if err != nil {
		t.Fatalf("Try() = %v", err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the directory has mode %v, %v", info.Mode(), err)
	}
	if _, err := filelock.Try(path, 0o750); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("Try() of a locked file = %v, want ErrHeld", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	l, err = filelock.Try(path, 0o750)
	if err != nil {
		t.Fatalf("Try() after Close() = %v", err)
	}
	if err := l.Remove(); err != nil {
		t.Errorf("Remove() = %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat() after Remove() = %v", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Try(path, 0o750); err == nil || errors.Is(err, filelock.ErrHeld) || filelock.Unsupported(err) {
		t.Errorf("Try() of a directory = %v", err)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := filelock.Try(path, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	waited := 0
	if _, err := filelock.Wait(t.Context(), path, 0o700, 60*time.Millisecond, func() { waited++ }); !errors.Is(err, filelock.ErrHeld) || waited != 1 {
		t.Errorf("Wait(60 ms) = %v after %d calls of waiting, want ErrHeld and 1", err, waited)
	}
	cause := errors.New("no more")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := filelock.Wait(ctx, path, 0o700, filelock.NoLimit, func() { cancel(cause) }); !errors.Is(err, cause) {
		t.Errorf("Wait() with a canceled context = %v, want its cause", err)
	}
	// The file that a waiter tries is removed and made again.
	go func() { _ = l.Remove() }()
	next, err := filelock.Wait(t.Context(), path, 0o700, filelock.NoLimit, nil)
	if err != nil {
		t.Fatalf("Wait() = %v", err)
	}
	if _, err := filelock.Try(path, 0o700); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("Try() of the file that a waiter locked = %v, want ErrHeld", err)
	}
	_ = next.Close()
}

// TestWaitIsShort checks that a waiter gets a lock that is held for a moment soon after it
// is released: by polling where the wait can be canceled, else by the kernel.
func TestWaitIsShort(t *testing.T) {
	t.Parallel()
	const rounds = 20
	for _, c := range []struct {
		name string
		ctx  context.Context
	}{{"cancelable", t.Context()}, {"not cancelable", context.Background()}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "lock")
			var total time.Duration
			for range rounds {
				l, err := filelock.Try(path, 0o700)
				if err != nil {
					t.Fatalf("Try() = %v", err)
				}
				var released atomic.Int64
				time.AfterFunc(2*time.Millisecond, func() { released.Store(time.Now().UnixNano()); _ = l.Remove() })
				next, err := filelock.Wait(c.ctx, path, 0o700, filelock.NoLimit, nil)
				if err != nil {
					t.Fatalf("Wait() = %v", err)
				}
				total += time.Since(time.Unix(0, released.Load()))
				_ = next.Remove()
			}
			if most := rounds * 20 * time.Millisecond; total > most {
				t.Errorf("%d waits took %s longer than the lock was held, want at most %s", rounds, total, most)
			}
		})
	}
}

// TestWaitBlocks checks that a wait that nothing can cancel reports that it waits, and
// gets a lock whose file its holder removes.
func TestWaitBlocks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := filelock.Try(path, 0o700)
	if err != nil {
		t.Fatalf("Try() = %v", err)
	}
	waited := 0
	next, err := filelock.Wait(context.Background(), path, 0o700, filelock.NoLimit, func() {
		waited++
		time.AfterFunc(20*time.Millisecond, func() { _ = l.Remove() })
	})
	if err != nil || waited != 1 {
		t.Fatalf("Wait() = %v after %d calls of waiting, want nil and 1", err, waited)
	}
	if _, err := filelock.Try(path, 0o700); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("Try() of the file that a waiter locked = %v, want ErrHeld", err)
	}
	_ = next.Close()
}

// TestOneAtATime makes many goroutines lock and remove the same file.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	var inside, most int
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = context.Background() // waits in the kernel
			}
			for range 3 {
				l, err := filelock.Wait(ctx, path, 0o700, filelock.NoLimit, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inside++
				most = max(most, inside)
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				inside--
				mu.Unlock()
				_ = l.Remove()
			}
		})
	}
	all.Wait()
	if most != 1 {
		t.Errorf("%d had the lock at the same time", most)
	}
}

// TestKilledProcess kills a process that has locked a file.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "RBEE_TEST_LOCK="+path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "locked\n" {
		t.Errorf("the other process printed %q, %v", line, err)
	}
	if _, err := filelock.Try(path, 0o700); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("Try() of a file that another process has locked = %v, want ErrHeld", err)
	}
	if !filelock.Held(path) {
		t.Error("Held() of a file that another process has locked = false")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if filelock.Held(path) {
		t.Error("Held() after the other process was killed = true")
	}
	if missing := path + "-missing"; filelock.Held(missing) || fileExists(missing) {
		t.Error("Held() of a missing file = true, or it was created")
	}
	l, err := filelock.Try(path, 0o700)
	if err != nil {
		t.Fatalf("Try() after the other process was killed = %v", err)
	}
	_ = l.Close()
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestUnsupported(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		nil: false, syscall.ENOLCK: true, syscall.ENOTSUP: true, syscall.ENOSYS: true, syscall.EIO: false,
		&fs.PathError{Op: "flock", Path: "/f", Err: syscall.ENOLCK}: true,
	} {
		if got := filelock.Unsupported(err); got != want {
			t.Errorf("Unsupported(%v) = %v, want %v", err, got, want)
		}
	}
}
