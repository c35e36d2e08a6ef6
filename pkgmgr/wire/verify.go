package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"time"
)

// Limits of the time that a [Verify] command may take.
const (
	DefaultVerifyLimit = 2 * time.Minute
	MaxVerifyLimit     = 30 * time.Minute
)

// Verify is a command that proves that an installed worker can use its machine,
// such as one that lists the devices that an engine finds. It passes if it exits
// with status 0 and its output matches.
type Verify struct {
	// Command is the argument vector; no shell reads it. The first item is
	// {entry} or a path below {payload}. In all items and in the values of Env,
	// the placeholders {entry}, {payload} and {state} are replaced.
	Command []string `json:"command"`

	// Env is added to the environment that the worker itself gets.
	Env map[string]string `json:"env,omitempty"`

	// Matches is a regular expression (RE2) for standard output and standard
	// error together, since a program that finds no device may exit with status
	// 0. Empty accepts any output.
	Matches string `json:"matches,omitempty"`

	// LimitSeconds is the time limit; 0 means [DefaultVerifyLimit].
	LimitSeconds float64 `json:"limit_seconds,omitempty"`

	// BeforeStart runs the command also before the first start of a worker
	// after the machine was booted, since a driver may have changed. It is for
	// commands that take no more than a few seconds.
	BeforeStart bool `json:"before_start,omitempty"`
}

// Limit returns the time limit, at most [MaxVerifyLimit].
func (v *Verify) Limit() time.Duration {
	seconds := min(v.LimitSeconds, MaxVerifyLimit.Seconds())
	return cmp.Or(max(0, time.Duration(seconds*float64(time.Second))), DefaultVerifyLimit)
}

// Equal reports whether two commands are the same on the wire; nil equals nil alone.
func (v *Verify) Equal(other *Verify) bool {
	a, errA := json.Marshal(v)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
