package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInferRejectsLargeWorkflow(t *testing.T) {
	t.Parallel()
	graph := filepath.Join(t.TempDir(), "graph.json")
	if err := os.WriteFile(graph, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(graph, maxPrompt+1); err != nil { // a sparse file
		t.Fatal(err)
	}
	r := (&fleetRunner{}).command(t, nil, "infer", "x", "--workflow", graph)
	if r.code != exitUsage || !strings.Contains(r.errOut, "longer than 16 MiB") {
		t.Errorf("infer with a workflow above 16 MiB = %+v, want exit code 64 and an error", r)
	}
}
