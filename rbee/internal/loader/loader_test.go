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
	down := &operations.Error{Code: operations.CodeUnreachable, Reason: "timeout", Hive: "a", Message: "no response"}
	a, b := registry.Snapshot{Hive: config.Hive{Alias: "a"}, Err: down}, registry.Snapshot{Hive: config.Hive{Alias: "b"}, Err: errors.New("no worker is running")}
	err := noCandidateError(operations.Infer{Model: "m"}, []registry.Snapshot{a, b})
	if want := "no ready worker serves m\n  a: no response\n  b: no worker is running"; operations.CodeOf(err) != operations.CodeNotFound || err.Error() != want {
		t.Errorf("noCandidateError() = %q, want code not_found, %q", err, want)
	}
	b.Err = down
	if err := noCandidateError(operations.Infer{Model: "m"}, []registry.Snapshot{a, b}); operations.CodeOf(err) != operations.CodeUnreachable {
		t.Errorf("noCandidateError() of two unreachable hives = %v, want code unreachable", err)
	}
	if err := noCandidateError(operations.Infer{Model: "m"}, []registry.Snapshot{a}); !errors.Is(err, down) {
		t.Errorf("noCandidateError() of one unreachable hive = %v, want %v", err, down)
	}
}

// noConnections is a connector for tests that do not connect.
type noConnections struct{ registry.Connector }

// TestLoadUnknownHive checks that Find and Load return the error about the hive or the config.
func TestLoadUnknownHive(t *testing.T) {
	t.Parallel()
	for _, reason := range []operations.Reason{operations.ReasonUnknownHive, operations.ReasonConfigMissing} {
		want := &operations.Error{Code: operations.CodeNotFound, Reason: reason, Message: "cannot find the hives"}
		d := NewDirect(noConnections{}, func(operations.Target) ([]config.Hive, error) { return nil, want })
		found, err := d.Find(t.Context(), operations.Infer{Model: "m"})
		if found != nil || !errors.Is(err, want) || IsNoCandidate(err) {
			t.Errorf("Find() = %v, %v, want nil, %v; IsNoCandidate() = %t", found, err, want, IsNoCandidate(err))
		}
		if found, err := d.Load(t.Context(), operations.Infer{Model: "m"}, nil, nil); found != nil || !errors.Is(err, want) {
			t.Errorf("Load() = %v, %v, want nil, %v", found, err, want)
		}
	}
}

// TestIsNoCandidate checks which errors mean that a worker may be started.
func TestIsNoCandidate(t *testing.T) {
	t.Parallel()
	hive := func(e *operations.Error) []registry.Snapshot {
		return []registry.Snapshot{{Hive: config.Hive{Alias: "a"}, Err: e}}
	}
	full := &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonInsufficientMemory, Message: "no memory"}
	down := &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonTimeout, Message: "no response"}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"no hives":     {noCandidateError(operations.Infer{Model: "m"}, nil), true},
		"no memory":    {noCandidateError(operations.Infer{Model: "m"}, hive(full)), true},
		"unreachable":  {noCandidateError(operations.Infer{Model: "m"}, hive(down)), false},
		"unknown hive": {&operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownHive}, false},
		"nil":          {nil, false},
		"no reason":    {errors.New("failed"), false},
	} {
		if got := IsNoCandidate(c.err); got != c.want {
			t.Errorf("%s: IsNoCandidate(%v) = %t, want %t", name, c.err, got, c.want)
		}
	}
}
