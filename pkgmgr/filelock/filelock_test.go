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

// TestMain runs the tests. If RBEE_TEST_LOCK is set, it instead locks the file at that path,
// prints a line and waits until the test kills it, for at most a minute.
func TestMain(m *testing.M) {
	if path := os.Getenv("RBEE_TEST_LOCK"); path != "" {
		if _, err := filelock.Try(path, 0o700); err != nil {
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString("locked\n")
		<-time.After(time.Minute)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestTry(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "lock")
	l, err := filelock.Try(path, 0o750)
	if err != nil {
		t.Fatalf("Try() = %v, want no error", err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("Stat(directory) after Try() = %v, %v, want mode 750", info, err)
	}
	if _, err := filelock.Try(path, 0o750); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("Try() of a locked file = %v, want %v", err, filelock.ErrLocked)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close() = %v, want no error", err)
	}
	l, err = filelock.Try(path, 0o750)
	if err != nil {
		t.Fatalf("Try() after Close() = %v, want no error", err)
	}
	if err := l.Remove(); err != nil {
		t.Errorf("Remove() = %v, want no error", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat() after Remove() = %v, want %v", err, fs.ErrNotExist)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Try(path, 0o750); err == nil || errors.Is(err, filelock.ErrLocked) || filelock.Unsupported(err) {
		t.Errorf("Try() of a directory = %v, want an error that is neither %v nor about unsupported locks", err, filelock.ErrLocked)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := filelock.Try(path, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	if _, err := filelock.Wait(t.Context(), path, 0o700, 60*time.Millisecond, func() { calls++ }); !errors.Is(err, filelock.ErrLocked) || calls != 1 {
		t.Errorf("Wait(60 ms) = %v after %d calls of onWait, want %v and 1", err, calls, filelock.ErrLocked)
	}
	cause := errors.New("canceled by the test")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := filelock.Wait(ctx, path, 0o700, filelock.NoLimit, func() { cancel(cause) }); !errors.Is(err, cause) {
		t.Errorf("Wait() with a canceled context = %v, want %v", err, cause)
	}
	// The holder removes the file during Wait.
	go func() { _ = l.Remove() }()
	next, err := filelock.Wait(t.Context(), path, 0o700, filelock.NoLimit, nil)
	if err != nil {
		t.Fatalf("Wait() = %v, want no error", err)
	}
	if _, err := filelock.Try(path, 0o700); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("Try() after Wait() = %v, want %v", err, filelock.ErrLocked)
	}
	_ = next.Close()
}

// TestWaitReturnsSoon checks that Wait returns soon after a briefly held lock is released.
// Wait polls if the context can be canceled, and blocks in the kernel otherwise.
func TestWaitReturnsSoon(t *testing.T) {
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
					t.Fatalf("Try() = %v, want no error", err)
				}
				var released atomic.Int64
				time.AfterFunc(2*time.Millisecond, func() { released.Store(time.Now().UnixNano()); _ = l.Remove() })
				next, err := filelock.Wait(c.ctx, path, 0o700, filelock.NoLimit, nil)
				if err != nil {
					t.Fatalf("Wait() = %v, want no error", err)
				}
				total += time.Since(time.Unix(0, released.Load()))
				_ = next.Remove()
			}
			if limit := rounds * 20 * time.Millisecond; total > limit {
				t.Errorf("total delay of %d calls of Wait() after the release = %s, want at most %s", rounds, total, limit)
			}
		})
	}
}

// TestWaitWithoutCancellation checks that Wait with a context that cannot be canceled calls
// onWait, and that it returns a lock if the previous holder removes the file.
func TestWaitWithoutCancellation(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := filelock.Try(path, 0o700)
	if err != nil {
		t.Fatalf("Try() = %v, want no error", err)
	}
	calls := 0
	next, err := filelock.Wait(context.Background(), path, 0o700, filelock.NoLimit, func() {
		calls++
		time.AfterFunc(20*time.Millisecond, func() { _ = l.Remove() })
	})
	if err != nil || calls != 1 {
		t.Fatalf("Wait() = %v after %d calls of onWait, want nil and 1", err, calls)
	}
	if _, err := filelock.Try(path, 0o700); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("Try() after Wait() = %v, want %v", err, filelock.ErrLocked)
	}
	_ = next.Close()
}

// TestMutualExclusion locks and removes the same file from several goroutines.
func TestMutualExclusion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	var holders, maxHolders int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = context.Background() // makes Wait block in the kernel
			}
			for range 3 {
				l, err := filelock.Wait(ctx, path, 0o700, filelock.NoLimit, nil)
				if err != nil {
					t.Errorf("Wait() = %v, want no error", err)
					return
				}
				mu.Lock()
				holders++
				maxHolders = max(maxHolders, holders)
				mu.Unlock()
				<-time.After(time.Millisecond) // time for another process to violate the lock
				mu.Lock()
				holders--
				mu.Unlock()
				_ = l.Remove()
			}
		})
	}
	wg.Wait()
	if maxHolders != 1 {
		t.Errorf("maximum number of goroutines with the lock = %d, want 1", maxHolders)
	}
}

// TestKilledProcessReleasesLock kills a process that has locked a file.
func TestKilledProcessReleasesLock(t *testing.T) {
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
		t.Errorf("output of the other process = %q, %v, want %q", line, err, "locked\n")
	}
	if _, err := filelock.Try(path, 0o700); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("Try() of a file that another process has locked = %v, want %v", err, filelock.ErrLocked)
	}
	if !filelock.IsLocked(path) {
		t.Error("IsLocked() of a file that another process has locked = false, want true")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if filelock.IsLocked(path) {
		t.Error("IsLocked() after the other process was killed = true, want false")
	}
	missing := path + "-missing"
	if got, created := filelock.IsLocked(missing), fileExists(missing); got || created {
		t.Errorf("IsLocked() of a missing file = %t, file created = %t, want false and false", got, created)
	}
	l, err := filelock.Try(path, 0o700)
	if err != nil {
		t.Fatalf("Try() after the other process was killed = %v, want no error", err)
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
