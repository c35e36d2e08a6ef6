//go:build !linux && !darwin

package install

import "errors"

// exchange is not possible in one step here.
func exchange(_, _ string) error { return errors.ErrUnsupported }
