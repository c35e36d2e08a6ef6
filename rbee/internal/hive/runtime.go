package hive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/machine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/models"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// Places of the runtime below the home.
const (
	workerRecords = wire.RunDir + "/workers"
	workerLogs    = wire.LogsDir + "/workers"
)

// runner does the runtime operations on this machine. It is the Runner of the
// daemon's jobs.
type runner struct {
	machine machine.Machine
	workers *workers.Manager
	models  *models.Store
}

var _ operations.Runner = (*runner)(nil)

// machine is what this machine has.
func (h *Hive) machine() machine.Machine {
	m := machine.Machine{Home: h.Home, Detector: h.Detector}
	if m.Detector == nil {
		m.Detector = &h.detector
	}
	m.ModelsPath, _ = models.DefaultDir(h.env) // without a home directory there is none
	return m
}

func (h *Hive) env(name string) string {
	if name == "HOME" {
		home, _ := h.userHome()
		return home
	}
	return os.Getenv(name)
}

// Capabilities tells what this machine has, and who holds its accelerators' memory.
// It needs no daemon: which of them are workers is read from the workers' records.
func (h *Hive) Capabilities(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	var holders []operations.DeviceProcess
	var all sync.WaitGroup
	at := time.Now()
	all.Go(func() { holders = h.holders(ctx) })
	r, err := h.resources(ctx)
	all.Wait()
	if err != nil {
		return nil, err
	}
	r.Processes = holders
	_ = workers.Reserve(h.path(workerRecords), r.Devices, holders, at) // without records nothing is reserved
	return r, nil
}

// resources is what this machine has, without who uses it.
func (h *Hive) resources(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	m := h.machine()
	name, version := libc(ctx)
	if m.Libc = name; version != "" {
		m.Libc += " " + version
	}
	r, err := m.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	if s, err := h.settings(); err == nil {
		r.Alias = s.Alias
	}
	return r, nil
}

// holders are the processes that hold memory on the accelerators, those of workers
// with their ids. A tool that fails shows in its devices.
func (h *Hive) holders(ctx context.Context) []operations.DeviceProcess {
	list, _ := h.machine().Processes(ctx)
	if len(list) == 0 {
		return nil
	}
	whose, err := workers.Whose(h.path(workerRecords))
	if err != nil {
		return list // they hold the memory, whosever they are
	}
	for i := range list {
		list[i].WorkerID = whose[list[i].PID]
	}
	return list
}

// newRunner makes the runner; no worker is taken over yet.
func (h *Hive) newRunner(log *slog.Logger) (*runner, error) {
	dir, err := models.DefaultDir(h.env)
	if err != nil {
		return nil, fmt.Errorf("finding the place of models: %w", err)
	}
	rt := &runner{
		machine: h.machine(),
		models: &models.Store{
			Dir: dir, Endpoint: os.Getenv("HF_ENDPOINT"), Token: models.DefaultToken(h.env), HTTP: h.HTTP, UserAgent: "rbee/" + h.Version,
		},
	}
	rt.workers = workers.New(h.workerOptions(rt.models, log))
	return rt, nil
}

func (h *Hive) workerOptions(store *models.Store, log *slog.Logger) workers.Options {
	m := h.machine()
	return workers.Options{
		Dir: h.path(workerRecords), Logs: h.path(workerLogs), Engine: h.engine, Verify: h.verifyBeforeStart, Log: log,
		Model: func(ctx context.Context, model string, length int) (workers.Model, error) {
			return findModel(ctx, store, model, length)
		},
		Devices: m.Devices, Processes: m.Processes,
		Scopes: os.Getenv("RBEE_SUPERVISOR") == SupervisorSystemd && haveScopes(),
	}
}

func haveScopes() bool {
	_, err := exec.LookPath("systemd-run")
	return err == nil
}

// engine finds an installed worker type.
func (h *Hive) engine(ctx context.Context, typ string) (workers.Engine, error) {
	for {
		build := h.entryBuild(typ)
		e, err := h.engineFrom(ctx, typ, build)
		if err == nil || h.entryBuild(typ) == build {
			return e, err
		}
		// It was not there any more, for another has been installed meanwhile.
	}
}

// engineFrom is what the entry point leads to. One that was put there by hand, with
// no build, is started as the recipe says that is built into this rbee.
func (h *Hive) engineFrom(ctx context.Context, typ, build string) (workers.Engine, error) {
	fail := func(code operations.Code, reason operations.Reason, format string, args ...any) (workers.Engine, error) {
		return workers.Engine{}, &operations.Error{Code: code, Reason: reason, Subject: operations.SubjectWorker.Named(typ), Message: fmt.Sprintf(format, args...)}
	}
	if !validName(typ) {
		return fail(operations.CodeBadOperation, operations.ReasonInvalidOperation, "%q is no name for a worker type", typ)
	}
	w := h.workerFrom(ctx, typ, build, false)
	switch {
	case w == nil:
		return fail(operations.CodeNotFound, operations.ReasonWorkerNotInstalled, "worker type %s is not installed there", typ)
	case w.Corrupt != "":
		return fail(operations.CodeFailed, operations.ReasonWorkerDamaged, "worker type %s is damaged: %s", typ, w.Corrupt)
	}
	e := workers.Engine{Version: w.Version, Entry: h.entryPath(typ), Verify: w.Verify}
	if w.Version != "" {
		// The entry point itself may lead to another version tomorrow.
		dir := h.versionDir(typ, build)
		program, err := os.Readlink(filepath.Join(dir, entryName))
		if err != nil {
			return fail(operations.CodeFailed, operations.ReasonWorkerDamaged, "worker type %s is damaged: %v", typ, err)
		}
		e.Entry, e.Payload = filepath.Join(dir, program), filepath.Join(dir, payloadDir)
	}
	recipe, known := catalog.Builtin().Recipe(typ)
	switch {
	case w.Launch != nil:
		e.Launch = *w.Launch
	case known:
		e.Launch = *recipe.Launch(nil)
	default:
		return fail(operations.CodeFailed, operations.ReasonUnknownRecipe, "no recipe says how worker type %s is started: it was put there by hand", typ)
	}
	return e, nil
}

// findModel is a model as an engine gets it, with what it takes.
func findModel(ctx context.Context, store *models.Store, name string, length int) (workers.Model, error) {
	ref, err := model.ParseRef(name)
	if err != nil {
		return workers.Model{}, err
	}
	m, err := store.Find(ctx, ref)
	if err != nil {
		return workers.Model{}, err
	}
	found := workers.Model{ID: m.ID, Path: m.Path, Context: length}
	if found.SHA256, found.Sum, err = modelSum(m.Path); err != nil {
		return workers.Model{}, err
	}
	estimate, err := model.EstimateMemory(*m, length)
	if err != nil {
		found.Explain = "what it takes is not known: " + err.Error()
		return found, nil
	}
	found.Estimate, found.Explain = estimate.Total(), estimate.Explain()
	found.Context, found.Cache = int(estimate.Context), estimate.Cache
	return found, nil
}

// modelSum is the SHA-256 of a model's file, where the cache of the hub names the
// file by it; else how to compute it. A directory has neither.
func modelSum(path string) (known string, compute func(context.Context) (string, error), err error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", nil, err
	}
	if info, err := os.Stat(real); err != nil || info.IsDir() {
		return "", nil, err
	}
	if name := filepath.Base(real); len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "" {
		return name, nil, nil
	}
	return "", func(ctx context.Context) (string, error) { return fetch.Sum(ctx, real) }, nil
}

// Run implements [operations.Runner].
func (rt *runner) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	switch op := op.(type) {
	case operations.WorkerSpawn:
		return result(rt.workers.Spawn(ctx, op, events))
	case operations.WorkerProcessList:
		return &operations.WorkerListReport{Workers: rt.workers.List(op.All)}, nil
	case operations.WorkerProcessGet:
		w, err := rt.workers.Get(op.WorkerRef)
		if err != nil {
			return nil, err
		}
		return &operations.WorkerGetReport{Worker: *w}, nil
	case operations.WorkerProcessDelete:
		grace := time.Duration(op.GraceSeconds * float64(time.Second))
		return result(rt.workers.Stop(ctx, op.WorkerRef, workers.StopOptions{Grace: grace, Force: op.Force}))
	case operations.WorkerProcessLogs:
		return result(rt.workers.Logs(ctx, op, events))
	case operations.ModelDownload:
		return result(rt.download(ctx, op, events))
	case operations.ModelList:
		return result(rt.listModels(ctx))
	case operations.ModelGet:
		return result(rt.getModel(ctx, op.ID))
	case operations.ModelDelete:
		return result(rt.deleteModel(ctx, op.ID))
	case operations.HiveCapabilities:
		return result(rt.capabilities(ctx))
	default:
		return nil, &operations.Error{
			Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: fmt.Sprintf("a hive does not do %s: that is for the queen", op.Kind()),
		}
	}
}

// capabilities asks for everything at once: the vendors' tools are slow.
func (rt *runner) capabilities(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	var holders []operations.DeviceProcess
	var all sync.WaitGroup
	at := time.Now()
	all.Go(func() { holders = rt.workers.Holders(ctx) })
	r, err := rt.machine.Capabilities(ctx)
	all.Wait()
	if err != nil {
		return nil, err
	}
	r.Processes = holders
	rt.workers.Reserve(r.Devices, holders, at)
	return r, nil
}

// result keeps a nil pointer from becoming a report, and a cancelled operation
// from being a failed one.
func result[R interface {
	comparable
	operations.Report
}](r R, err error) (operations.Report, error) {
	var none R
	if err == nil && r != none {
		return r, nil
	}
	var e *operations.Error
	if errors.Is(err, context.Canceled) && !errors.As(err, &e) {
		err = &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: err.Error(), Err: err}
	}
	return nil, err
}

func (rt *runner) download(ctx context.Context, op operations.ModelDownload, events operations.Handler) (*operations.ModelDownloadReport, error) {
	ref, err := model.ParseRef(op.Model)
	if err != nil {
		return nil, err
	}
	var last time.Time
	return rt.models.Download(ctx, ref, models.DownloadOptions{
		Token: op.Token, Endpoint: op.Endpoint,
		Progress: func(p models.Progress) {
			if events == nil || p.Bytes < p.Total && time.Since(last) < 100*time.Millisecond {
				return
			}
			last = time.Now()
			events(operations.Event{
				Time: last, Type: operations.EventProgress, Hive: op.HiveID, Bytes: p.Bytes, Total: p.Total, Message: p.File,
			})
		},
	})
}

func (rt *runner) listModels(ctx context.Context) (*operations.ModelListReport, error) {
	list, err := rt.models.List(ctx)
	if err != nil {
		return nil, err
	}
	users := rt.users(ctx)
	r := &operations.ModelListReport{Models: []operations.Model{}}
	for _, m := range list {
		m.UsedBy = users[m.ID]
		r.Models = append(r.Models, m)
	}
	return r, nil
}

// users are the workers that serve each model, by its id.
func (rt *runner) users(ctx context.Context) map[string][]string {
	users := map[string][]string{}
	for _, w := range rt.workers.List(false) {
		if w.State == operations.WorkerFailed && w.RestartAt.IsZero() {
			continue
		}
		ref, err := model.ParseRef(w.Model)
		if err != nil {
			continue // no model on disk, but a name
		}
		if m, err := rt.models.Find(ctx, ref); err == nil {
			users[m.ID] = append(users[m.ID], w.ID)
		}
	}
	return users
}

func (rt *runner) getModel(ctx context.Context, id string) (*operations.ModelGetReport, error) {
	m, err := rt.models.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	m.UsedBy = rt.users(ctx)[m.ID]
	if estimate, err := model.EstimateMemory(*m, 0); err == nil {
		m.MemoryEstimate = estimate.Total()
	}
	return &operations.ModelGetReport{Model: *m}, nil
}

func (rt *runner) deleteModel(ctx context.Context, id string) (*operations.ModelDeleteReport, error) {
	m, err := rt.models.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if by := rt.users(ctx)[m.ID]; len(by) > 0 {
		return nil, &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonModelInUse, Subject: operations.SubjectModel.Named(m.ID), Message: fmt.Sprintf("model %s is used by worker %s: stop it first", m.ID, by[0]),
		}
	}
	return rt.models.Delete(ctx, id)
}
