package cli_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

var libraryExample = regexp.MustCompile("(?s)```go\n(package main\n.*?)```")

// TestLibraryExample builds the program in the README in a separate module and runs it
// against an SSH host. It installs rbee and a worker; the second run changes nothing.
func TestLibraryExample(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	example := libraryExample.FindSubmatch(readme)
	if example == nil {
		t.Fatal("README.md contains no Go program")
	}

	dir, dist, home := t.TempDir(), t.TempDir(), homeDir(t)
	key, pem, err := sshtest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	host, err := sshtest.New(sshtest.Options{Home: homeDir(t), AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	mod := "module example.com/fleet\n\ngo 1.26.0\n\nrequire github.com/rbee-keeper/rbee v0.0.0\n\nreplace github.com/rbee-keeper/rbee => " + root + "\n"
	conf := queentest.HiveConfig("gpu-1", host, unusedPort(t), `{ type = "echo" }`)
	write := func(name, content string) error {
		return errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(content), 0o600))
	}
	if err := errors.Join(
		write(filepath.Join(dir, "main.go"), string(example[1])), write(filepath.Join(dir, "go.mod"), mod), write(filepath.Join(dir, "go.sum"), string(sums)),
		write(filepath.Join(dir, "hives.conf"), conf),
		write(filepath.Join(home, ".ssh/id_ed25519"), string(pem)), write(filepath.Join(home, ".ssh/known_hosts"), host.KnownHostsLines()),
	); err != nil {
		t.Fatal(err)
	}

	build := func(dir, out, pkg string) {
		t.Helper()
		cmd := exec.Command("go", "build", "-mod=mod", "-o", out, pkg)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOPROXY=off", "GOWORK=off")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", pkg, err, text)
		}
	}
	build(root, filepath.Join(dist, "rbee-"+runtime.GOOS+"-"+runtime.GOARCH), ".")
	program := filepath.Join(dir, "fleet")
	build(dir, program, ".")
	start := func(env ...string) (string, error) {
		cmd := exec.Command(program)
		cmd.Dir = dir
		cmd.Env = append([]string{"HOME=" + home}, env...)
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	run := func() string {
		t.Helper()
		text, err := start("PATH="+os.Getenv("PATH"), "RBEE_BINARIES="+dist)
		if err != nil {
			t.Fatalf("cannot run the program of the README: %v\n%s", err, text)
		}
		return text
	}
	t.Cleanup(func() {
		stop := exec.Command(filepath.Join(dist, "rbee-"+runtime.GOOS+"-"+runtime.GOARCH), "uninstall", "--yes", "--config", filepath.Join(dir, "hives.conf"))
		stop.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
		if text, err := stop.CombinedOutput(); err != nil {
			t.Errorf("rbee uninstall exits with %v, want success:\n%s", err, text)
		}
	})
	// Run the program without builds of rbee, and with another program named rbee in PATH.
	if err := errors.Join(write(filepath.Join(dir, "bin/rbee"), "#!/bin/sh\n"), os.Chmod(filepath.Join(dir, "bin/rbee"), 0o700)); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	text, err := start("PATH=" + filepath.Join(dir, "bin"))
	if !errors.As(err, &exit) || strings.Count(text, "hive gpu-1: cannot find an rbee binary for ") != 1 || !strings.Contains(text, "gpu-1 not_installed\n") {
		t.Errorf("without builds of rbee, the program exits with %v and prints\n%s\nwant a failure and its reason", err, text)
	}
	first := run()
	for _, want := range []string{"gpu-1: install_hive 0.1.0-dev: done", "gpu-1: install_worker echo 0.1.0-dev: done", "gpu-1: start_hive: done", "gpu-1 installed\n"} {
		if !strings.Contains(first, want) {
			t.Errorf("first run prints\n%s\nwant %q in it", first, want)
		}
	}
	if second := run(); !strings.Contains(second, "gpu-1 already_installed\n") {
		t.Errorf("second run prints\n%s\nwant already_installed", second)
	}
	if _, err := os.Stat(filepath.Join(home, ".local/state/rbee/fleet.json")); err != nil {
		t.Errorf("Stat() of the record of hives = %v, want a file", err)
	}
}
