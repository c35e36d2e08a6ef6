package operations

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
)

// WorkerState is the state of a worker process.
type WorkerState string

// The states of a worker process. The usual order is starting, loading, ready, draining,
// stopped. A worker in the state starting, loading or ready can become failed. A failed
// worker is restarted or stopped.
const (
	WorkerStarting WorkerState = "starting" // the process is being started
	WorkerLoading  WorkerState = "loading"  // the process is running but not ready to serve
	WorkerReady    WorkerState = "ready"    // the worker serves requests
	WorkerDraining WorkerState = "draining" // the worker is stopping: it finishes in-flight requests and accepts no new ones
	WorkerStopped  WorkerState = "stopped"  // the worker was stopped
	WorkerFailed   WorkerState = "failed"   // the process exited unexpectedly; RestartAt is the time of the next attempt
)

// WorkerProcess is one worker process on a hive.
type WorkerProcess struct {
	// ID is the worker ID: the worker type, a dash and a few characters. It does not
	// change when the process is restarted.
	ID string `json:"id"`

	// Hive is the alias of the hive.
	Hive string `json:"hive,omitempty"`

	// Worker is the worker type, and Version its installed version.
	Worker  string `json:"worker"`
	Version string `json:"version,omitempty"`

	// Model is the model as given in [WorkerSpawn]. ModelID is its [Model.ID] and
	// ModelFile the name of its file; both are empty if the worker does not load a
	// model from disk.
	Model     string `json:"model"`
	ModelID   string `json:"model_id,omitempty"`
	ModelFile string `json:"model_file,omitempty"`

	// ServedName is the name of the model in the API of the engine. Empty if it equals
	// Model.
	ServedName string `json:"serves,omitempty"`

	// OnDemand reports whether the queen started the worker for a request.
	OnDemand bool `json:"on_demand,omitempty"`

	// API is the API of the worker: "comfyui", or empty for the OpenAI API.
	API string `json:"api,omitempty"`

	State WorkerState `json:"state"`

	// PID is the ID of the process, which is the leader of its process group. 0 if the
	// worker has no process.
	PID int `json:"pid,omitempty"`

	// Port is the loopback port that the worker listens on.
	Port int `json:"port,omitempty"`

	// Devices lists the accelerators assigned to the worker. Empty means CPU only.
	Devices []WorkerDevice `json:"devices,omitempty"`

	// MemoryEstimate is the estimated device memory in bytes, summed over all devices.
	// 0 if not known.
	MemoryEstimate int64 `json:"memory_estimate,omitempty"`

	// Argv is the command line. EnvNames lists the names of the variables that were
	// added to the environment.
	Argv     []string `json:"argv,omitempty"`
	EnvNames []string `json:"env_names,omitempty"`

	// CreatedAt is the time when the worker was created. StartedAt is the last start of
	// its process, ReadyAt the time when that process became ready, and EndedAt the
	// time when it exited. A time is zero if the event has not happened yet.
	CreatedAt time.Time `json:"created_at,omitzero"`
	StartedAt time.Time `json:"started_at,omitzero"`
	ReadyAt   time.Time `json:"ready_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`

	// Restarts is the number of restarts after failures. RestartAt is the time of the
	// next restart; zero if none is scheduled.
	Restarts  int       `json:"restarts,omitempty"`
	RestartAt time.Time `json:"restart_at,omitzero"`

	// Adopted reports whether a previous hive daemon started the process.
	Adopted bool `json:"adopted,omitempty"`

	// Requests is the number of in-flight requests that the hive proxies to the worker.
	Requests int `json:"requests,omitempty"`

	// ExitStatus is the exit status of the last process that exited unexpectedly. It is
	// nil if no process has exited unexpectedly. It is also nil if a signal terminated
	// the process or the status is not known; Problem then contains the details.
	ExitStatus *int `json:"exit_status,omitempty"`

	// Problem describes the current problem or the last failure. May be empty.
	Problem string `json:"problem,omitempty"`

	// LogPath is the path of the log on the hive. LogTail contains its last lines; it is
	// set for failed workers and in a [WorkerGetReport].
	LogPath string   `json:"log_path,omitempty"`
	LogTail []string `json:"log_tail,omitempty"`
}

// WorkerDevice is an accelerator that is assigned to a worker.
type WorkerDevice struct {
	Index  int    `json:"index"`
	Vendor string `json:"vendor,omitempty"`
	UUID   string `json:"uuid,omitempty"`
	Name   string `json:"name,omitempty"`
}

// WorkerSpawnReport is the report of [WorkerSpawn].
type WorkerSpawnReport struct {
	Worker WorkerProcess `json:"worker"`

	// Reason explains the choice of devices, including the memory calculation.
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

// WorkerListReport is the report of [WorkerProcessList].
type WorkerListReport struct {
	Workers []WorkerProcess `json:"workers"` // sorted by hive, then by age

	// Errors has one error for each hive that could not be queried.
	Errors []*Error `json:"errors,omitempty"`
}

// Outcome implements [Report].
func (r *WorkerListReport) Outcome() Outcome { return errorsOutcome(r.Errors) }

// errorsOutcome returns the outcome of a list operation with these errors.
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

// WorkerGetReport is the report of [WorkerProcessGet].
type WorkerGetReport struct {
	Worker WorkerProcess `json:"worker"`
}

// Outcome returns [OutcomeOK].
func (*WorkerGetReport) Outcome() Outcome { return OutcomeOK }

// WorkerDeleteReport is the report of [WorkerProcessDelete].
type WorkerDeleteReport struct {
	Worker WorkerProcess `json:"worker"`

	// Killed reports whether the processes were killed because they did not exit after
	// SIGTERM.
	Killed bool `json:"killed,omitempty"`

	// Holders lists other processes that use memory on the devices of the worker. All
	// processes of the worker itself have exited.
	Holders []DeviceProcess `json:"holders,omitempty"`

	// Problem is set if the device memory was not freed in time.
	Problem string `json:"problem,omitempty"`

	// Note is set if less device memory is free than before the worker started. A
	// process that is not visible to rbee may be using the missing memory.
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

// WorkerLogsReport is the report of [WorkerProcessLogs]. The log itself is sent in events.
type WorkerLogsReport struct {
	ID    string      `json:"id"`
	Path  string      `json:"path"` // on the hive
	State WorkerState `json:"state"`
}

// Outcome returns [OutcomeOK].
func (*WorkerLogsReport) Outcome() Outcome { return OutcomeOK }

// Model is a model on a hive's disk.
type Model struct {
	// ID identifies the model in other operations: org/repo, followed by ":file" if the
	// repository contains several models, and by "@revision" unless that is main.
	ID string `json:"id"`

	// Hive is the alias of the hive.
	Hive string `json:"hive,omitempty"`

	// Repo is org/repo, or local/name for a file that was downloaded from a URL.
	// Commit is the downloaded commit, and Revisions lists the revision names, such as
	// "main", that resolved to it.
	Repo      string   `json:"repo"`
	Revisions []string `json:"revisions,omitempty"`
	Commit    string   `json:"commit,omitempty"`

	// Format is "gguf" or "safetensors". Empty for other formats.
	Format string `json:"format,omitempty"`

	// Path is the path that is passed to an engine: a file, or the directory of the
	// repository snapshot.
	Path string `json:"path,omitempty"`

	// Bytes is the total size of the files on disk.
	Bytes int64 `json:"bytes"`

	// Complete reports whether all files were downloaded. PartialBytes is the number of
	// bytes downloaded so far of incomplete files. A model that another program
	// downloaded counts as complete unless files are known to be missing.
	Complete     bool  `json:"complete"`
	PartialBytes int64 `json:"partial_bytes,omitempty"`

	// Files lists the files, sorted by path. Set only by [ModelGet] and [ModelDownload].
	Files []ModelFile `json:"files,omitempty"`

	// MemoryEstimate is the estimated device memory to serve the model with its default
	// context length, in bytes. 0 if not known. Set only by [ModelGet].
	MemoryEstimate int64 `json:"memory_estimate,omitempty"`

	// UsedBy lists the IDs of the worker processes that serve the model.
	UsedBy []string `json:"used_by,omitempty"`

	ModifiedAt time.Time `json:"modified_at,omitzero"`
}

// ModelFile is a file of a model.
type ModelFile struct {
	Path  string `json:"path"` // within the repository
	Bytes int64  `json:"bytes"`

	// SHA256 is the checksum of the content in hex. Empty if not known.
	SHA256 string `json:"sha256,omitempty"`

	// Missing reports whether the file is missing or incomplete.
	Missing bool `json:"missing,omitempty"`
}

// ModelDownloadReport is the report of [ModelDownload].
type ModelDownloadReport struct {
	Model Model `json:"model"`

	// DownloadedBytes is the number of bytes transferred by this operation.
	DownloadedBytes int64 `json:"downloaded_bytes"`

	// ResumedBytes is the number of bytes reused from an earlier partial download.
	ResumedBytes int64 `json:"resumed_bytes,omitempty"`

	// PresentBytes is the size of the files that were already complete, in bytes.
	PresentBytes int64 `json:"present_bytes,omitempty"`

	DurationSeconds float64 `json:"duration_seconds"`
}

// Outcome returns [OutcomeOK].
func (*ModelDownloadReport) Outcome() Outcome { return OutcomeOK }

// ModelListReport is the report of [ModelList].
type ModelListReport struct {
	Models []Model `json:"models"` // sorted by hive, then by ID

	// Errors has one error for each hive that could not be queried.
	Errors []*Error `json:"errors,omitempty"`
}

// Outcome implements [Report].
func (r *ModelListReport) Outcome() Outcome { return errorsOutcome(r.Errors) }

// ModelGetReport is the report of [ModelGet].
type ModelGetReport struct {
	Model Model `json:"model"`
}

// Outcome returns [OutcomeOK].
func (*ModelGetReport) Outcome() Outcome { return OutcomeOK }

// ModelDeleteReport is the report of [ModelDelete].
type ModelDeleteReport struct {
	Model Model `json:"model"` // the model before it was deleted

	// FreedBytes is the number of bytes freed on disk.
	FreedBytes int64 `json:"freed_bytes"`

	// KeptBytes is the size of the files that other models share, in bytes.
	KeptBytes int64 `json:"kept_bytes,omitempty"`
}

// Outcome returns [OutcomeOK].
func (*ModelDeleteReport) Outcome() Outcome { return OutcomeOK }

// InferReport is the report of [Infer].
type InferReport struct {
	// Text is the complete answer.
	Text string `json:"text"`

	// Files lists the output files of a workflow, and Seed is the seed that it used.
	Files []InferFile `json:"files,omitempty"`
	Seed  *int64      `json:"seed,omitempty"`

	// Model, Hive and WorkerID identify the worker that processed the request.
	Model    string `json:"model,omitempty"`
	Hive     string `json:"hive,omitempty"`
	WorkerID string `json:"worker_id,omitempty"`

	// FinishReason is the finish reason that the engine reports, such as "stop" or
	// "length".
	FinishReason string `json:"finish_reason,omitempty"`

	// PromptTokens and CompletionTokens are the token counts that the engine reports; 0
	// if it reports none.
	PromptTokens     int `json:"prompt_tokens,omitempty"`
	CompletionTokens int `json:"completion_tokens,omitempty"`

	// FirstTokenSeconds is the time to the first token, and DurationSeconds the time to
	// the last token.
	FirstTokenSeconds float64 `json:"first_token_seconds,omitempty"`
	DurationSeconds   float64 `json:"duration_seconds"`
}

// InferFile is an output file of a workflow.
type InferFile struct {
	// Name is the base name of the file on the worker.
	Name string `json:"name"`

	// Node is the ID of the node that produced the file, and Kind the name of the
	// node's output, such as "images".
	Node string `json:"node,omitempty"`
	Kind string `json:"kind,omitempty"`

	// Bytes is the size of the file.
	Bytes int64 `json:"bytes"`

	// Data is the content. A program that saves the file may clear Data and set Path.
	Data []byte `json:"data,omitempty"`
	Path string `json:"path,omitempty"`
}

// Outcome returns [OutcomeOK].
func (*InferReport) Outcome() Outcome { return OutcomeOK }

// HiveCapabilitiesReport is the report of [HiveCapabilities]. It describes the hardware
// and the platform of a hive. Unknown numbers are 0 or nil.
type HiveCapabilitiesReport struct {
	Alias    string `json:"alias"`
	Hostname string `json:"hostname,omitempty"`

	// OS and Arch are the values of runtime.GOOS and runtime.GOARCH. Kernel is the
	// kernel release. Libc is, for example, "glibc 2.36" or "musl"; it may be empty.
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel,omitempty"`
	Libc   string `json:"libc,omitempty"`

	CPU CPU `json:"cpu"`

	// MemoryTotal and MemoryAvailable describe the main memory, in bytes.
	MemoryTotal     uint64 `json:"memory_total,omitempty"`
	MemoryAvailable uint64 `json:"memory_available,omitempty"`

	// DiskTotal and DiskFree describe the file system of rbee's directory, in bytes.
	// ModelsPath is the directory of the models, and ModelsFree the free space on its
	// file system, in bytes.
	DiskTotal  uint64 `json:"disk_total,omitempty"`
	DiskFree   uint64 `json:"disk_free,omitempty"`
	ModelsPath string `json:"models_path,omitempty"`
	ModelsFree uint64 `json:"models_free,omitempty"`

	// CUDA is the newest CUDA version that the driver supports. Empty without an NVIDIA
	// driver.
	CUDA string `json:"cuda,omitempty"`

	// Devices lists the accelerators, sorted by vendor and index. Unusable devices have
	// an Error.
	Devices []gpu.Device `json:"devices"`

	// Processes lists all processes that use memory on the devices.
	Processes []DeviceProcess `json:"processes,omitempty"`
}

// Outcome returns [OutcomeOK].
func (*HiveCapabilitiesReport) Outcome() Outcome { return OutcomeOK }

// CPU describes the processor of a machine.
type CPU struct {
	Model string `json:"model,omitempty"`

	// Threads is the number of hardware threads available to the user of rbee.
	Threads int `json:"threads"`
}

// DeviceProcess is a process that uses memory on an accelerator.
type DeviceProcess struct {
	Vendor     string  `json:"vendor,omitempty"`
	DeviceUUID string  `json:"device_uuid,omitempty"`
	PID        int     `json:"pid"`
	Name       string  `json:"name,omitempty"`
	User       string  `json:"user,omitempty"`   // empty if not known
	Memory     *uint64 `json:"memory,omitempty"` // in bytes; nil if not known

	// WorkerID is the ID of the worker that the process belongs to. Empty if it does not
	// belong to a worker.
	WorkerID string `json:"worker_id,omitempty"`
}

// ParseReport parses the JSON form of the report of an operation of the given kind. It
// ignores unknown fields, which a newer rbee may send.
func ParseReport(kind Kind, data []byte) (Report, error) {
	for _, e := range registry {
		if e.kind != kind {
			continue
		}
		r := e.newReport()
		if err := json.Unmarshal(data, r); err != nil {
			return nil, fmt.Errorf("cannot parse the report of %s: %w", kind, err)
		}
		return r, nil
	}
	return nil, badOperation("unknown operation %q", kind)
}
