//go:build !linux && !darwin

package hive

import "errors"

// identify is not possible here, so no daemon is ever signalled.
func identify(int) (process, error) { return process{}, errors.ErrUnsupported }
