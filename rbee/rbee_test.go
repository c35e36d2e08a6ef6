package rbee

import (
	"strings"
	"testing"
)

func TestVersionOf(t *testing.T) {
	t.Parallel()
	for module, want := range map[string]string{"": DevVersion, "(devel)": DevVersion, "v1.2.3": "1.2.3", "v0.0.0-20261123114718-c0e7c90c7af8+dirty": "0.1.0-dev"} {
		if got := versionOf(module); got != want {
			t.Errorf("versionOf(%q) = %q, want %q", module, got, want)
		}
	}
}

// TestMainRunsBuiltInWorker starts the built-in worker with an invalid port.
func TestMainRunsBuiltInWorker(t *testing.T) {
	t.Parallel()
	var out, errOut strings.Builder
	code := Main(t.Context(), []string{"/x/rbee-worker-echo", "--port", "99999"}, strings.NewReader(""), &out, &errOut, nil)
	if code != 64 || !strings.Contains(errOut.String(), "invalid --port 99999") {
		t.Errorf("Main as rbee-worker-echo returned %d with stderr %q, want exit code 64 and an error about the port", code, errOut.String())
	}
}
