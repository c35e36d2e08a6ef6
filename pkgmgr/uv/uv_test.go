package uv

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
)

// TestErrorCause checks the causes of real outputs. The outputs that start with × are from
// uv 0.8, the others from uv 0.13.9, shortened.
func TestErrorCause(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		output     string
		want       string
		noSolution bool
	}{
		"dependency without a wheel": {`warning: The requested Python version 3.12 is not available; 3.11.7 will be used to build dependencies instead.
error: No solution found when resolving dependencies
  cause: Because llguidance{platform_machine == 'aarch64' or platform_machine == 'x86_64'}>=1.7.0,<=1.7.6 has no usable wheels and only the following versions of llguidance{platform_machine == 'aarch64' or platform_machine == 'x86_64'} are available:
             llguidance{platform_machine == 'aarch64' or platform_machine == 'x86_64'}<=1.7.6
             llguidance{platform_machine == 'aarch64' or platform_machine == 'x86_64'}>=1.8.0
         we can conclude that llguidance{platform_machine == 'aarch64' or platform_machine == 'x86_64'}>=1.7.0,<1.8.0 cannot be used.
         And because vllm>=0.33.0 depends on llguidance{platform_machine == 'aarch64' or platform_machine == 'x86_64'}>=1.7.0,<1.8.0 and you require vllm==0.33.0, we can conclude that your requirements are unsatisfiable.

hint: Wheels are required for ` + "`llguidance`" + ` because building from source is disabled for all packages (i.e., with ` + "`--no-build`" + `)
`, "llguidance>=1.7.0,<=1.7.6 has no usable wheels", true},
		"wheel for another platform": {"error: No solution found when resolving dependencies\n  cause: Because sglang==0.5.23 has no wheels with a matching platform tag (e.g., `manylinux_2_28_x86_64`) and you require sglang==0.5.23, we can conclude that your requirements are unsatisfiable.\n\nhint: Wheels are available for `sglang` (v0.5.23) on the following platforms: `manylinux_2_34_aarch64`, `manylinux_2_34_x86_64`\n",
			"sglang==0.5.23 has no wheels with a matching platform tag (e.g., manylinux_2_28_x86_64); wheels exist for sglang (v0.5.23) on manylinux_2_34_aarch64, manylinux_2_34_x86_64", true},
		"unknown package": {"error: No solution found when resolving dependencies\n  cause: Because nosuchpackagexyz was not found in the package registry and you require nosuchpackagexyz, we can conclude that your requirements are unsatisfiable.\n",
			"nosuchpackagexyz was not found in the package registry", true},
		"unknown version": {"error: No solution found when resolving dependencies\n  cause: Because only requests<=2.34.2 is available and you require requests>=999, we can conclude that your requirements are unsatisfiable.\n",
			"only requests<=2.34.2 is available", true},
		"tree format of earlier versions": {"  × No solution found when resolving dependencies:\n  ╰─▶ Because wax was not found in the package registry and you require\n      wax, we can conclude that your requirements are unsatisfiable.\n",
			"wax was not found in the package registry", true},
		"missing credentials": {"error: No solution found when resolving dependencies\n  cause: Because requests was not found in the package registry and you require requests, we can conclude that your requirements are unsatisfiable.\n\nhint: An index URL (http://127.0.0.1:9831/simple) could not be queried due to a lack of valid authentication credentials (401 Unauthorized)\n",
			"An index URL (http://127.0.0.1:9831/simple) could not be queried due to a lack of valid authentication credentials (401 Unauthorized)", false},
		"forbidden": {"error: No solution found when resolving dependencies\n  cause: Because requests was not found in the package registry and you require requests, we can conclude that your requirements are unsatisfiable.\n\nhint: An index (http://127.0.0.1:9831/simple) returned a 403 Forbidden error. Check that the index URL is correct and the credentials are valid.\n",
			"An index (http://127.0.0.1:9831/simple) returned a 403 Forbidden error. Check that the index URL is correct and the credentials are valid", false},
		"connection refused": {"error: Request failed after 3 retries in 6.8s\n  cause: Failed to fetch: http://127.0.0.1:9/simple/requests/\n  cause: error sending request for url (http://127.0.0.1:9/simple/requests/)\n  cause: client error (Connect)\n  cause: tcp connect error\n  cause: Connection refused (os error 111)\n",
			"Connection refused (os error 111): Failed to fetch: http://127.0.0.1:9/simple/requests/", false},
		"server error": {"error: Failed to fetch: http://127.0.0.1:9831/simple/requests/\n  cause: HTTP status server error (500 Internal Server Error) for url (http://127.0.0.1:9831/simple/requests/)\n",
			"HTTP status server error (500 Internal Server Error) for url (http://127.0.0.1:9831/simple/requests/): Failed to fetch: http://127.0.0.1:9831/simple/requests/", false},
		"invalid JSON": {"error: Received some unexpected JSON from `http://127.0.0.1:9811/simple/requests/`\n  cause: EOF while parsing an object at line 1 column 4\n",
			"EOF while parsing an object at line 1 column 4: Received some unexpected JSON from http://127.0.0.1:9811/simple/requests/", false},
		"password in a URL": {"error: Failed to fetch: http://me:secret@127.0.0.1/simple/x/\n", "Failed to fetch: http://***@127.0.0.1/simple/x/", false},
		"invalid requirement": {"error: Couldn't parse requirement in `-` at position 0\n  cause: Unexpected end of version specifier, expected version\n         requests ===\n                  ^^^\n",
			"Unexpected end of version specifier, expected version requests === ^^^: Couldn't parse requirement in - at position 0", false},
		"colors":     {"\x1b[1m\x1b[31merror\x1b[39m\x1b[0m: it broke\n", "it broke", false},
		"other text": {"thread 'main' panicked\nat src/lib.rs:1\n", "at src/lib.rs:1", false},
		"no output":  {"", "uv pip compile: exit status 2", false},
	} {
		e := newError("pip compile", tt.output, errors.New("exit status 2"))
		if e.Cause != tt.want || e.NoSolution != tt.noSolution {
			t.Errorf("%s: cause = %q, no solution %t, want %q, %t", name, e.Cause, e.NoSolution, tt.want, tt.noSolution)
		}
		if strings.Contains(e.Output, "secret") || strings.Contains(e.Cause, "\n") {
			t.Errorf("%s: output = %q, cause = %q, want no password and a cause of one line", name, e.Output, e.Cause)
		}
	}
}

func TestEnv(t *testing.T) {
	t.Parallel()
	got := Env([]string{
		"HOME=/home/me", "PATH=/bin", "TMPDIR=/tmp", "HTTPS_PROXY=http://proxy", "no_proxy=localhost", "NETRC=/n", "SSL_CERT_FILE=/c",
		"UV_OVERRIDE=/o", "UV_INDEX_URL=http://i", "PIP_INDEX_URL=http://i", "PIP_CERT=/c", "VIRTUAL_ENV=/v", "CONDA_PREFIX=/c", "PYTHONPATH=/p", "LANG=C",
		"XDG_CONFIG_HOME=/x", "MACOSX_DEPLOYMENT_TARGET=99",
	}, "UV_CACHE_DIR=/cache")
	want := []string{"HOME=/home/me", "PATH=/bin", "TMPDIR=/tmp", "HTTPS_PROXY=http://proxy", "no_proxy=localhost", "NETRC=/n", "SSL_CERT_FILE=/c", "UV_CACHE_DIR=/cache"}
	if !slices.Equal(got, want) {
		t.Errorf("Env() = %q, want %q", got, want)
	}
}

// script creates a shell script that replaces uv, and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "uv")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := script(t, `echo "$@" >args; env >env; cat >stdin`)
	err := Run(t.Context(), Command{Program: program, Args: []string{"pip", "compile", "--quiet", "-"}, Env: []string{"A=1", "PATH=" + os.Getenv("PATH")}, Dir: dir, Stdin: strings.NewReader("wax")})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"args": "pip compile --no-config --quiet -\n", "stdin": "wax"} {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "env")); !strings.Contains(string(got), "A=1\n") || strings.Contains(string(got), "HOME=") {
		t.Errorf("env = %q, want A=1 and no HOME", got)
	}

	var e *Error
	err = Run(t.Context(), Command{Program: script(t, "echo 'error: No solution found when resolving dependencies' >&2; echo '  cause: Because wax is missing, we can conclude' >&2; exit 1"), Args: []string{"pip", "compile"}, Dir: dir})
	if !errors.As(err, &e) || !e.NoSolution || e.Command != "pip compile" || e.Error() != "wax is missing" {
		t.Errorf("Run() = %+v, want no solution", err)
	}
	err = Run(t.Context(), Command{Program: filepath.Join(dir, "missing"), Args: []string{"venv"}, Dir: dir})
	if !errors.As(err, &e) || !strings.Contains(e.Error(), "uv venv: ") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run(missing program) = %v, want an error with the command that wraps os.ErrNotExist", err)
	}
}

// TestRunCanceled checks that Run kills the child processes of uv and returns the cause.
func TestRunCanceled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	done := make(chan error, 1)
	program := script(t, "sleep 600 &\necho $! >child.tmp; mv child.tmp child; wait")
	go func() {
		done <- Run(ctx, Command{Program: program, Args: []string{"venv"}, Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH")}})
	}()
	child := filepath.Join(dir, "child")
	waittest.Until(t, "the program has started", func() bool {
		_, err := os.Stat(child)
		return err == nil
	})
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Errorf("Run() = %v, want %v", err, stop)
	}
}

func FuzzError(f *testing.F) {
	f.Add("error: No solution found\n  cause: Because {a}b")
	f.Add("  × x\n  ├─▶ y\n  ╰─▶ z")
	f.Fuzz(func(t *testing.T, output string) {
		e := newError("pip compile", output, errors.New("exit status 2"))
		if e.Cause == "" {
			t.Errorf("newError(%q).Cause = %q, want a cause", output, e.Cause)
		}
	})
}
