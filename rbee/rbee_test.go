package rbee

import (
	"strings"
	"testing"
)

func TestVersionOf(t *testing.T) {
	t.Parallel()
	for module, want := range map[string]string{"": DevVersion, "(devel)": DevVersion, "v1.2.3": "1.2.3", "v0.0.0-20261123114718-c0e7c90c7af8+dirty": "0.1.0-dev"} {
		if got := versionOf(module); got != want {
			t.Errorf("%q: %q, want %q", module, got, want)
		}
	}
}

// TestMainTakesItsNameAsAWorker asks the built-in worker for a port that cannot be.
func TestMainTakesItsNameAsAWorker(t *testing.T) {
	t.Parallel()
	var out, errOut strings.Builder
	code := Main(t.Context(), []string{"/x/rbee-worker-echo", "--port", "99999"}, strings.NewReader(""), &out, &errOut, nil)
	if code != 64 || !strings.Contains(errOut.String(), "--port is 99999") {
		t.Errorf("exit code %d, stderr %q", code, errOut.String())
	}
}
