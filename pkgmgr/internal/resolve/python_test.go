package resolve

import (
	"errors"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/wheel"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
)

func TestFirstSolution(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection refused")
	noSolution := &uv.Error{Cause: "no", NoSolution: true}
	for _, tt := range []struct {
		name      string
		from      int // the oldest step with a solution; 0 if no step has one
		failure   int // a step that fails with another error
		steps     []int
		want      int
		wantErr   error
		wantTried []int
	}{
		{"first step", 28, 0, []int{28, 31, 34}, 28, nil, []int{28}},
		{"second step", 31, 0, []int{28, 31, 32, 40}, 31, nil, []int{28, 40, 31}},
		{"newest step", 40, 0, []int{28, 31, 40}, 40, nil, []int{28, 40, 31}},
		{"no step", 0, 0, []int{28, 31, 40}, 0, noSolution, []int{28, 40}},
		{"one step", 0, 0, []int{40}, 40, noSolution, []int{40}},
		{"error in the first step", 28, 28, []int{28, 31, 40}, 28, broken, []int{28}},
		{"error in a later step", 34, 31, []int{28, 31, 34, 40}, 31, broken, []int{28, 40, 31}},
	} {
		var tried []int
		got, lock, err := firstSolution(tt.steps, func(step int) (*wheel.Pylock, error) {
			tried = append(tried, step)
			switch {
			case step == tt.failure:
				return nil, broken
			case tt.from == 0 || step < tt.from:
				return nil, noSolution
			}
			return &wheel.Pylock{}, nil
		})
		if !errors.Is(err, tt.wantErr) || got != tt.want || !slices.Equal(tried, tt.wantTried) || (err == nil) != (lock != nil) {
			t.Errorf("%s: firstSolution() = %d, %v after trying %v, want %d, %v after %v", tt.name, got, err, tried, tt.want, tt.wantErr, tt.wantTried)
		}
	}
}
