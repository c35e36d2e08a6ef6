package plan_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestDiffBytes(t *testing.T) {
	t.Parallel()
	s, w := inSync()
	s.State = &wire.State{Platform: diffPlatform}
	s.Hive.Workers = append(s.Hive.Workers, config.Worker{Type: "echo", Version: version.Latest})
	var got []int64
	for _, p := range plan.Diff([]plan.HiveState{s}, w, plan.Options{}).Steps {
		got = append(got, p.Bytes)
	}
	if want := []int64{100, 0, 70, 0}; !slices.Equal(got, want) { // rbee, echo (part of rbee), llm, start
		t.Errorf("Diff() has steps of %v bytes, want %v", got, want)
	}
}

// TestDiffIsPure checks that the order of hives does not matter, that equal arguments
// return equal plans, and that Diff does not change its arguments.
func TestDiffIsPure(t *testing.T) {
	t.Parallel()
	all := func() (states []plan.HiveState) {
		for i, c := range diffCases {
			s, w := inSync()
			c.edit(&s, &w, &plan.Options{})
			s.Hive.Alias = fmt.Sprintf("hive-%02d", i)
			states = append(states, s)
		}
		return states
	}
	_, w := inSync()
	o := plan.Options{RemoveExtra: true, Force: true}
	states := all()
	first := plan.Diff(states, w, o)
	if !reflect.DeepEqual(states, all()) {
		t.Error("Diff() changed the states, want them unchanged")
	}
	slices.Reverse(states)
	if second := plan.Diff(states, w, o); !reflect.DeepEqual(first, second) {
		t.Errorf("Diff() of the hives in reverse order differs (-want +got):\n%s", cmp.Diff(first, second))
	}
	if !slices.IsSortedFunc(first.Steps, func(a, b operations.Step) int { return strings.Compare(a.Hive, b.Hive) }) {
		t.Errorf("Diff() returned the steps %+v, want them sorted by hive", first.Steps)
	}
	if len(first.Steps) < len(diffCases) {
		t.Errorf("Diff() returned %d steps, want at least %d", len(first.Steps), len(diffCases))
	}
}
