package queen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
	"github.com/rbee-keeper/rbee/rbee/internal/loader"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
	"github.com/rbee-keeper/rbee/rbee/internal/stats"
)

const (
	loadingRetryAfter = 5 * time.Second        // Retry-After if too many requests wait for loads
	offlineRetryAfter = 10 * time.Second       // Retry-After if the hive of the model is offline
	restartTimeout    = 2 * time.Second        // time to wait for the restart of a failed worker
	retryInterval     = 200 * time.Millisecond // time between two attempts to acquire a worker
)

// balancer selects workers for the gateway.
type balancer struct {
	pool    *registry.Pool
	loader  *loader.Loader
	traffic *stats.Traffic
}

var _ gateway.Router = (*balancer)(nil)

// Models implements [gateway.Router]. It returns the loaded models, and the models that a
// hive can load.
func (b *balancer) Models(ctx context.Context) []gateway.ModelInfo {
	b.pool.WaitReady(ctx)
	found := map[string]*gateway.ModelInfo{}
	info := func(id string, created time.Time) *gateway.ModelInfo {
		m := found[id]
		if m == nil {
			m = &gateway.ModelInfo{ID: id, Created: created, Workers: []string{}}
			found[id] = m
		}
		return m
	}
	for _, conn := range b.pool.Connections() {
		view := conn.View(time.Now())
		if view.Snapshot == nil || view.Link == operations.LinkOffline {
			continue
		}
		for _, w := range view.Snapshot.Workers {
			if w.API == "" && w.State == operations.WorkerReady {
				m := info(scheduler.ServedModel(w), w.ReadyAt)
				m.Loaded, m.Workers = true, append(m.Workers, w.ID)
			}
		}
		schedHive := schedulerHive(conn, view)
		for _, m := range view.Snapshot.Models {
			if m.Complete && scheduler.Engine(schedHive, m.Format) != "" {
				info(m.ID, m.ModifiedAt)
			}
		}
	}
	list := make([]gateway.ModelInfo, 0, len(found))
	for _, m := range found {
		list = append(list, *m)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list
}

// schedulerHive converts the state of a hive for the scheduler.
func schedulerHive(conn *registry.Connection, view operations.HiveView) scheduler.Hive {
	h := scheduler.Hive{Alias: view.Alias, Link: view.Link, Report: view.Snapshot}
	for _, w := range conn.Hive().Workers {
		h.Types = append(h.Types, w.Type)
	}
	return h
}

// Acquire implements [gateway.Router]. It loads the model if no worker serves it. If the only
// worker has failed, it waits up to restartTimeout for the worker to restart.
func (b *balancer) Acquire(ctx context.Context, req gateway.RouteRequest) (*gateway.Lease, error) {
	b.pool.WaitReady(ctx)
	for start := time.Now(); ; {
		next := b.pool.Changed()
		lease, offline := b.pick(req)
		if lease != nil {
			return lease, nil
		}
		err := b.loader.LoadIfKnown(client.WithRequestID(ctx, req.RequestID), req.Model)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, err
		case !loader.IsRestarting(err) || time.Since(start) > restartTimeout:
			return nil, apiError(req.Model, offline, err)
		}
		if lease, _ := b.pick(req); lease != nil {
			return lease, nil
		}
		if time.Since(start) > restartTimeout {
			return nil, &gateway.APIError{
				Status: http.StatusServiceUnavailable, Type: "server_error", Code: "worker_failed", RetryAfter: restartTimeout,
				Message: fmt.Sprintf("the worker that serves the model %q failed, and no other worker is available", req.Model),
			}
		}
		select {
		case <-next:
		case <-time.After(retryInterval):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pick acquires the best ready worker, or returns nil and the aliases of offline hives with a
// worker that could serve the request.
func (b *balancer) pick(req gateway.RouteRequest) (lease *gateway.Lease, offline []string) {
	now := time.Now()
	connections := b.pool.Connections()
	hives := make([]scheduler.Hive, len(connections))
	for i, conn := range connections {
		view := conn.View(now)
		hives[i] = scheduler.Hive{Alias: view.Alias, Link: view.Link, Report: view.Snapshot}
	}
	decision := scheduler.Schedule(scheduler.Request{Model: req.Model, Exclude: req.Exclude, Affinity: req.Affinity}, hives, b.traffic)
	for _, c := range decision.Candidates {
		d := connections[c.Hive].Client()
		if d == nil {
			continue
		}
		if lease := b.acquire(d, *c.Worker); lease != nil {
			return lease, nil
		}
		d.Close()
	}
	return nil, decision.Offline
}

// acquire acquires a worker. It returns nil if the worker is being evicted.
func (b *balancer) acquire(d *registry.Client, w operations.WorkerProcess) *gateway.Lease {
	end, ok := b.traffic.Begin(w)
	if !ok {
		return nil
	}
	return &gateway.Lease{
		Backend: gateway.Backend{
			Worker: w.ID, Instance: scheduler.Instance(w), Hive: w.Hive, Model: scheduler.ServedModel(w), Name: cmp.Or(w.ServedName, w.Model),
			URL:       d.WorkerURL(w.ID),
			Header:    http.Header{"Authorization": {"Bearer " + string(d.API.Token)}},
			Transport: d.API.HTTP.Transport,
		},
		Release: func(err error) {
			end()
			d.Close()
			if err != nil {
				b.traffic.MarkSuspect(w)
			}
		},
	}
}

// unknownModelError returns the error for a model that no hive has.
func unknownModelError(model string, err error) *gateway.APIError {
	return &gateway.APIError{
		Status: http.StatusNotFound, Type: "not_found_error", Code: "model_not_found", Message: fmt.Sprintf("the model %q does not exist on any hive", model), Detail: singleLine(err),
	}
}

func singleLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
}

// apiError returns the error for a model that cannot be served now. offline lists the hives
// with a worker that could serve the request; err is the error of the load.
func apiError(model string, offline []string, err error) *gateway.APIError {
	apiErr := &gateway.APIError{
		Status: http.StatusServiceUnavailable, Type: "server_error", Code: "not_loaded", RetryAfter: offlineRetryAfter,
		Message: fmt.Sprintf("the model %q is not available: it is not loaded, and loading it failed", model), Detail: singleLine(err),
	}
	var e *operations.Error
	var busy *loader.BusyError
	var unknown *loader.UnknownModelError
	switch {
	case errors.As(err, &busy):
		return &gateway.APIError{
			Status: http.StatusTooManyRequests, Type: "rate_limit_error", Code: "loading", RetryAfter: loadingRetryAfter, Message: err.Error(),
		}
	case errors.As(err, &unknown) && operations.CodeOf(err) != operations.CodeUnreachable:
		return unknownModelError(model, err)
	case len(offline) > 0:
		apiErr.Code = "hive_away"
		apiErr.Detail = fmt.Sprintf("the model %q is only on offline hives: %s", model, strings.Join(offline, ", "))
	case errors.As(err, &e) && (e.Reason == operations.ReasonInsufficientMemory || e.Reason == operations.ReasonTooLarge):
		apiErr.Code, apiErr.RetryAfter = string(e.Reason), loader.LoadFailureTTL
		apiErr.Message = fmt.Sprintf("the model %q is not available: insufficient memory to load it", model)
	case operations.CodeOf(err) == operations.CodeUnreachable:
		apiErr.Code = "hive_away"
	}
	return apiErr
}
