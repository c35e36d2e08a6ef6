//go:build !linux && !darwin

package install

import "errors"

// exchange returns errors.ErrUnsupported.
func exchange(_, _ string) error { return errors.ErrUnsupported }
