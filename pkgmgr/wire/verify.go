package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"time"
)

// Time limits of a [Verify] command.
const (
	DefaultVerifyLimit = 2 * time.Minute
	MaxVerifyLimit     = 30 * time.Minute
)

// Verify is a command that checks that an installed worker can run on its machine, for
// example by listing the devices that the engine detects. The check succeeds if the command
// exits with status 0 and its output matches.
type Verify struct {
	// Command is the argument vector, which is executed without a shell. The first
	// item is {entry} or a path below {payload}. The placeholders {entry}, {payload}
	// and {state} are replaced in all items and in the values of Env.
	Command []string `json:"command"`

	// Env is added to the worker's own environment.
	Env map[string]string `json:"env,omitempty"`

	// Matches is a regular expression (RE2) that must match the combined standard
	// output and standard error, because a program that detects no device may exit
	// with status 0. Empty accepts any output.
	Matches string `json:"matches,omitempty"`

	// LimitSeconds is the time limit; 0 means [DefaultVerifyLimit].
	LimitSeconds float64 `json:"limit_seconds,omitempty"`

	// BeforeStart also runs the command before the first start of the worker after
	// a boot of the machine, because a driver may have changed. Set it only for
	// commands that take at most a few seconds.
	BeforeStart bool `json:"before_start,omitempty"`
}

// Limit returns the time limit, at most [MaxVerifyLimit].
func (v *Verify) Limit() time.Duration {
	seconds := min(v.LimitSeconds, MaxVerifyLimit.Seconds())
	return cmp.Or(max(0, time.Duration(seconds*float64(time.Second))), DefaultVerifyLimit)
}

// Equal reports whether v and other have the same JSON encoding. Nil equals only nil.
func (v *Verify) Equal(other *Verify) bool {
	a, errA := json.Marshal(v)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
