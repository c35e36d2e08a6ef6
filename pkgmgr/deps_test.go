package pkgmgr_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rbee-keeper/rbee"

// TestLibraryDependencies checks that the library does not depend on packages of the
// program: flags, terminal, server and SSH.
func TestLibraryDependencies(t *testing.T) {
	t.Parallel()
	forbidden := []string{
		"github.com/alecthomas/kong", "golang.org/x/term", "golang.org/x/crypto/ssh", "github.com/melbahja/goph",
		"github.com/pkg/sftp", module + "/sshx", module + "/rbee",
	}
	for _, dep := range depsOf(t, module+"/pkgmgr", module+"/pkgmgr/wire", module+"/pkgmgr/fakehost", module+"/operations") {
		for _, f := range forbidden {
			if dep == f || strings.HasPrefix(dep, f+"/") {
				t.Errorf("the library imports %s, want no package of the program", dep)
			}
		}
	}
}

// TestDependencyOrder checks the dependencies wire → operations → strictjson → suggest, gpu:
// each package imports only the standard library and the packages after it.
func TestDependencyOrder(t *testing.T) {
	t.Parallel()
	order := []string{module + "/pkgmgr/wire", module + "/operations", module + "/operations/internal/strictjson", module + "/operations/suggest", module + "/gpu"}
	for i, pkg := range order {
		for _, dep := range depsOf(t, pkg) {
			if first, _, _ := strings.Cut(dep, "/"); strings.Contains(first, ".") && !slices.Contains(order[i:], dep) {
				t.Errorf("%s imports %s, want only the standard library and %v", pkg, dep, order[i+1:])
			}
		}
	}
}

// depsOf returns the packages and all their dependencies.
func depsOf(t *testing.T, pkgs ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps"}, pkgs...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 20 {
		t.Fatalf("go list found %d packages, want at least 20", len(deps))
	}
	return deps
}
