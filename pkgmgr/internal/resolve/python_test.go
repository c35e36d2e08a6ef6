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
	none := &uv.Error{Cause: "no", NoSolution: true}
	for _, tt := range []struct {
		name  string
		from  int // the oldest step with a solution; 0 for none
		fails int // a step that fails for another reason
		steps []int
		want  int
		err   error
		tried []int
	}{
		{"first step", 28, 0, []int{28, 31, 34}, 28, nil, []int{28}},
		{"second step", 31, 0, []int{28, 31, 32, 40}, 31, nil, []int{28, 40, 31}},
		{"newest step", 40, 0, []int{28, 31, 40}, 40, nil, []int{28, 40, 31}},
		{"no step", 0, 0, []int{28, 31, 40}, 0, none, []int{28, 40}},
		{"one step", 0, 0, []int{40}, 40, none, []int{40}},
		{"index fails at first", 28, 28, []int{28, 31, 40}, 28, broken, []int{28}},
		{"index fails in the middle", 34, 31, []int{28, 31, 34, 40}, 31, broken, []int{28, 40, 31}},
	} {
		var tried []int
		got, lock, err := firstSolution(tt.steps, func(step int) (*wheel.Pylock, error) {
			tried = append(tried, step)
			switch {
			case step == tt.fails:
				return nil, broken
			case tt.from == 0 || step < tt.from:
				return nil, none
			}
			return &wheel.Pylock{}, nil
		})
		if !errors.Is(err, tt.err) || got != tt.want || !slices.Equal(tried, tt.tried) || (err == nil) != (lock != nil) {
			t.Errorf("%s: firstSolution() = %d, %v after trying %v, want %d, %v after %v", tt.name, got, err, tried, tt.want, tt.err, tt.tried)
		}
	}
}
