package workers

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// record is the file that describes a worker. It has everything that the next hive daemon
// needs to continue the worker.
type record struct {
	ID      string `json:"id"`
	Worker  string `json:"worker"`
	Version string `json:"version,omitempty"`
	Model   string `json:"model"`

	// ModelID identifies the model on disk and ModelFile is the name of its file, if
	// the recipe uses them. Serves is the engine's name for the model if it is not Model.
	ModelID   string `json:"model_id,omitempty"`
	ModelFile string `json:"model_file,omitempty"`
	Serves    string `json:"serves,omitempty"`

	// The request.
	Device        string            `json:"device,omitempty"`
	RequestedPort int               `json:"asked_port,omitempty"`
	ContextLength int               `json:"context_length,omitempty"`
	Parallel      int               `json:"parallel,omitempty"`
	OnDemand      bool              `json:"on_demand,omitempty"`
	Env           map[string]string `json:"env,omitempty"`
	Args          []string          `json:"args,omitempty"`

	State operations.WorkerState `json:"state"`

	// Marker is the value of RBEE_WORKER in the environment of the worker's processes.
	Marker string `json:"mark"`

	// Boot identifies the boot of the machine in which the state was entered.
	Boot string `json:"boot"`

	// Process leads the worker's group. Members are its other processes, sorted by PID.
	Process proc.ID   `json:"process"`
	Members []proc.ID `json:"members,omitempty"`

	// Argv is the command line. While a start waits it contains only the program, so
	// that an installation keeps the program's files.
	Argv []string `json:"argv,omitempty"`
	Port int      `json:"port,omitempty"`

	// Launch is the recipe's launch section at the start of the process, which an
	// upgrade may have changed since. Prepare holds its prepare requests, expanded.
	Launch  wire.Launch        `json:"launch"`
	Prepare []wire.HTTPRequest `json:"prepare,omitempty"`

	Devices  []operations.WorkerDevice `json:"devices,omitempty"`
	Estimate int64                     `json:"memory_estimate,omitempty"`
	Reason   string                    `json:"reason,omitempty"`

	// Before is the memory of each device before the worker started, by [deviceKey].
	Before map[string]deviceMemory `json:"before,omitempty"`

	CreatedAt time.Time `json:"created_at"`
	StartedAt time.Time `json:"started_at,omitzero"`
	ReadyAt   time.Time `json:"ready_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`

	// EverReady permits restarts: a worker that was never ready is not restarted.
	// Restarts counts all restarts, Failures only those since the worker was last
	// steady, see [Timing].SteadyAfter.
	EverReady bool      `json:"ever_ready,omitempty"`
	Restarts  int       `json:"restarts,omitempty"`
	Failures  int       `json:"failures,omitempty"`
	RestartAt time.Time `json:"restart_at,omitzero"`

	ExitStatus *int   `json:"exit_status,omitempty"`
	Problem    string `json:"problem,omitempty"`
}

// isTerminal reports whether the state of the worker is final.
func (r *record) isTerminal() bool {
	return r.State == operations.WorkerStopped || r.State == operations.WorkerFailed && r.RestartAt.IsZero()
}

// report returns the record as shown in reports.
func (r *record) report() operations.WorkerProcess {
	p := operations.WorkerProcess{
		ID: r.ID, Worker: r.Worker, Version: r.Version, Model: r.Model, ModelID: r.ModelID, ModelFile: r.ModelFile, ServedName: r.Serves, OnDemand: r.OnDemand, State: r.State, Port: r.Port, API: r.Launch.API,
		Devices: slices.Clone(r.Devices), MemoryEstimate: r.Estimate, Argv: slices.Clone(r.Argv),
		EnvNames:  slices.Sorted(maps.Keys(r.Env)),
		CreatedAt: r.CreatedAt, StartedAt: r.StartedAt, ReadyAt: r.ReadyAt, EndedAt: r.EndedAt,
		Restarts: r.Restarts, RestartAt: r.RestartAt, ExitStatus: r.ExitStatus, Problem: r.Problem,
	}
	switch r.State {
	case operations.WorkerLoading, operations.WorkerReady, operations.WorkerDraining:
		p.PID = r.Process.PID
	case operations.WorkerStarting, operations.WorkerFailed, operations.WorkerStopped:
		p.Port = r.RequestedPort
	}
	return p
}

// path returns the path of a worker's record.
func (m *Manager) path(id string) string { return filepath.Join(m.o.Dir, id+".json") }

// listRecords reads the records in a directory. It changes nothing there, because a hive
// daemon may be writing records. It calls onError, if not nil, for each file that is not a
// record or that only a newer rbee can read, and skips the file.
func listRecords(dir string, onError func(path string, err error)) ([]*record, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []*record
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(id, ".") {
			continue
		}
		path, r := filepath.Join(dir, e.Name()), new(record)
		err := statefile.Read(path, r)
		if err == nil && (r.ID != id || r.Marker == "") {
			err = fmt.Errorf("invalid record of worker %s: its ID is %q or it has no mark", id, r.ID)
		}
		switch {
		case err == nil:
			all = append(all, r)
		case onError != nil:
			onError(path, err)
		}
	}
	return all, nil
}

// recoverRecords reads all records for the hive daemon. It renames invalid records. It
// changes neither a record that only a newer rbee can read nor the worker's process; newer
// contains the errors of such records by worker ID.
func (m *Manager) recoverRecords() (records []*record, newer map[string]error, err error) {
	entries, err := os.ReadDir(m.o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, e := range entries {
		if atomicfile.IsTemp(e.Name()) && strings.Contains(e.Name(), ".json") && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(m.o.Dir, e.Name())) // left by a daemon that was killed
		}
	}
	newer = map[string]error{}
	records, err = listRecords(m.o.Dir, func(path string, err error) {
		if isNewer(err) {
			m.log.Error("cannot read worker record of a newer rbee", "file", path, "error", err)
			newer[strings.TrimSuffix(filepath.Base(path), ".json")] = err
			return
		}
		m.log.Error("invalid worker record renamed", "file", path, "error", err)
		_ = os.Rename(path, path+".broken")
	})
	return records, newer, err
}

// isNewer reports whether err means that only a newer rbee can read the record.
func isNewer(err error) bool {
	var newer *wire.NewerSchemaError
	return errors.As(err, &newer)
}
