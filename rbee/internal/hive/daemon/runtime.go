package daemon

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
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/machine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/models"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// Runtime runs the runtime operations on this machine. It is the [operations.Runner] of
// the jobs of the daemon.
type Runtime struct {
	machine machine.Machine
	Workers *workers.Manager
	models  *models.Store
}

var _ operations.Runner = (*Runtime)(nil)

// NewRuntime returns a Runtime. It does not adopt running workers; call Workers.Start to
// adopt them.
func (sv *Server) NewRuntime(log *slog.Logger) (*Runtime, error) {
	dir, err := models.DefaultDir(sv.Home.Getenv)
	if err != nil {
		return nil, fmt.Errorf("cannot find the models directory: %w", err)
	}
	rt := &Runtime{
		machine: sv.Inspector.Machine(),
		models: &models.Store{
			Dir: dir, Endpoint: os.Getenv("HF_ENDPOINT"), Token: models.DefaultToken(sv.Home.Getenv), HTTP: sv.HTTP, UserAgent: "rbee/" + sv.Store.Version,
		},
	}
	rt.Workers = workers.New(sv.workerOptions(rt.models, log))
	return rt, nil
}

func (sv *Server) workerOptions(store *models.Store, log *slog.Logger) workers.Options {
	m := sv.Inspector.Machine()
	return workers.Options{
		Dir: sv.Home.Path(home.WorkerRecords), Logs: sv.Home.Path(home.WorkerLogs), Engine: sv.Engine, Verify: sv.Verifier.VerifyBeforeStart, Log: log,
		Model: func(ctx context.Context, model string, length int) (engine.Model, error) {
			return findModel(ctx, store, model, length)
		},
		Devices: m.Devices, Processes: m.Processes,
		Scopes: os.Getenv(service.ManagerVariable) == service.Systemd && hasSystemdRun(),
	}
}

func hasSystemdRun() bool {
	_, err := exec.LookPath("systemd-run")
	return err == nil
}

// Engine returns the engine of an installed worker type.
func (sv *Server) Engine(ctx context.Context, typ string) (engine.Engine, error) {
	for {
		build := sv.Store.EntryBuild(typ)
		e, err := sv.EngineOfBuild(ctx, typ, build)
		if err == nil || sv.Store.EntryBuild(typ) == build {
			return e, err
		}
		// Another build was installed and this one removed in the meantime.
	}
}

// EngineOfBuild returns the engine of one build of a worker type. An empty build means an
// entry point that rbee did not create; its engine uses the launch settings of the builtin
// recipe.
func (sv *Server) EngineOfBuild(ctx context.Context, typ, build string) (engine.Engine, error) {
	fail := func(code operations.Code, reason operations.Reason, format string, args ...any) (engine.Engine, error) {
		return engine.Engine{}, &operations.Error{Code: code, Reason: reason, Subject: operations.SubjectWorker.WithName(typ), Message: fmt.Sprintf(format, args...)}
	}
	if !wire.ValidName(typ) {
		return fail(operations.CodeBadOperation, operations.ReasonInvalidOperation, "invalid worker type %q", typ)
	}
	w := sv.Store.WorkerBuild(ctx, typ, build, false)
	switch {
	case w == nil:
		return fail(operations.CodeNotFound, operations.ReasonWorkerNotInstalled, "worker type '%s' is not installed on the hive", typ)
	case w.Corrupt != "":
		return fail(operations.CodeFailed, operations.ReasonWorkerDamaged, "worker type %s is damaged: %s", typ, w.Corrupt)
	}
	e := engine.Engine{Version: w.Version, Entry: sv.Store.EntryPath(typ), Verify: w.Verify}
	if w.Version != "" {
		// Use the path of the build: the entry point may link to another build later.
		dir := sv.Store.BuildDir(typ, build)
		program, err := os.Readlink(filepath.Join(dir, installed.EntryName))
		if err != nil {
			return fail(operations.CodeFailed, operations.ReasonWorkerDamaged, "worker type %s is damaged: %v", typ, err)
		}
		e.Entry, e.Payload = filepath.Join(dir, program), filepath.Join(dir, installed.PayloadDir)
	}
	recipe, known := catalog.Builtin().Recipe(typ)
	switch {
	case w.Launch != nil:
		e.Launch = *w.Launch
	case known:
		e.Launch = *recipe.Launch(nil)
	default:
		return fail(operations.CodeFailed, operations.ReasonUnknownRecipe, "cannot start worker type %s: it was not installed by rbee and has no recipe", typ)
	}
	return e, nil
}

// findModel returns a model for an engine, with its memory estimate. length is the context
// length in tokens; 0 means the default.
func findModel(ctx context.Context, store *models.Store, name string, length int) (engine.Model, error) {
	ref, err := model.ParseRef(name)
	if err != nil {
		return engine.Model{}, err
	}
	m, err := store.Find(ctx, ref)
	if err != nil {
		return engine.Model{}, err
	}
	found := engine.Model{ID: m.ID, Path: m.Path, Context: length}
	if found.SHA256, found.Sum, err = modelSum(m.Path); err != nil {
		return engine.Model{}, err
	}
	estimate, err := model.EstimateMemory(*m, length)
	if err != nil {
		found.Breakdown = "unknown memory estimate: " + err.Error()
		return found, nil
	}
	found.Estimate, found.Breakdown = estimate.Total(), estimate.Explain()
	found.Context, found.Cache = int(estimate.Context), estimate.Cache
	return found, nil
}

// modelSum returns the SHA-256 of a model file if the name of the file in the hub cache is
// the SHA-256; otherwise it returns a function that computes it. For a directory it returns
// neither.
func modelSum(path string) (known string, compute func(context.Context) (string, error), err error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", nil, err
	}
	if info, err := os.Stat(resolved); err != nil || info.IsDir() {
		return "", nil, err
	}
	if name := filepath.Base(resolved); len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "" {
		return name, nil, nil
	}
	return "", func(ctx context.Context) (string, error) { return fetch.Sum(ctx, resolved) }, nil
}

// Run implements [operations.Runner].
func (rt *Runtime) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	switch op := op.(type) {
	case operations.WorkerSpawn:
		return result(rt.Workers.Spawn(ctx, op, events))
	case operations.WorkerProcessList:
		return &operations.WorkerListReport{Workers: rt.Workers.List(op.All)}, nil
	case operations.WorkerProcessGet:
		w, err := rt.Workers.Get(op.WorkerRef)
		if err != nil {
			return nil, err
		}
		return &operations.WorkerGetReport{Worker: *w}, nil
	case operations.WorkerProcessDelete:
		grace := time.Duration(op.GraceSeconds * float64(time.Second))
		return result(rt.Workers.Stop(ctx, op.WorkerRef, workers.StopOptions{Grace: grace, Force: op.Force}))
	case operations.WorkerProcessLogs:
		return result(rt.Workers.Logs(ctx, op, events))
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
			Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: fmt.Sprintf("cannot run %s on a hive: send it to the queen", op.Kind()),
		}
	}
}

// capabilities runs the queries concurrently, because the vendor tools are slow.
func (rt *Runtime) capabilities(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	var deviceProcesses []operations.DeviceProcess
	var wg sync.WaitGroup
	queriedAt := time.Now()
	wg.Go(func() { deviceProcesses = rt.Workers.DeviceProcesses(ctx) })
	r, err := rt.machine.Capabilities(ctx)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	r.Processes = deviceProcesses
	rt.Workers.Reserve(r.Devices, deviceProcesses, queriedAt)
	return r, nil
}

// result converts a typed report to an [operations.Report]. A nil pointer becomes nil, and
// the error of a canceled operation gets the code [operations.CodeCanceled].
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

func (rt *Runtime) download(ctx context.Context, op operations.ModelDownload, events operations.Handler) (*operations.ModelDownloadReport, error) {
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

func (rt *Runtime) listModels(ctx context.Context) (*operations.ModelListReport, error) {
	list, err := rt.models.List(ctx)
	if err != nil {
		return nil, err
	}
	users := rt.modelUsers(ctx)
	r := &operations.ModelListReport{Models: []operations.Model{}}
	for _, m := range list {
		m.UsedBy = users[m.ID]
		r.Models = append(r.Models, m)
	}
	return r, nil
}

// modelUsers returns the IDs of the workers that use each model, by model ID.
func (rt *Runtime) modelUsers(ctx context.Context) map[string][]string {
	users := map[string][]string{}
	for _, w := range rt.Workers.List(false) {
		if w.State == operations.WorkerFailed && w.RestartAt.IsZero() {
			continue
		}
		ref, err := model.ParseRef(w.Model)
		if err != nil {
			continue // not the name of a model on disk
		}
		if m, err := rt.models.Find(ctx, ref); err == nil {
			users[m.ID] = append(users[m.ID], w.ID)
		}
	}
	return users
}

func (rt *Runtime) getModel(ctx context.Context, id string) (*operations.ModelGetReport, error) {
	m, err := rt.models.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	m.UsedBy = rt.modelUsers(ctx)[m.ID]
	if estimate, err := model.EstimateMemory(*m, 0); err == nil {
		m.MemoryEstimate = estimate.Total()
	}
	return &operations.ModelGetReport{Model: *m}, nil
}

func (rt *Runtime) deleteModel(ctx context.Context, id string) (*operations.ModelDeleteReport, error) {
	m, err := rt.models.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if by := rt.modelUsers(ctx)[m.ID]; len(by) > 0 {
		return nil, &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonModelInUse, Subject: operations.SubjectModel.WithName(m.ID), Message: fmt.Sprintf("model %s is used by worker %s: stop it first", m.ID, by[0]),
		}
	}
	return rt.models.Delete(ctx, id)
}
