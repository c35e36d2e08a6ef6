package pkgmgr_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rbee-keeper/rbee"

// TestEmbeddersGetNoMore holds that who imports the library does not get the
// program: no flags, no terminal, no server, no SSH.
func TestEmbeddersGetNoMore(t *testing.T) {
	t.Parallel()
	unwanted := []string{
		"github.com/alecthomas/kong", "golang.org/x/term", "golang.org/x/crypto/ssh", "github.com/melbahja/goph",
		"github.com/pkg/sftp", module + "/sshx", module + "/rbee",
	}
	for _, dep := range depsOf(t, module+"/pkgmgr", module+"/pkgmgr/wire", module+"/pkgmgr/fakehost", module+"/operations") {
		for _, u := range unwanted {
			if dep == u || strings.HasPrefix(dep, u+"/") {
				t.Errorf("the library imports %s", dep)
			}
		}
	}
}

// TestVocabularyStandsAlone checks the arrows wire → operations → strictjson → suggest, gpu: each imports
// the standard library and those after it only.
func TestVocabularyStandsAlone(t *testing.T) {
	t.Parallel()
	order := []string{module + "/pkgmgr/wire", module + "/operations", module + "/operations/internal/strictjson", module + "/operations/suggest", module + "/gpu"}
	for i, pkg := range order {
		for _, dep := range depsOf(t, pkg) {
			if first, _, _ := strings.Cut(dep, "/"); strings.Contains(first, ".") && !slices.Contains(order[i:], dep) {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}

func depsOf(t *testing.T, pkgs ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps"}, pkgs...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 20 {
		t.Fatalf("go list found %d packages only", len(deps))
	}
	return deps
}
