package operations

import (
	"slices"
	"strconv"
	"strings"
)

// Target names the hive that a runtime operation is for.
type Target struct {
	// HiveID is the alias of the hive. Required, but for the lists, where empty
	// means every hive of the config, and for [Infer].
	HiveID string `json:"hive_id,omitempty"`

	// ConfigPath is as in [Scope]: where the hive is looked up. It means nothing
	// to the hive itself.
	ConfigPath string `json:"config_path,omitempty"`
}

// OperationTarget is the target itself: by it every operation that has one can be asked for it.
func (t Target) OperationTarget() Target { return t }

// Devices that [WorkerSpawn] knows besides indices.
const (
	DeviceAuto = "auto" // the hive chooses by free memory
	DeviceNone = "none" // no accelerator: the CPU
)

// WorkerSpawn starts a worker process on a hive and waits until it is ready to
// serve, or has failed. It ends in a [*WorkerSpawnReport]. Canceling it ends the
// worker, unless it was ready already.
type WorkerSpawn struct {
	Target

	// Model is what the worker serves, in the form that [ModelDownload] takes,
	// or any name for a worker that needs no model on disk. Required.
	Model string `json:"model"`

	// Worker is the worker type. Required.
	Worker string `json:"worker"`

	// Device is which accelerators to use: indices in PCI order such as "0,1",
	// [DeviceAuto] or [DeviceNone]. Empty means auto.
	Device string `json:"device,omitempty"`

	// Port is the loopback port that the worker listens on; 0 takes a free one.
	Port int `json:"port,omitempty"`

	// ContextLength is how many tokens each conversation may have; 0 leaves it to
	// the recipe: as many as memory was counted with, or the engine's own choice.
	ContextLength int `json:"context_length,omitempty"`

	// Parallel is how many requests it shall serve at once; 0 leaves it to the
	// engine and its recipe.
	Parallel int `json:"parallel,omitempty"`

	// Env is added to the worker's environment. Reports tell its names only.
	Env map[string]string `json:"env,omitempty"`

	// Args are given to the engine after those of the recipe.
	Args []string `json:"args,omitempty"`

	// OnDemand marks a worker that nobody asked for by name: a queen starts it for
	// a request, and ends it when it has been idle for long or its room is needed.
	OnDemand bool `json:"on_demand,omitempty"`

	// Detach ends the operation once the process is started, without waiting
	// until it is ready.
	Detach bool `json:"detach,omitempty"`
}

// WorkerProcessList lists the worker processes of a hive, or of every hive of
// the config. It ends in a [*WorkerListReport].
type WorkerProcessList struct {
	Target

	// All lists workers that were stopped too, as far as the hive remembers them.
	All bool `json:"all,omitempty"`
}

// WorkerRef names one worker process: by process id, or by the id that rbee gave
// it, which stays when the process is started again. One of them is required.
type WorkerRef struct {
	// PID is the process id on the hive.
	PID int `json:"pid,omitempty"`

	// ID is the worker's id, or as much of its beginning as is unique.
	ID string `json:"id,omitempty"`
}

// WorkerProcessGet tells about one worker process. It ends in a [*WorkerGetReport].
type WorkerProcessGet struct {
	Target
	WorkerRef
}

// WorkerProcessDelete stops one worker process, one that rbee started: requests
// under way are finished, the whole process group is ended, and its device
// memory is waited for. It ends in a [*WorkerDeleteReport].
type WorkerProcessDelete struct {
	Target
	WorkerRef

	// GraceSeconds is how long requests under way, and then the processes, may
	// take to end before they are killed: 0 is the hive's own (30 s and 20 s).
	GraceSeconds float64 `json:"grace_seconds,omitempty"`

	// Force kills at once.
	Force bool `json:"force,omitempty"`
}

// WorkerProcessLogs gives what a worker process wrote to its standard streams, in
// events of type [EventLog]. It ends in a [*WorkerLogsReport].
type WorkerProcessLogs struct {
	Target
	WorkerRef

	// Lines is how many of the last lines are given: 0 means 100, a negative
	// number all that is kept.
	Lines int `json:"lines,omitempty"`

	// Follow goes on giving what is written until the worker has ended.
	Follow bool `json:"follow,omitempty"`
}

// Kind is [KindWorkerSpawn].
func (WorkerSpawn) Kind() Kind { return KindWorkerSpawn }

// Kind is [KindWorkerProcessList].
func (WorkerProcessList) Kind() Kind { return KindWorkerProcessList }

// Kind is [KindWorkerProcessGet].
func (WorkerProcessGet) Kind() Kind { return KindWorkerProcessGet }

// Kind is [KindWorkerProcessDelete].
func (WorkerProcessDelete) Kind() Kind { return KindWorkerProcessDelete }

// Kind is [KindWorkerProcessLogs].
func (WorkerProcessLogs) Kind() Kind { return KindWorkerProcessLogs }

// Validate implements [Operation].
func (o WorkerSpawn) Validate() error {
	if err := require(o.Kind(), "hive_id", o.HiveID, "model", o.Model, "worker", o.Worker); err != nil {
		return err
	}
	if o.Port < 0 || o.Port > 65535 {
		return badOperation("%s: field \"port\" is %d, want 0 (any free one) to 65535", o.Kind(), o.Port)
	}
	if o.ContextLength < 0 {
		return badOperation("%s: field \"context_length\" is %d, want 0 (the engine's own) or more", o.Kind(), o.ContextLength)
	}
	if o.Parallel < 0 {
		return badOperation("%s: field \"parallel\" is %d, want 0 (the engine's own) or more", o.Kind(), o.Parallel)
	}
	if _, err := ParseDevices(o.Device); err != nil {
		return badOperation("%s: field \"device\": %v", o.Kind(), err)
	}
	for name := range o.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return badOperation("%s: field \"env\" has %q, which is not the name of a variable", o.Kind(), name)
		}
	}
	return nil
}

// ParseDevices reads the device field of [WorkerSpawn]: the indices it names, or
// nil for [DeviceAuto], [DeviceNone] and empty.
func ParseDevices(s string) ([]int, error) {
	if s == "" || s == DeviceAuto || s == DeviceNone {
		return nil, nil
	}
	var list []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(part)
		switch {
		case err != nil || n < 0 || n > 1023:
			return nil, badOperation("%q is no device: want indices such as 0 or 0,1, %q or %q", part, DeviceAuto, DeviceNone)
		case slices.Contains(list, n):
			return nil, badOperation("device %d is named twice", n)
		}
		list = append(list, n)
	}
	return list, nil
}

// Validate implements [Operation].
func (WorkerProcessList) Validate() error { return nil }

// Validate implements [Operation].
func (o WorkerProcessGet) Validate() error { return o.validate(o.Kind(), o.Target) }

// Validate implements [Operation].
func (o WorkerProcessDelete) Validate() error {
	if o.GraceSeconds < 0 {
		return badOperation("%s: field \"grace_seconds\" is %g, want 0 (the hive's own) or more", o.Kind(), o.GraceSeconds)
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
		return badOperation("%s: fields \"pid\" and \"id\" are both given, want one", kind)
	case r.ID == "" && r.PID < 1:
		return badOperation("%s: field \"pid\" is %d, want a process id", kind, r.PID)
	}
	return nil
}

// MarshalJSON writes the wire form.
func (o WorkerSpawn) MarshalJSON() ([]byte, error) {
	type fields WorkerSpawn
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o WorkerProcessList) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessList
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o WorkerProcessGet) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessGet
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o WorkerProcessDelete) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessDelete
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o WorkerProcessLogs) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessLogs
	return tagged(o.Kind(), fields(o))
}
