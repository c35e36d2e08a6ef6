package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A workflow that a queen would not take is refused without one too.
func TestWorkflowIsBounded(t *testing.T) {
	t.Parallel()
	graph := filepath.Join(t.TempDir(), "graph.json")
	if err := os.WriteFile(graph, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(graph, maxPrompt+1); err != nil { // a hole
		t.Fatal(err)
	}
	r := (&fleetRunner{}).command(t, nil, "infer", "x", "--workflow", graph)
	if r.code != exitUsage || !strings.Contains(r.errOut, "longer than 16 MiB") {
		t.Errorf("%+v", r)
	}
}
