package workers

import (
	"errors"
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

// record is what is on disk of a worker: enough to go on with it.
type record struct {
	ID      string `json:"id"`
	Worker  string `json:"worker"`
	Version string `json:"version,omitempty"`
	Model   string `json:"model"`

	// ModelID names the model on disk, if the recipe asks for it, ModelFile is the
	// name of its file, and Serves what the engine calls it, if not Model.
	ModelID   string `json:"model_id,omitempty"`
	ModelFile string `json:"model_file,omitempty"`
	Serves    string `json:"serves,omitempty"`

	// What was asked for.
	Device        string            `json:"device,omitempty"`
	AskedPort     int               `json:"asked_port,omitempty"`
	ContextLength int               `json:"context_length,omitempty"`
	Parallel      int               `json:"parallel,omitempty"`
	OnDemand      bool              `json:"on_demand,omitempty"`
	Env           map[string]string `json:"env,omitempty"`
	Args          []string          `json:"args,omitempty"`

	State operations.WorkerState `json:"state"`

	// Mark is the value of RBEE_WORKER in the environment of its processes.
	Mark string `json:"mark"`

	// Boot is the boot of the machine in which the state was entered.
	Boot string `json:"boot"`

	// Process leads the worker's group, and Members are others that were seen to
	// belong to it, sorted by pid.
	Process proc.ID   `json:"process"`
	Members []proc.ID `json:"members,omitempty"`

	// Argv is the command line; the program alone while its start waits, so that
	// its files stay.
	Argv []string `json:"argv,omitempty"`
	Port int      `json:"port,omitempty"`

	// Launch is how it was started, which may not be how it would be now, and
	// Prepare what it is asked before it is ready, with nothing left to replace.
	Launch  wire.Launch        `json:"launch"`
	Prepare []wire.HTTPRequest `json:"prepare,omitempty"`

	Devices  []operations.WorkerDevice `json:"devices,omitempty"`
	Estimate int64                     `json:"memory_estimate,omitempty"`
	Reason   string                    `json:"reason,omitempty"`

	// Before is the memory of each device before the worker came, by [deviceKey].
	Before map[string]deviceMemory `json:"before,omitempty"`

	CreatedAt time.Time `json:"created_at"`
	StartedAt time.Time `json:"started_at,omitzero"`
	ReadyAt   time.Time `json:"ready_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`

	// EverReady: a worker that has served is worth another try. Restarts counts
	// all tries after the first, Failures those since it last was steady.
	EverReady bool      `json:"ever_ready,omitempty"`
	Restarts  int       `json:"restarts,omitempty"`
	Failures  int       `json:"failures,omitempty"`
	RestartAt time.Time `json:"restart_at,omitzero"`

	ExitStatus *int   `json:"exit_status,omitempty"`
	Problem    string `json:"problem,omitempty"`
}

// ended is true for a worker that nothing will be done about any more.
func (r *record) ended() bool {
	return r.State == operations.WorkerStopped || r.State == operations.WorkerFailed && r.RestartAt.IsZero()
}

// public is the record as reports tell it.
func (r *record) public() operations.WorkerProcess {
	p := operations.WorkerProcess{
		ID: r.ID, Worker: r.Worker, Version: r.Version, Model: r.Model, ModelID: r.ModelID, ModelFile: r.ModelFile, Serves: r.Serves, OnDemand: r.OnDemand, State: r.State, Port: r.Port, API: r.Launch.API,
		Devices: slices.Clone(r.Devices), MemoryEstimate: r.Estimate, Argv: slices.Clone(r.Argv),
		EnvNames:  slices.Sorted(maps.Keys(r.Env)),
		CreatedAt: r.CreatedAt, StartedAt: r.StartedAt, ReadyAt: r.ReadyAt, EndedAt: r.EndedAt,
		Restarts: r.Restarts, RestartAt: r.RestartAt, ExitStatus: r.ExitStatus, Problem: r.Problem,
	}
	switch r.State {
	case operations.WorkerLoading, operations.WorkerReady, operations.WorkerDraining:
		p.PID = r.Process.PID
	case operations.WorkerStarting, operations.WorkerFailed, operations.WorkerStopped:
		p.Port = r.AskedPort
	}
	return p
}

// path is the file of a worker's record.
func (m *Manager) path(id string) string { return filepath.Join(m.o.Dir, id+".json") }

// listRecords reads the records in a directory and changes nothing there: a hive
// that runs may be writing one. broken, if not nil, is told of each file that holds
// none, or one that only a newer rbee can read; the others are not to suffer for it.
func listRecords(dir string, broken func(path string, err error)) ([]*record, error) {
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
		if err == nil && (r.ID != id || r.Mark == "") {
			err = errors.New("it is no record of " + id)
		}
		switch {
		case err == nil:
			all = append(all, r)
		case broken != nil:
			broken(path, err)
		}
	}
	return all, nil
}

// takeRecords reads all records for the one who writes them. One that cannot be read
// is set aside under another name: what it was about can no longer be known. One that
// a newer rbee wrote so that this one cannot read it stays as it is, and so does its
// process; newer has its error, by the worker's id.
func (m *Manager) takeRecords() (records []*record, newer map[string]error, err error) {
	entries, err := os.ReadDir(m.o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, e := range entries {
		if atomicfile.IsTemp(e.Name()) && strings.Contains(e.Name(), ".json") && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(m.o.Dir, e.Name())) // of a hive that was killed
		}
	}
	newer = map[string]error{}
	records, err = listRecords(m.o.Dir, func(path string, err error) {
		if isNewer(err) {
			m.log.Error("cannot read the record of a worker; its process is left alone", "file", path, "error", err)
			newer[strings.TrimSuffix(filepath.Base(path), ".json")] = err
			return
		}
		m.log.Error("a worker's record cannot be read and is set aside", "file", path, "error", err)
		_ = os.Rename(path, path+".broken")
	})
	return records, newer, err
}

// isNewer reports whether a record cannot be read because a newer rbee wrote it.
func isNewer(err error) bool {
	var newer *wire.NewerSchemaError
	return errors.As(err, &newer)
}
