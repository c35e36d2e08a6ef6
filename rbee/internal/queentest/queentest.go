// Package queentest runs the rbee program as a queen, with SSH hosts in the process of the
// test. The tests of commands and the nested module with tests of third-party clients use it.
package queentest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

// WithProgram builds rbee from the module in the directory root, prepends the directory of the
// program to PATH, and returns the result of run. TestMain functions call it, so that tests run
// the real program, built without the flags of the test.
func WithProgram(root string, run func() int) int {
	dir, err := os.MkdirTemp("", "rbee-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(dir, "rbee"), ".")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build rbee: %v\n%s", err, out)
		return 1
	}
	os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return run()
}

// SSHHost is an SSH server on 127.0.0.1.
type SSHHost interface {
	User() string
	Port() int
}

// HiveConfig returns the section of hives.conf for a host. workers is the content of the
// workers list in TOML.
func HiveConfig(alias string, h SSHHost, port int, workers string) string {
	return fmt.Sprintf("[[hive]]\nalias = %q\nhostname = \"127.0.0.1\"\nssh_user = %q\nssh_port = %d\nhive_port = %d\nworkers = [%s]\n\n",
		alias, h.User(), h.Port(), port, workers)
}

// Setup is a queen and its hosts.
type Setup struct {
	t     *testing.T
	log   *syncedBuffer
	Home  string          // the user's home directory
	Env   []string        // the environment of every program
	Hosts []*sshtest.Host // gpu-1, gpu-2, and so on
	URL   string          // URL of the queen
	Queen *exec.Cmd       // nil while the queen is not running
}

// syncedBuffer is a buffer that may be read while it is written.
type syncedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// New starts n hosts and writes a hives.conf with the given workers for each. The cleanup of
// the test stops the queen and uninstalls rbee from the hosts.
func New(t *testing.T, n int, workers string) *Setup {
	t.Helper()
	s := &Setup{t: t, Home: t.TempDir(), log: &syncedBuffer{}}
	s.Env = []string{"HOME=" + s.Home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	key, pem, err := sshtest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	knownHosts, conf := "", ""
	for i := range n {
		tools := t.TempDir()
		if err := os.WriteFile(filepath.Join(tools, "nvidia-smi"), []byte(fakeSMI), 0o700); err != nil {
			t.Fatal(err)
		}
		h, err := sshtest.New(sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}, Env: []string{
			"RBEE_SUPERVISOR=none", "PATH=" + tools + string(os.PathListSeparator) + os.Getenv("PATH"),
		}})
		if err != nil {
			t.Fatal(err)
		}
		port, err := freeport.Find(nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Hosts = append(s.Hosts, h)
		knownHosts += h.KnownHostsLines()
		conf += HiveConfig(fmt.Sprintf("gpu-%d", i+1), h, port, workers)
	}
	for name, text := range map[string]string{".ssh/id_ed25519": string(pem), ".ssh/known_hosts": knownHosts, ".config/rbee/hives.conf": conf} {
		s.WriteFile(name, text)
	}
	t.Cleanup(func() {
		s.Stop()
		for _, h := range s.Hosts {
			_ = h.Refuse(false)
		}
		s.Run("uninstall", "--yes")
		for _, h := range s.Hosts {
			h.Close()
		}
		if t.Failed() {
			t.Logf("log of the queen:\n%s", s.log)
		}
	})
	return s
}

// WriteFile writes a file below the home directory.
func (s *Setup) WriteFile(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.Home, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		s.t.Fatal(err)
	}
}

// Run runs an rbee command without the queen and returns its output.
func (s *Setup) Run(args ...string) string {
	s.t.Helper()
	cmd := exec.Command("rbee", args...)
	cmd.Env = s.Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Errorf("rbee %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Serve starts the queen and waits for its address.
func (s *Setup) Serve(args ...string) {
	s.t.Helper()
	s.Queen = exec.Command("rbee", append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	s.Queen.Env, s.Queen.Stderr = s.Env, s.log
	out, err := s.Queen.StdoutPipe()
	if err == nil {
		err = s.Queen.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.t.Fatalf("cannot read the address from the output of rbee serve: %v\n%s", err, s.log)
	}
	s.URL = strings.TrimSpace(line)
}

// Stop stops the queen if it is running.
func (s *Setup) Stop() {
	if s.Queen != nil {
		_ = s.Queen.Process.Signal(syscall.SIGTERM)
		_ = s.Queen.Wait()
		s.Queen = nil
	}
}

// WaitFleet returns the first snapshot of the fleet that satisfies a condition.
func (s *Setup) WaitFleet(condition func(operations.FleetSnapshot) bool) operations.FleetSnapshot {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+operations.FleetPath, http.NoBody)
	req.Header.Set("Accept", sse.ContentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var snapshot operations.FleetSnapshot
	events := sse.NewReader(resp.Body, 0)
	for {
		event, err := events.Next()
		if err != nil {
			s.t.Fatalf("WaitFleet(): %v; last snapshot: %+v", err, snapshot)
		}
		if event.Comment {
			continue
		}
		snapshot = operations.FleetSnapshot{}
		if err := json.Unmarshal(event.Data, &snapshot); err != nil {
			s.t.Fatal(err)
		}
		if condition(snapshot) {
			return snapshot
		}
	}
}

// PostChat sends a chat request for a model to the queen. The body of the returned response is
// closed.
func (s *Setup) PostChat(model string) *http.Response {
	s.t.Helper()
	body := fmt.Sprintf(`{"model": %q, "messages": [{"role": "user", "content": "sweet"}]}`, model)
	resp, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode == http.StatusOK && !strings.Contains(string(text), "sweet") {
		s.t.Errorf("chat with %s = %s, want a response with sweet", model, text)
	}
	return resp
}

// HiveLinked returns a condition for [Setup.WaitFleet] that the link to a hive has the given
// state.
func HiveLinked(alias string, link operations.Link) func(operations.FleetSnapshot) bool {
	return func(snapshot operations.FleetSnapshot) bool {
		for _, h := range snapshot.Hives {
			if h.Alias == alias {
				return h.Link == link
			}
		}
		return false
	}
}

// ReadyModels returns the sorted models of the workers that are ready.
func ReadyModels(snapshot operations.FleetSnapshot) (models []string) {
	for _, h := range snapshot.Hives {
		if h.Snapshot == nil {
			continue
		}
		for _, w := range h.Snapshot.Workers {
			if w.State == operations.WorkerReady {
				models = append(models, w.Model)
			}
		}
	}
	slices.Sort(models)
	return models
}

// fakeSMI is a fake nvidia-smi. It reports a GPU with 8 GiB of memory. Each ready worker uses
// 5 GiB.
const fakeSMI = `#!/bin/sh
n=$(grep -ls '"state": "ready"' "$HOME"/.local/share/rbee/run/workers/mine-*.json | wc -l)
case "$*" in
*--query-gpu=*) echo "0, GPU-1, Fake, 00000000:01:00.0, 8192, $((n * 5120)), $((8192 - n * 5120)), 580.65, 8.9, [N/A], 0, 40, 20.0" ;;
esac
`
