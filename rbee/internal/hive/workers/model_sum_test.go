package workers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
)

// TestSumIsComputedWhereAsked holds that a model's checksum is computed for a
// recipe that has a word for it, and for no other.
func TestSumIsComputedWhereAsked(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{true, false} {
		o, model := prepared(t, "{}")
		computed := 0
		o.Model = func(context.Context, string, int) (engine.Model, error) {
			return engine.Model{Path: model, Sum: func(context.Context) (string, error) { computed++; return "cd34", nil }}, nil
		}
		serves, find := "m-cd34", o.Engine
		if !asked {
			serves = "m-tiny.gguf"
			o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
				e, err := find(ctx, typ)
				delete(e.Launch.Links, "blobs/sha256-{model_sha256}")
				e.Launch.Serves = "m-{model_file}"
				return e, err
			}
		}
		m := manager(t, o)
		r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x"}, nil)
		if err != nil || r.Worker.Serves != serves || (computed > 0) != asked {
			t.Fatalf("asked for is %t: %+v, computed %d times, %v", asked, r, computed, err)
		}
		if to, err := os.Readlink(filepath.Join(m.stateDir(r.Worker.ID), "models", "tiny.gguf")); err != nil || to != model {
			t.Errorf("the link leads to %q, %v", to, err)
		}
	}
	o, model := prepared(t, "{}")
	o.Model = func(context.Context, string, int) (engine.Model, error) {
		return engine.Model{Path: model, Sum: func(context.Context) (string, error) { return "", errors.New("unreadable") }}, nil
	}
	if _, err := manager(t, o).Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x"}, nil); err == nil || !strings.Contains(err.Error(), "unreadable") {
		t.Errorf("%v", err)
	}
}
