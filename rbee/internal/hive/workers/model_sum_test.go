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

// TestModelSum checks that the checksum of a model is computed only if the recipe uses the
// checksum.
func TestModelSum(t *testing.T) {
	t.Parallel()
	for _, used := range []bool{true, false} {
		o, model := preparedOptions(t, "{}")
		computed := 0
		o.Model = func(context.Context, string, int) (engine.Model, error) {
			return engine.Model{Path: model, Sum: func(context.Context) (string, error) { computed++; return "cd34", nil }}, nil
		}
		servedName, find := "m-cd34", o.Engine
		if !used {
			servedName = "m-tiny.gguf"
			o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
				e, err := find(ctx, typ)
				delete(e.Launch.Links, "blobs/sha256-{model_sha256}")
				e.Launch.Serves = "m-{model_file}"
				return e, err
			}
		}
		m := newManager(t, o)
		r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x"}, nil)
		if err != nil || r.Worker.ServedName != servedName || (computed > 0) != used {
			t.Fatalf("recipe with checksum %t: Spawn() = %+v, %v, checksum computed %d times, want served name %q and the checksum only if used", used, r, err, computed, servedName)
		}
		if target, err := os.Readlink(filepath.Join(m.stateDir(r.Worker.ID), "models", "tiny.gguf")); err != nil || target != model {
			t.Errorf("recipe with checksum %t: Readlink(models/tiny.gguf) = %q, %v, want %q", used, target, err, model)
		}
	}
	o, model := preparedOptions(t, "{}")
	o.Model = func(context.Context, string, int) (engine.Model, error) {
		return engine.Model{Path: model, Sum: func(context.Context) (string, error) { return "", errors.New("unreadable") }}, nil
	}
	if _, err := newManager(t, o).Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x"}, nil); err == nil || !strings.Contains(err.Error(), "unreadable") {
		t.Errorf("Spawn() with a failing checksum = %v, want the error of Sum", err)
	}
}
