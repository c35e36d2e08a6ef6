package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
)

// Launch is how an installed worker is started, probed and stopped: the part of
// a recipe that the machine keeps.
type Launch struct {
	// Args follow the entry point, and Env is added to its environment. In both,
	// words in braces are replaced: {entry}, {payload}, {state}, {host}, {port},
	// {model}, {model_path}, {model_file}, {model_sha256}, {devices},
	// {device_count}, {context}, {context_total}, {parallel} and {cuda_home}.
	Args []string          `json:"args,omitempty"`
	Env  map[string]string `json:"env,omitempty"`

	// API is the dialect it speaks: "openai" or "comfyui"; empty is "openai".
	API string `json:"api,omitempty"`

	// Links are made before it starts, in a directory of this process alone,
	// {state}: the key is the link, the value what it leads to.
	Links map[string]string `json:"links,omitempty"`

	// Prepare are requests that it gets once it answers, before it is ready.
	Prepare []HTTPRequest `json:"prepare,omitempty"`

	// Serves is what it calls its model in requests; empty if that is {model}.
	Serves string `json:"serves,omitempty"`

	// ReadyPath is asked for with GET until it answers ReadyStatus. Without a
	// path a worker is ready as soon as it listens on its port.
	ReadyPath   string `json:"ready_path,omitempty"`
	ReadyStatus int    `json:"ready_status,omitempty"`

	// StallSeconds is how long a worker may load without writing to its log and
	// without its memory changing; 0 is the machine's own.
	StallSeconds float64 `json:"stall_seconds,omitempty"`

	// GraceSeconds is how long it may take to end after SIGTERM; 0 is the
	// machine's own.
	GraceSeconds float64 `json:"grace_seconds,omitempty"`

	// GPU is the vendor of the accelerator that it cannot run without, "any" for
	// one of whatever vendor, or empty.
	GPU string `json:"gpu,omitempty"`

	// Devices are the conditions under which the installed build runs on an
	// accelerator; nil if every one that the worker can use will do.
	Devices *DeviceNeeds `json:"devices,omitempty"`

	// Memory says what it takes on accelerators; nil for a worker that uses none.
	Memory *Memory `json:"memory,omitempty"`

	// Formats are the formats of models that it serves: "gguf", "safetensors".
	Formats []string `json:"formats,omitempty"`

	// Unknown keeps what a newer rbee sent.
	Unknown Unknown `json:"-"`
}

// HTTPRequest is something to ask a worker over HTTP, with POST. Words in braces
// are replaced as in Launch; in the body as in a string of JSON.
type HTTPRequest struct {
	Path string `json:"path"`
	Body string `json:"body,omitempty"` // JSON
}

// Memory is how the device memory of a worker is estimated.
type Memory struct {
	// Fixed is what it takes whatever the model, in bytes; 0 means that the
	// model's files and its context say it.
	Fixed int64 `json:"fixed,omitempty"`

	// Overhead is taken on each device besides, in bytes.
	Overhead int64 `json:"overhead,omitempty"`

	// Share is the part of each device's whole memory that it reserves, above 0
	// to 1; 0 if it takes what it needs.
	Share float64 `json:"share,omitempty"`

	// Context is the length of context, in tokens, that is counted with when
	// none is asked for; 0 means the model's own, at most 8192.
	Context int `json:"context,omitempty"`
}

type plainLaunch Launch

// UnmarshalJSON implements [json.Unmarshaler]; fields that this rbee does not know stay.
func (l *Launch) UnmarshalJSON(data []byte) error {
	return DecodeKeeping(data, (*plainLaunch)(l), &l.Unknown)
}

// MarshalJSON implements [json.Marshaler].
func (l Launch) MarshalJSON() ([]byte, error) { return EncodeKeeping(plainLaunch(l), l.Unknown) }

// Equal reports whether two launches are the same on the wire; nil equals nil alone.
func (l *Launch) Equal(other *Launch) bool {
	a, errA := json.Marshal(l)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// DefaultReadyStatus is the ReadyStatus of a recipe that sets none.
const DefaultReadyStatus = http.StatusOK

// Digest returns a SHA-256 (hex) over the fields that the recipe sets. A field that it
// leaves to rbee does not count, so that another rbee, which fills in other fields,
// computes the same digest for the same recipe. It is empty for nil.
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
		return "" // strings and finite numbers: it cannot fail
	}
	var fields map[string]json.RawMessage // sorts the fields by name
	if err := json.Unmarshal(data, &fields); err != nil {
		return ""
	}
	if data, err = json.Marshal(fields); err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
