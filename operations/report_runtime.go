package operations

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
)

// WorkerState is how far a worker process is.
type WorkerState string

// The states of a worker process. It goes through starting and loading to ready,
// and through draining to stopped. From starting, loading and ready it can fall
// into failed, and from there it is started again or stopped.
const (
	WorkerStarting WorkerState = "starting" // its process is being made
	WorkerLoading  WorkerState = "loading"  // its process runs and does not serve yet
	WorkerReady    WorkerState = "ready"    // it serves
	WorkerDraining WorkerState = "draining" // it is ending: no new requests, those under way are finished
	WorkerStopped  WorkerState = "stopped"  // it was told to end and has
	WorkerFailed   WorkerState = "failed"   // it ended by itself; RestartAt says whether it will be tried again
)

// WorkerProcess is one worker process on a hive.
type WorkerProcess struct {
	// ID names the worker for as long as it is wanted, also over restarts:
	// its type, a dash and a few letters.
	ID string `json:"id"`

	// Hive is the alias of its hive.
	Hive string `json:"hive,omitempty"`

	// Worker is its type and Version what is installed of that type.
	Worker  string `json:"worker"`
	Version string `json:"version,omitempty"`

	// Model is the model it serves, as it was asked for; ModelID names that model as
	// [ModelList] does, and ModelFile is the name of its file. Both are empty if it
	// has none on disk or the engine does not need it.
	Model     string `json:"model"`
	ModelID   string `json:"model_id,omitempty"`
	ModelFile string `json:"model_file,omitempty"`

	// Serves is what the engine itself calls the model; empty if that is Model.
	Serves string `json:"serves,omitempty"`

	// OnDemand means that a queen started it for a request, and ends it again.
	OnDemand bool `json:"on_demand,omitempty"`

	// API is the dialect it speaks: "comfyui", or empty for OpenAI's.
	API string `json:"api,omitempty"`

	State WorkerState `json:"state"`

	// PID is the process, which leads a process group of its own; 0 if there is none.
	PID int `json:"pid,omitempty"`

	// Port is the loopback port on which it serves.
	Port int `json:"port,omitempty"`

	// Devices are the accelerators it was given; empty means the CPU.
	Devices []WorkerDevice `json:"devices,omitempty"`

	// MemoryEstimate is the device memory that it was expected to need, in
	// bytes over all devices; 0 if that is not known.
	MemoryEstimate int64 `json:"memory_estimate,omitempty"`

	// Argv is the command as it was started, EnvNames the variables that were
	// added to its environment, without their values.
	Argv     []string `json:"argv,omitempty"`
	EnvNames []string `json:"env_names,omitempty"`

	// CreatedAt is when it was asked for; StartedAt when its process was made
	// last and ReadyAt when that was ready; EndedAt when it ended. Zero if not yet.
	CreatedAt time.Time `json:"created_at,omitzero"`
	StartedAt time.Time `json:"started_at,omitzero"`
	ReadyAt   time.Time `json:"ready_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`

	// Restarts is how often it was started again after it failed, and RestartAt
	// when it will be again; zero if it will not.
	Restarts  int       `json:"restarts,omitempty"`
	RestartAt time.Time `json:"restart_at,omitzero"`

	// Adopted means that an earlier hive daemon started the process.
	Adopted bool `json:"adopted,omitempty"`

	// Requests is how many requests go through the hive to it right now.
	Requests int `json:"requests,omitempty"`

	// ExitStatus is that of the last process that ended by itself; nil if there
	// is none, or if a signal ended it or nobody saw it end, which Problem says.
	ExitStatus *int `json:"exit_status,omitempty"`

	// Problem says what went wrong last, or what is wrong now. May be empty.
	Problem string `json:"problem,omitempty"`

	// LogPath is its log on the hive, and LogTail the last lines of it: always
	// for a worker that failed, and in the answer to [WorkerProcessGet].
	LogPath string   `json:"log_path,omitempty"`
	LogTail []string `json:"log_tail,omitempty"`
}

// WorkerDevice is an accelerator that a worker was given.
type WorkerDevice struct {
	Index  int    `json:"index"`
	Vendor string `json:"vendor,omitempty"`
	UUID   string `json:"uuid,omitempty"`
	Name   string `json:"name,omitempty"`
}

// WorkerSpawnReport is what [WorkerSpawn] ends with.
type WorkerSpawnReport struct {
	Worker WorkerProcess `json:"worker"`

	// Reason says why it was put on these devices: the arithmetic of memory.
	Reason string `json:"reason,omitempty"`

	DurationSeconds float64 `json:"duration_seconds"`
}

// Outcome implements [Report].
func (r *WorkerSpawnReport) Outcome() Outcome {
	switch r.Worker.State {
	case WorkerFailed, WorkerStopped, WorkerDraining:
		return OutcomeFailed
	default:
		return OutcomeOK
	}
}

// WorkerListReport is what [WorkerProcessList] ends with.
type WorkerListReport struct {
	Workers []WorkerProcess `json:"workers"` // sorted by hive, then by age

	// Errors are the hives that could not be asked.
	Errors []*Error `json:"errors,omitempty"`
}

// Outcome implements [Report].
func (r *WorkerListReport) Outcome() Outcome { return errorsOutcome(r.Errors) }

// errorsOutcome is what a list comes to when some hives could not be asked.
func errorsOutcome(errs []*Error) Outcome {
	out := OutcomeOK
	for _, e := range errs {
		if e.Code != CodeUnreachable {
			return OutcomeFailed
		}
		out = OutcomeUnreachable
	}
	return out
}

// WorkerGetReport is what [WorkerProcessGet] ends with.
type WorkerGetReport struct {
	Worker WorkerProcess `json:"worker"`
}

// Outcome implements [Report]; it is always ok.
func (*WorkerGetReport) Outcome() Outcome { return OutcomeOK }

// WorkerDeleteReport is what [WorkerProcessDelete] ends with.
type WorkerDeleteReport struct {
	Worker WorkerProcess `json:"worker"`

	// Killed means that SIGTERM was not enough.
	Killed bool `json:"killed,omitempty"`

	// Holders are processes that still hold memory on the devices which the
	// worker had. Those are no processes of the worker: it has none left.
	Holders []DeviceProcess `json:"holders,omitempty"`

	// Problem says that device memory did not come back in time. Empty if it
	// did, or if the worker had no device.
	Problem string `json:"problem,omitempty"`

	// Note says that less device memory is free than before the worker came, where
	// others may have taken it whom the machine's tools do not tell. Mostly empty.
	Note string `json:"note,omitempty"`

	DurationSeconds float64 `json:"duration_seconds"`
}

// Outcome implements [Report].
func (r *WorkerDeleteReport) Outcome() Outcome {
	if r.Problem != "" || r.Worker.State != WorkerStopped {
		return OutcomeFailed
	}
	return OutcomeOK
}

// WorkerLogsReport is what [WorkerProcessLogs] ends with; the log itself came in
// events.
type WorkerLogsReport struct {
	ID    string      `json:"id"`
	Path  string      `json:"path"` // on the hive
	State WorkerState `json:"state"`
}

// Outcome implements [Report]; it is always ok.
func (*WorkerLogsReport) Outcome() Outcome { return OutcomeOK }

// Model is a model on a hive's disk.
type Model struct {
	// ID names it to the other operations: org/repo, with ":file" where a
	// repository holds several models, and "@revision" for another than main.
	ID string `json:"id"`

	// Hive is the alias of its hive.
	Hive string `json:"hive,omitempty"`

	// Repo is org/repo, or local/name for a file that came by address.
	// Revisions are the names under which Commit was asked for.
	Repo      string   `json:"repo"`
	Revisions []string `json:"revisions,omitempty"`
	Commit    string   `json:"commit,omitempty"`

	// Format is "gguf", "safetensors", or empty for anything else.
	Format string `json:"format,omitempty"`

	// Path is what an engine is given: a file, or the directory of the snapshot.
	Path string `json:"path,omitempty"`

	// Bytes is the size of all files that are there.
	Bytes int64 `json:"bytes"`

	// Complete is false for a download that is not finished: PartialBytes of it
	// are there. Other programs' models count as complete if nothing is known
	// to be missing.
	Complete     bool  `json:"complete"`
	PartialBytes int64 `json:"partial_bytes,omitempty"`

	// Files are sorted by path; only in the answer to [ModelGet] and [ModelDownload].
	Files []ModelFile `json:"files,omitempty"`

	// MemoryEstimate is the device memory that serving it takes with its usual
	// context, in bytes; 0 if not known. Only in the answer to [ModelGet].
	MemoryEstimate int64 `json:"memory_estimate,omitempty"`

	// UsedBy are the ids of worker processes that serve it.
	UsedBy []string `json:"used_by,omitempty"`

	ModifiedAt time.Time `json:"modified_at,omitzero"`
}

// ModelFile is a file of a model.
type ModelFile struct {
	Path  string `json:"path"` // within the repository
	Bytes int64  `json:"bytes"`

	// SHA256 is that of its content, where that is known, in hex.
	SHA256 string `json:"sha256,omitempty"`

	// Missing means that the file is known and not there, or not whole.
	Missing bool `json:"missing,omitempty"`
}

// ModelDownloadReport is what [ModelDownload] ends with.
type ModelDownloadReport struct {
	Model Model `json:"model"`

	// Downloaded are the bytes that came over the net now, Resumed those that an
	// earlier download had left, and Present those of files that were there.
	Downloaded int64 `json:"downloaded_bytes"`
	Resumed    int64 `json:"resumed_bytes,omitempty"`
	Present    int64 `json:"present_bytes,omitempty"`

	DurationSeconds float64 `json:"duration_seconds"`
}

// Outcome implements [Report]; it is always ok.
func (*ModelDownloadReport) Outcome() Outcome { return OutcomeOK }

// ModelListReport is what [ModelList] ends with.
type ModelListReport struct {
	Models []Model `json:"models"` // sorted by hive, then by id

	// Errors are the hives that could not be asked.
	Errors []*Error `json:"errors,omitempty"`
}

// Outcome implements [Report].
func (r *ModelListReport) Outcome() Outcome { return errorsOutcome(r.Errors) }

// ModelGetReport is what [ModelGet] ends with.
type ModelGetReport struct {
	Model Model `json:"model"`
}

// Outcome implements [Report]; it is always ok.
func (*ModelGetReport) Outcome() Outcome { return OutcomeOK }

// ModelDeleteReport is what [ModelDelete] ends with.
type ModelDeleteReport struct {
	Model Model `json:"model"` // as it was

	// Freed are the bytes that the disk got back, Kept those that other models
	// need.
	Freed int64 `json:"freed_bytes"`
	Kept  int64 `json:"kept_bytes,omitempty"`
}

// Outcome implements [Report]; it is always ok.
func (*ModelDeleteReport) Outcome() Outcome { return OutcomeOK }

// InferReport is what [Infer] ends with.
type InferReport struct {
	// Text is the whole answer.
	Text string `json:"text"`

	// Files are what a workflow made, and Seed is the one that it was given.
	Files []InferFile `json:"files,omitempty"`
	Seed  *int64      `json:"seed,omitempty"`

	// Model, Hive and WorkerID say who answered.
	Model    string `json:"model,omitempty"`
	Hive     string `json:"hive,omitempty"`
	WorkerID string `json:"worker_id,omitempty"`

	// FinishReason is the engine's own word: "stop", "length".
	FinishReason string `json:"finish_reason,omitempty"`

	// PromptTokens and CompletionTokens are the engine's own count; 0 if it gave none.
	PromptTokens     int `json:"prompt_tokens,omitempty"`
	CompletionTokens int `json:"completion_tokens,omitempty"`

	// FirstTokenSeconds is the time to the first token, DurationSeconds that to
	// the last.
	FirstTokenSeconds float64 `json:"first_token_seconds,omitempty"`
	DurationSeconds   float64 `json:"duration_seconds"`
}

// InferFile is a file that a workflow made.
type InferFile struct {
	// Name is its name at the worker, without directories.
	Name string `json:"name"`

	// Node is the id of the node that made it, and Kind what that calls it, such
	// as "images".
	Node string `json:"node,omitempty"`
	Kind string `json:"kind,omitempty"`

	// Bytes is its size.
	Bytes int64 `json:"bytes"`

	// Data is what is in it. Who saves it may put Path in its place.
	Data []byte `json:"data,omitempty"`
	Path string `json:"path,omitempty"`
}

// Outcome implements [Report]; it is always ok.
func (*InferReport) Outcome() Outcome { return OutcomeOK }

// HiveCapabilitiesReport is what [HiveCapabilities] ends with: what the machine
// has. Numbers that are not known are 0 or nil.
type HiveCapabilitiesReport struct {
	Alias    string `json:"alias"`
	Hostname string `json:"hostname,omitempty"`

	// OS and Arch are as Go names them; Kernel is the kernel's release, Libc
	// "glibc 2.36", "musl" or empty.
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel,omitempty"`
	Libc   string `json:"libc,omitempty"`

	CPU CPU `json:"cpu"`

	// MemoryTotal and MemoryAvailable are of the machine's RAM, in bytes.
	MemoryTotal     uint64 `json:"memory_total,omitempty"`
	MemoryAvailable uint64 `json:"memory_available,omitempty"`

	// DiskTotal and DiskFree are of the filesystem that rbee's directory is on,
	// in bytes; ModelsPath is where models lie, on a disk with ModelsFree.
	DiskTotal  uint64 `json:"disk_total,omitempty"`
	DiskFree   uint64 `json:"disk_free,omitempty"`
	ModelsPath string `json:"models_path,omitempty"`
	ModelsFree uint64 `json:"models_free,omitempty"`

	// CUDA is the newest CUDA version that the driver runs; empty without NVIDIA.
	CUDA string `json:"cuda,omitempty"`

	// Devices are the accelerators, sorted by vendor and index; one that cannot
	// be used has its Error set.
	Devices []gpu.Device `json:"devices"`

	// Processes hold memory on the devices, whosever they are.
	Processes []DeviceProcess `json:"processes,omitempty"`
}

// Outcome implements [Report]; it is always ok.
func (*HiveCapabilitiesReport) Outcome() Outcome { return OutcomeOK }

// CPU is a machine's processor.
type CPU struct {
	Model string `json:"model,omitempty"`

	// Threads is how many run at once as this user may use them.
	Threads int `json:"threads"`
}

// DeviceProcess is a process that holds memory on an accelerator.
type DeviceProcess struct {
	Vendor     string  `json:"vendor,omitempty"`
	DeviceUUID string  `json:"device_uuid,omitempty"`
	PID        int     `json:"pid"`
	Name       string  `json:"name,omitempty"`
	User       string  `json:"user,omitempty"` // empty if that cannot be seen
	Memory     *uint64 `json:"memory,omitempty"`

	// WorkerID is the worker process that it belongs to; empty for a stranger.
	WorkerID string `json:"worker_id,omitempty"`
}

// ParseReport reads the report of an operation of this kind from its JSON.
// Fields that this rbee does not know are passed over: the other side may be newer.
func ParseReport(kind Kind, data []byte) (Report, error) {
	for _, e := range all {
		if e.kind != kind {
			continue
		}
		r := e.report()
		if err := json.Unmarshal(data, r); err != nil {
			return nil, fmt.Errorf("the report of %s: %w", kind, err)
		}
		return r, nil
	}
	return nil, badOperation("unknown operation %q", kind)
}
