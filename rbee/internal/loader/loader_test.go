package loader

import (
	"errors"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
)

func TestNoCandidate(t *testing.T) {
	t.Parallel()
	down := &operations.Error{Code: operations.CodeUnreachable, Reason: "timeout", Hive: "a", Message: "no answer"}
	a, b := registry.Snapshot{Hive: config.Hive{Alias: "a"}, Err: down}, registry.Snapshot{Hive: config.Hive{Alias: "b"}, Err: errors.New("no worker runs there")}
	err := noCandidate(operations.Infer{Model: "m"}, []registry.Snapshot{a, b})
	if operations.CodeOf(err) != operations.CodeNotFound || err.Error() != "no ready worker serves m\n  a: no answer\n  b: no worker runs there" {
		t.Errorf("%v", err)
	}
	b.Err = down
	if err := noCandidate(operations.Infer{Model: "m"}, []registry.Snapshot{a, b}); operations.CodeOf(err) != operations.CodeUnreachable {
		t.Errorf("%v", err)
	}
	if err := noCandidate(operations.Infer{Model: "m"}, []registry.Snapshot{a}); !errors.Is(err, down) {
		t.Errorf("%v", err)
	}
}
