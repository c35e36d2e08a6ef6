package operations

import (
	"slices"
	"strconv"
	"strings"
)

// Target identifies the hive that runs a worker, model or inference operation.
type Target struct {
	// HiveID is the alias of the hive. Required except for [Infer] and the list
	// operations. In a list operation, empty means every hive of the config.
	HiveID string `json:"hive_id,omitempty"`

	// ConfigPath is as in [Scope]. The queen uses it to look up the hive; the hive
	// ignores it.
	ConfigPath string `json:"config_path,omitempty"`
}

// OperationTarget returns t. Every operation that embeds a Target has this method, so
// callers can get the target through an interface.
func (t Target) OperationTarget() Target { return t }

// Values of [WorkerSpawn.Device] other than device indices.
const (
	DeviceAuto = "auto" // the hive selects devices by free memory
	DeviceNone = "none" // CPU only
)

// WorkerSpawn starts a worker process on a hive and waits until it is ready or has
// failed. Canceling the operation stops the worker unless it is ready. Its report is a
// [*WorkerSpawnReport].
type WorkerSpawn struct {
	Target

	// Model is the model to serve, in the form that [ModelDownload] accepts, or any
	// name for a worker type that does not load a model from disk. Required.
	Model string `json:"model"`

	// Worker is the worker type. Required.
	Worker string `json:"worker"`

	// Device selects accelerators: indices in PCI order such as "0,1", [DeviceAuto]
	// or [DeviceNone]. Empty means [DeviceAuto].
	Device string `json:"device,omitempty"`

	// Port is the loopback port that the worker listens on. 0 selects a free port.
	Port int `json:"port,omitempty"`

	// ContextLength is the maximum number of tokens of one conversation. 0 means the
	// length that the memory estimate is based on, or the engine's default.
	ContextLength int `json:"context_length,omitempty"`

	// Parallel is the number of requests to serve at the same time. 0 means the
	// default of the recipe or the engine.
	Parallel int `json:"parallel,omitempty"`

	// Env is added to the environment of the worker. Reports contain only the names.
	Env map[string]string `json:"env,omitempty"`

	// Args are passed to the engine after the arguments of the recipe.
	Args []string `json:"args,omitempty"`

	// OnDemand marks a worker that the queen starts for a request. The queen stops such
	// a worker after an idle period, or when another model needs the memory.
	OnDemand bool `json:"on_demand,omitempty"`

	// Detach makes the operation return as soon as the process has started, without
	// waiting until it is ready.
	Detach bool `json:"detach,omitempty"`
}

// WorkerProcessList lists the worker processes of one hive, or of every hive of the
// config. Its report is a [*WorkerListReport].
type WorkerProcessList struct {
	Target

	// All includes the stopped workers that the hive still has a record of.
	All bool `json:"all,omitempty"`
}

// WorkerRef identifies one worker process by PID or by worker ID. A worker keeps
// its worker ID when its process is restarted. Set exactly one field.
type WorkerRef struct {
	// PID identifies the process on the hive.
	PID int `json:"pid,omitempty"`

	// ID is the worker ID, or a unique prefix of it.
	ID string `json:"id,omitempty"`
}

// WorkerProcessGet returns one worker process. Its report is a [*WorkerGetReport].
type WorkerProcessGet struct {
	Target
	WorkerRef
}

// WorkerProcessDelete stops one worker process. It waits until the worker's in-flight
// requests have finished, stops the process group, and waits until the device memory is
// free. Its report is a [*WorkerDeleteReport].
type WorkerProcessDelete struct {
	Target
	WorkerRef

	// GraceSeconds is the grace period, in seconds, for in-flight requests to finish,
	// and then for the processes to exit before they are killed. 0 means the defaults
	// of the hive: 30 s for requests and 20 s for processes.
	GraceSeconds float64 `json:"grace_seconds,omitempty"`

	// Force kills the processes immediately.
	Force bool `json:"force,omitempty"`
}

// WorkerProcessLogs sends the log of a worker process (its standard output and standard
// error) in events of type [EventLog]. Its report is a [*WorkerLogsReport].
type WorkerProcessLogs struct {
	Target
	WorkerRef

	// Lines is the number of lines to send from the end of the log. 0 means 100; a
	// negative number means the complete log.
	Lines int `json:"lines,omitempty"`

	// Follow also sends new lines until the worker exits.
	Follow bool `json:"follow,omitempty"`
}

// Kind returns [KindWorkerSpawn].
func (WorkerSpawn) Kind() Kind { return KindWorkerSpawn }

// Kind returns [KindWorkerProcessList].
func (WorkerProcessList) Kind() Kind { return KindWorkerProcessList }

// Kind returns [KindWorkerProcessGet].
func (WorkerProcessGet) Kind() Kind { return KindWorkerProcessGet }

// Kind returns [KindWorkerProcessDelete].
func (WorkerProcessDelete) Kind() Kind { return KindWorkerProcessDelete }

// Kind returns [KindWorkerProcessLogs].
func (WorkerProcessLogs) Kind() Kind { return KindWorkerProcessLogs }

// Validate implements [Operation].
func (o WorkerSpawn) Validate() error {
	if err := require(o.Kind(), "hive_id", o.HiveID, "model", o.Model, "worker", o.Worker); err != nil {
		return err
	}
	if o.Port < 0 || o.Port > 65535 {
		return badOperation("%s: invalid field \"port\": got %d, want 0 (a free port) to 65535", o.Kind(), o.Port)
	}
	if o.ContextLength < 0 {
		return badOperation("%s: invalid field \"context_length\": got %d, want 0 (the default) or more", o.Kind(), o.ContextLength)
	}
	if o.Parallel < 0 {
		return badOperation("%s: invalid field \"parallel\": got %d, want 0 (the default) or more", o.Kind(), o.Parallel)
	}
	if _, err := ParseDevices(o.Device); err != nil {
		return badOperation("%s: invalid field \"device\": %v", o.Kind(), err)
	}
	for name := range o.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return badOperation("%s: invalid field \"env\": invalid variable name %q", o.Kind(), name)
		}
	}
	return nil
}

// ParseDevices parses the Device field of [WorkerSpawn]. It returns the device indices,
// or nil if s is [DeviceAuto], [DeviceNone] or empty.
func ParseDevices(s string) ([]int, error) {
	if s == "" || s == DeviceAuto || s == DeviceNone {
		return nil, nil
	}
	var indices []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(part)
		switch {
		case err != nil || n < 0 || n > 1023:
			return nil, badOperation("invalid device %q: want indices such as 0 or 0,1, %q or %q", part, DeviceAuto, DeviceNone)
		case slices.Contains(indices, n):
			return nil, badOperation("duplicate device %d", n)
		}
		indices = append(indices, n)
	}
	return indices, nil
}

// Validate implements [Operation].
func (WorkerProcessList) Validate() error { return nil }

// Validate implements [Operation].
func (o WorkerProcessGet) Validate() error { return o.validate(o.Kind(), o.Target) }

// Validate implements [Operation].
func (o WorkerProcessDelete) Validate() error {
	if o.GraceSeconds < 0 {
		return badOperation("%s: invalid field \"grace_seconds\": got %g, want 0 (the default) or more", o.Kind(), o.GraceSeconds)
	}
	return o.validate(o.Kind(), o.Target)
}

// Validate implements [Operation].
func (o WorkerProcessLogs) Validate() error { return o.validate(o.Kind(), o.Target) }

func (r WorkerRef) validate(kind Kind, t Target) error {
	if err := require(kind, "hive_id", t.HiveID); err != nil {
		return err
	}
	switch {
	case r.ID != "" && r.PID != 0:
		return badOperation("%s: cannot combine fields \"pid\" and \"id\"", kind)
	case r.ID == "" && r.PID < 1:
		return badOperation("%s: invalid field \"pid\": got %d, want a PID", kind, r.PID)
	}
	return nil
}

// MarshalJSON returns the wire form of the operation.
func (o WorkerSpawn) MarshalJSON() ([]byte, error) {
	type fields WorkerSpawn
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o WorkerProcessList) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessList
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o WorkerProcessGet) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessGet
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o WorkerProcessDelete) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessDelete
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o WorkerProcessLogs) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessLogs
	return marshal(o.Kind(), fields(o))
}
