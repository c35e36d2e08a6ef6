package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
)

// Launch describes how to start, probe and stop an installed worker. It is the part of a
// recipe that is stored on the machine.
type Launch struct {
	// Args are the arguments of the entry point. Env is added to its environment. In
	// both, these placeholders are replaced: {entry}, {payload}, {state}, {host},
	// {port}, {model}, {model_path}, {model_file}, {model_sha256}, {devices},
	// {device_count}, {context}, {context_total}, {parallel} and {cuda_home}.
	Args []string          `json:"args,omitempty"`
	Env  map[string]string `json:"env,omitempty"`

	// API is the HTTP API of the worker: "openai" or "comfyui"; empty means "openai".
	API string `json:"api,omitempty"`

	// Links are symbolic links to create before the worker starts. Each key is a path
	// relative to {state}, the private directory of this process; each value is the
	// target of the link.
	Links map[string]string `json:"links,omitempty"`

	// Prepare are requests to send when the worker responds, before it becomes ready.
	Prepare []HTTPRequest `json:"prepare,omitempty"`

	// Serves is the model name in requests to the worker; empty means {model}.
	Serves string `json:"serves,omitempty"`

	// ReadyPath is the path to poll with GET until the response status is ReadyStatus.
	// If it is empty, the worker is ready as soon as it listens on its port.
	ReadyPath   string `json:"ready_path,omitempty"`
	ReadyStatus int    `json:"ready_status,omitempty"`

	// StallSeconds is the longest time that a loading worker may neither write to its
	// log nor change its memory usage; 0 means the machine's default.
	StallSeconds float64 `json:"stall_seconds,omitempty"`

	// GraceSeconds is the longest time between SIGTERM and the exit of the worker; 0
	// means the machine's default.
	GraceSeconds float64 `json:"grace_seconds,omitempty"`

	// GPU is the vendor of the accelerator that the worker requires, "any" for any
	// vendor, or empty if it requires none.
	GPU string `json:"gpu,omitempty"`

	// Devices are the requirements of the installed build on an accelerator; nil if it
	// has none.
	Devices *DeviceRequirements `json:"devices,omitempty"`

	// Memory describes the worker's memory usage on accelerators; nil if it uses no
	// accelerator.
	Memory *Memory `json:"memory,omitempty"`

	// Formats are the supported model formats, such as "gguf" or "safetensors".
	Formats []string `json:"formats,omitempty"`

	// Unknown preserves the fields that a newer rbee has sent.
	Unknown Unknown `json:"-"`
}

// HTTPRequest is a POST request to a worker. Placeholders are replaced as in [Launch]; in
// Body, the values are escaped for use in a JSON string.
type HTTPRequest struct {
	Path string `json:"path"`
	Body string `json:"body,omitempty"` // JSON
}

// Memory contains the parameters for the estimate of a worker's device memory.
type Memory struct {
	// Fixed is the memory usage of the worker with any model, in bytes; 0 means that
	// the estimate depends on the model's files and context.
	Fixed int64 `json:"fixed,omitempty"`

	// Overhead is the additional memory usage on each device, in bytes.
	Overhead int64 `json:"overhead,omitempty"`

	// Share is the fraction of each device's total memory that the worker reserves,
	// greater than 0 and at most 1; 0 if it allocates only the memory that it needs.
	Share float64 `json:"share,omitempty"`

	// Context is the default context length for the estimate, in tokens; 0 means the
	// context length of the model, at most 8192.
	Context int `json:"context,omitempty"`
}

type plainLaunch Launch

// UnmarshalJSON implements [json.Unmarshaler]. It stores unknown fields in l.Unknown.
func (l *Launch) UnmarshalJSON(data []byte) error {
	return UnmarshalWithUnknown(data, (*plainLaunch)(l), &l.Unknown)
}

// MarshalJSON implements [json.Marshaler].
func (l Launch) MarshalJSON() ([]byte, error) { return MarshalWithUnknown(plainLaunch(l), l.Unknown) }

// Equal reports whether l and other have the same JSON encoding. Nil equals only nil.
func (l *Launch) Equal(other *Launch) bool {
	a, errA := json.Marshal(l)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// DefaultReadyStatus is the default value of [Launch.ReadyStatus] in a recipe.
const DefaultReadyStatus = http.StatusOK

// Digest returns a SHA-256 (hex) of the fields that the recipe sets. It ignores defaults, so
// that a version of rbee with other defaults computes the same digest for the same recipe.
// It is empty for nil.
func (l *Launch) Digest() string {
	if l == nil {
		return ""
	}
	set := *l
	set.Unknown = Unknown{}
	if set.ReadyStatus == DefaultReadyStatus {
		set.ReadyStatus = 0
	}
	data, err := json.Marshal(set)
	if err != nil {
		return "" // cannot happen: the fields are strings and finite numbers
	}
	var fields map[string]json.RawMessage // encoded in the order of the names
	if err := json.Unmarshal(data, &fields); err != nil {
		return ""
	}
	if data, err = json.Marshal(fields); err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
