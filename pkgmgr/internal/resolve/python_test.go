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
		oldest    int // the oldest version with a solution; 0 if no version has one
		failing   int // a version that fails with another error
		minors    []int
		want      int
		wantErr   error
		wantTried []int
	}{
		{"first version", 28, 0, []int{28, 31, 34}, 28, nil, []int{28}},
		{"second version", 31, 0, []int{28, 31, 32, 40}, 31, nil, []int{28, 40, 31}},
		{"newest version", 40, 0, []int{28, 31, 40}, 40, nil, []int{28, 40, 31}},
		{"no version", 0, 0, []int{28, 31, 40}, 0, noSolution, []int{28, 40}},
		{"one version without a solution", 0, 0, []int{40}, 40, noSolution, []int{40}},
		{"error for the first version", 28, 28, []int{28, 31, 40}, 28, broken, []int{28}},
		{"error for a later version", 34, 31, []int{28, 31, 34, 40}, 31, broken, []int{28, 40, 31}},
	} {
		var tried []int
		got, lock, err := firstSolution(tt.minors, func(minor int) (*wheel.Pylock, error) {
			tried = append(tried, minor)
			switch {
			case minor == tt.failing:
				return nil, broken
			case tt.oldest == 0 || minor < tt.oldest:
				return nil, noSolution
			}
			return &wheel.Pylock{}, nil
		})
		if !errors.Is(err, tt.wantErr) || got != tt.want || !slices.Equal(tried, tt.wantTried) || (err == nil) != (lock != nil) {
			t.Errorf("%s: firstSolution() = %d, %v after trying %v, want %d, %v after %v", tt.name, got, err, tried, tt.want, tt.wantErr, tt.wantTried)
		}
	}
}
