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
	loadingRetryAfter = 5 * time.Second  // what those are told to wait beyond the limit of waiting requests
	offlineRetryAfter = 10 * time.Second // and those whose model's hive is away
	restartTimeout    = 2 * time.Second  // for a worker that failed to be restarted
	retryInterval     = 200 * time.Millisecond
)

// balancer takes workers for the gateway.
type balancer struct {
	pool    *registry.Pool
	loader  *loader.Loader
	traffic *stats.Traffic
}

var _ gateway.Router = (*balancer)(nil)

// Models implements [gateway.Router]: models that are served, and those that can be.
func (f *balancer) Models(ctx context.Context) []gateway.ModelInfo {
	f.pool.WaitReady(ctx)
	found := map[string]*gateway.ModelInfo{}
	info := func(id string, created time.Time) *gateway.ModelInfo {
		m := found[id]
		if m == nil {
			m = &gateway.ModelInfo{ID: id, Created: created, Workers: []string{}}
			found[id] = m
		}
		return m
	}
	for _, l := range f.pool.Connections() {
		v := l.View(time.Now())
		if v.Snapshot == nil || v.Link == operations.LinkOffline {
			continue
		}
		for _, w := range v.Snapshot.Workers {
			if w.API == "" && w.State == operations.WorkerReady {
				m := info(scheduler.ServedModel(w), w.ReadyAt)
				m.Loaded, m.Workers = true, append(m.Workers, w.ID)
			}
		}
		own := schedulerHive(l, v)
		for _, m := range v.Snapshot.Models {
			if m.Complete && scheduler.Engine(own, m.Format) != "" {
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

// schedulerHive is what is known of a hive in the scheduler's terms.
func schedulerHive(l *registry.Connection, v operations.HiveView) scheduler.Hive {
	h := scheduler.Hive{Alias: v.Alias, Link: v.Link, Report: v.Snapshot}
	for _, w := range l.Hive().Workers {
		h.Types = append(h.Types, w.Type)
	}
	return h
}

// Acquire implements [gateway.Router]. Where a worker failed and no other is there, it
// may have been ended, and then another one is started, or be about to be started
// again: that is waited for, for a little.
func (f *balancer) Acquire(ctx context.Context, wish gateway.RouteRequest) (*gateway.Lease, error) {
	f.pool.WaitReady(ctx)
	for start := time.Now(); ; {
		next := f.pool.Changed()
		lease, away := f.pick(wish)
		if lease != nil {
			return lease, nil
		}
		err := f.loader.LoadIfKnown(client.WithRequestID(ctx, wish.RequestID), wish.Model)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, err
		case !loader.IsRestarting(err) || time.Since(start) > restartTimeout:
			return nil, apiError(wish.Model, away, err)
		}
		if lease, _ := f.pick(wish); lease != nil {
			return lease, nil
		}
		if time.Since(start) > restartTimeout {
			return nil, &gateway.APIError{
				Status: http.StatusServiceUnavailable, Type: "server_error", Code: "worker_failed", RetryAfter: restartTimeout,
				Message: fmt.Sprintf("the worker that serves %s failed, and there is no other", wish.Model),
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

// pick takes the best ready worker. away are hives that serve the model, or could,
// and cannot be reached.
func (f *balancer) pick(wish gateway.RouteRequest) (lease *gateway.Lease, away []string) {
	now := time.Now()
	links := f.pool.Connections()
	hives := make([]scheduler.Hive, len(links))
	for i, l := range links {
		v := l.View(now)
		hives[i] = scheduler.Hive{Alias: v.Alias, Link: v.Link, Report: v.Snapshot}
	}
	decision := scheduler.Schedule(scheduler.Request{Model: wish.Model, Exclude: wish.Exclude, Affinity: wish.Affinity}, hives, f.traffic)
	for _, c := range decision.Candidates {
		d := links[c.Hive].Client()
		if d == nil {
			continue
		}
		if lease := f.acquire(d, *c.Worker); lease != nil {
			return lease, nil
		}
		d.Close()
	}
	return nil, decision.Offline
}

// acquire takes a worker; nil if it has just begun to end.
func (f *balancer) acquire(d *registry.Client, w operations.WorkerProcess) *gateway.Lease {
	end, ok := f.traffic.Begin(w)
	if !ok {
		return nil
	}
	return &gateway.Lease{
		Backend: gateway.Backend{
			Worker: w.ID, Instance: scheduler.Instance(w), Hive: w.Hive, Model: scheduler.ServedModel(w), Name: cmp.Or(w.Serves, w.Model),
			URL:       d.WorkerURL(w.ID),
			Header:    http.Header{"Authorization": {"Bearer " + string(d.API.Token)}},
			Transport: d.API.HTTP.Transport,
		},
		Release: func(err error) {
			end()
			d.Close()
			if err != nil {
				f.traffic.MarkSuspect(w)
			}
		},
	}
}

// unknownModelError words for an application that no hive has a model.
func unknownModelError(model string, err error) *gateway.APIError {
	return &gateway.APIError{
		Status: http.StatusNotFound, Type: "not_found_error", Code: "model_not_found", Message: "no hive has the model " + model, Detail: singleLine(err),
	}
}

func singleLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
}

// apiError words for an application why a model that a hive has is not served now.
func apiError(model string, away []string, err error) *gateway.APIError {
	no := &gateway.APIError{
		Status: http.StatusServiceUnavailable, Type: "server_error", Code: "not_loaded", RetryAfter: offlineRetryAfter,
		Message: fmt.Sprintf("%s is served by nobody now, and could not be loaded", model), Detail: singleLine(err),
	}
	var e *operations.Error
	var busy *loader.BusyError
	var absent *loader.UnknownModelError
	switch {
	case errors.As(err, &busy):
		return &gateway.APIError{
			Status: http.StatusTooManyRequests, Type: "rate_limit_error", Code: "loading", RetryAfter: loadingRetryAfter, Message: err.Error(),
		}
	case errors.As(err, &absent) && operations.CodeOf(err) != operations.CodeUnreachable:
		return unknownModelError(model, err)
	case len(away) > 0:
		no.Code = "hive_away"
		no.Detail = fmt.Sprintf("%s is served on %s, which cannot be reached now", model, strings.Join(away, ", "))
	case errors.As(err, &e) && (e.Reason == operations.ReasonNoRoom || e.Reason == operations.ReasonTooLarge):
		no.Code, no.RetryAfter = string(e.Reason), loader.LoadFailureTTL
		no.Message = fmt.Sprintf("%s is served by nobody now, and there is too little memory to load it", model)
	case operations.CodeOf(err) == operations.CodeUnreachable:
		no.Code = "hive_away"
	}
	return no
}
