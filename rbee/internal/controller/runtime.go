package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sourcegraph/conc/pool"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
)

// hiveOperation is an operation on one hive.
type hiveOperation interface {
	operations.Operation
	OperationTarget() operations.Target
}

// This assertion fails to compile if OperationTarget is renamed.
var _ hiveOperation = operations.WorkerSpawn{}

// runOnHives runs an operation on its target hive. List operations without a target hive run
// on all hives of the config.
func (c *Controller) runOnHives(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	switch op := op.(type) {
	case operations.WorkerProcessList:
		return report(c.workerList(ctx, op))
	case operations.ModelList:
		return report(c.modelList(ctx, op))
	case hiveOperation:
		return c.forward(ctx, op.OperationTarget(), op, events)
	default:
		return nil, &operations.Error{Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: fmt.Sprintf("cannot run operation %s: it has no target hive", op.Kind())}
	}
}

// forward runs an operation on one hive.
func (c *Controller) forward(ctx context.Context, t operations.Target, op operations.Operation, events operations.Handler) (operations.Report, error) {
	hives, err := c.files.Hives(t)
	if err != nil {
		return nil, err
	}
	client, err := c.conn.Client(ctx, hives[0])
	if err != nil {
		return nil, err
	}
	defer client.Close()
	r, err := client.Do(ctx, op, events)
	if err != nil {
		return nil, err
	}
	setHive(r, t.HiveID)
	return r, nil
}

// setHive sets the alias of the hive in a report, because hives omit it.
func setHive(r operations.Report, alias string) {
	switch r := r.(type) {
	case *operations.WorkerSpawnReport:
		r.Worker.Hive = alias
	case *operations.WorkerGetReport:
		r.Worker.Hive = alias
	case *operations.WorkerDeleteReport:
		r.Worker.Hive = alias
	case *operations.WorkerListReport:
		for i := range r.Workers {
			r.Workers[i].Hive = alias
		}
	case *operations.ModelDownloadReport:
		r.Model.Hive = alias
	case *operations.ModelGetReport:
		r.Model.Hive = alias
	case *operations.ModelDeleteReport:
		r.Model.Hive = alias
	case *operations.ModelListReport:
		for i := range r.Models {
			r.Models[i].Hive = alias
		}
	}
}

// runOnEach runs an operation on each hive of a target concurrently, and returns the reports
// sorted by alias. If the target names a hive, err is the error of that hive.
func runOnEach[R operations.Report](
	ctx context.Context, c *Controller, t operations.Target, newOperation func(operations.Target) operations.Operation,
) (reports []R, failed []*operations.Error, err error) {
	hives, err := c.files.Hives(t)
	if err != nil {
		return nil, nil, err
	}
	hives = slices.SortedFunc(slices.Values(hives), func(a, b config.Hive) int { return cmp.Compare(a.Alias, b.Alias) })
	results, errs := make([]operations.Report, len(hives)), make([]error, len(hives))
	p := pool.New().WithMaxGoroutines(registry.MaxParallel)
	for i, h := range hives {
		p.Go(func() {
			target := operations.Target{HiveID: h.Alias, ConfigPath: t.ConfigPath}
			results[i], errs[i] = c.forward(ctx, target, newOperation(target), nil)
		})
	}
	p.Wait()
	for i := range hives {
		if errs[i] != nil {
			if t.HiveID != "" || ctx.Err() != nil {
				return nil, nil, errs[i]
			}
			failed = append(failed, withHive(hives[i].Alias, errs[i]))
			continue
		}
		r, ok := results[i].(R)
		if !ok {
			return nil, nil, &operations.Error{
				Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectHive.WithName(hives[i].Alias), Hive: hives[i].Alias, Message: fmt.Sprintf("invalid report from the hive: got %T, want %T", results[i], r),
			}
		}
		reports = append(reports, r)
	}
	return reports, failed, nil
}

// withHive converts err to the error of a hive for a report.
func withHive(alias string, err error) *operations.Error {
	var e *operations.Error
	if errors.As(registry.OperationError(err), &e) && e.Hive != "" {
		return e
	}
	return &operations.Error{Code: operations.CodeOf(err), Reason: operations.ReasonOf(err), Subject: operations.SubjectOf(err), Hive: alias, Message: err.Error(), Err: err}
}

func (c *Controller) workerList(ctx context.Context, op operations.WorkerProcessList) (*operations.WorkerListReport, error) {
	reports, failed, err := runOnEach[*operations.WorkerListReport](ctx, c, op.Target, func(t operations.Target) operations.Operation {
		return operations.WorkerProcessList{Target: t, All: op.All}
	})
	if err != nil {
		return nil, err
	}
	report := &operations.WorkerListReport{Workers: []operations.WorkerProcess{}, Errors: failed}
	for _, r := range reports {
		report.Workers = append(report.Workers, r.Workers...)
	}
	return report, nil
}

func (c *Controller) modelList(ctx context.Context, op operations.ModelList) (*operations.ModelListReport, error) {
	reports, failed, err := runOnEach[*operations.ModelListReport](ctx, c, op.Target, func(t operations.Target) operations.Operation {
		return operations.ModelList{Target: t}
	})
	if err != nil {
		return nil, err
	}
	report := &operations.ModelListReport{Models: []operations.Model{}, Errors: failed}
	for _, r := range reports {
		report.Models = append(report.Models, r.Models...)
	}
	return report, nil
}

// serialize returns a handler that is safe for concurrent use.
func serialize(events operations.Handler) operations.Handler {
	if events == nil {
		return func(operations.Event) {}
	}
	var mu sync.Mutex
	return func(e operations.Event) {
		mu.Lock()
		defer mu.Unlock()
		events(e)
	}
}
