// Package loader finds the workers that can serve a request, and starts and evicts
// workers. Package scheduler makes the decisions.
//
// A [Direct] loader starts a worker for one operation, as the CLI does. A [Loader] shares
// each load between all requests that wait for the same model, as a queen does.
package loader

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

// affinityBytes is the number of leading bytes of a prompt that determine its affinity.
const affinityBytes = 1 << 10

// Candidate is a worker that can serve the request.
type Candidate struct {
	Client *registry.Client // of the hive's daemon
	Worker operations.WorkerProcess
}

// FindResult is the result of [Finder.Find]. The caller closes it.
type FindResult struct {
	Candidates []Candidate // best first
	snapshots  []registry.Snapshot
}

// Close closes the clients of the candidates.
func (r *FindResult) Close() {
	if r != nil {
		registry.CloseAll(r.snapshots)
	}
}

// Hives returns the hives of a target.
type Hives func(operations.Target) ([]config.Hive, error)

// Finder finds the workers that can serve an operation.
type Finder struct {
	conn  registry.Connector
	hives Hives
	usage scheduler.Usage
}

// Find finds the workers that can serve the request, best first. If no worker can serve it, the
// error has a reason for each hive. The caller closes the result, even if there is an error.
func (f *Finder) Find(ctx context.Context, op operations.Infer) (*FindResult, error) {
	list, err := f.snapshots(ctx, op.Target)
	if err != nil {
		return nil, err
	}
	found := &FindResult{snapshots: list}
	if found.Candidates = f.candidates(list, op); len(found.Candidates) == 0 {
		f.conn.Refresh(ctx, list)
		found.Candidates = f.candidates(list, op)
	}
	if len(found.Candidates) == 0 {
		return found, noCandidateError(op, list)
	}
	return found, nil
}

func (f *Finder) snapshots(ctx context.Context, t operations.Target) ([]registry.Snapshot, error) {
	hives, err := f.hives(t)
	if err != nil {
		return nil, err
	}
	return registry.Snapshots(ctx, f.conn, hives), nil
}

// candidates returns the workers that can serve the request, best first. In the snapshot of a hive
// without such a worker it sets Err to the reason.
func (f *Finder) candidates(list []registry.Snapshot, op operations.Infer) (candidates []Candidate) {
	r := request(op)
	for i := range list {
		if snap := &list[i]; snap.Report == nil && snap.Err == nil {
			snap.Err = &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonConnecting, Subject: operations.SubjectHive.WithName(snap.Hive.Alias), Hive: snap.Hive.Alias, Message: "the hive has not connected yet"}
		}
	}
	schedHives := hives(list)
	for i := range schedHives {
		if list[i].Err != nil {
			schedHives[i].Report = nil
		}
	}
	for _, c := range scheduler.Schedule(r, schedHives, f.usage).Candidates {
		candidates = append(candidates, Candidate{list[c.Hive].Client, *c.Worker})
	}
	for i := range schedHives {
		if schedHives[i].Report == nil {
			continue
		}
		if reason := scheduler.Explain(r, schedHives[i], f.usage); reason != "" {
			list[i].Err = errors.New(reason)
		}
	}
	return candidates
}

// hives converts snapshots to the scheduler's type.
func hives(list []registry.Snapshot) []scheduler.Hive {
	hives := make([]scheduler.Hive, len(list))
	for i, snap := range list {
		hives[i] = schedulerHive(snap.Hive, snap.Link, snap.Report)
	}
	return hives
}

func schedulerHive(h config.Hive, link operations.Link, report *operations.HiveSnapshot) scheduler.Hive {
	types := make([]string, len(h.Workers))
	for i, w := range h.Workers {
		types[i] = w.Type
	}
	return scheduler.Hive{Alias: h.Alias, Types: types, Link: link, Report: report}
}

// request converts an operation to the scheduler's type.
func request(op operations.Infer) scheduler.Request {
	h := fnv.New64a()
	_, _ = io.WriteString(h, op.System+"\x00"+op.Prompt[:min(len(op.Prompt), affinityBytes)]) // never fails
	r := scheduler.Request{Model: op.Model, WorkerID: op.WorkerID, Device: op.Device, Affinity: h.Sum64()}
	if op.Workflow != nil {
		r.API = catalog.APIComfyUI
	}
	return r
}

// startFailures returns the reasons for which a hive cannot start a worker, in order of
// precedence.
func startFailures() []operations.Reason {
	return []operations.Reason{operations.ReasonInsufficientMemory, operations.ReasonTooLarge, operations.ReasonModelGated, operations.ReasonDiskFull}
}

// IsNoCandidate reports whether err means that [Finder.Find] found no worker that can serve a request.
// It is false for other errors, such as an unknown hive.
func IsNoCandidate(err error) bool {
	reason := operations.ReasonOf(err)
	return operations.CodeOf(err) == operations.CodeNotFound &&
		(reason == operations.ReasonNoWorker || reason == operations.ReasonNoWorkflowWorker || slices.Contains(startFailures(), reason))
}

// noCandidateError returns an error with the reason of each hive.
func noCandidateError(op operations.Infer, list []registry.Snapshot) error {
	var b strings.Builder
	b.WriteString("no ready worker ")
	switch {
	case op.Workflow == nil:
		b.WriteString("serves " + op.Model)
	case op.Model == "":
		b.WriteString("runs workflows")
	default:
		b.WriteString("runs workflows with " + op.Model)
	}
	reason := operations.ReasonNoWorker
	if op.Workflow != nil {
		reason = operations.ReasonNoWorkflowWorker
	}
	if len(list) == 0 {
		b.WriteString(": the config has no hives")
	}
	unreachable, unreachableReason := 0, operations.ReasonUnreachable
	for _, snap := range list {
		var e *operations.Error
		text := "a worker is ready now" // started after the candidates were determined
		if snap.Err != nil {
			text = snap.Err.Error()
		}
		if errors.As(snap.Err, &e) {
			text = e.Message
			if e.Code == operations.CodeUnreachable {
				unreachable++
				unreachableReason = e.Reason
			}
			if e.Code == operations.CodeCanceled {
				return snap.Err
			}
		}
		fmt.Fprintf(&b, "\n  %s: %s", snap.Hive.Alias, text)
	}
	if len(list) > 0 && unreachable == len(list) {
		if len(list) == 1 {
			return list[0].Err
		}
		return &operations.Error{Code: operations.CodeUnreachable, Reason: unreachableReason, Message: b.String()}
	}
	for _, failure := range startFailures() {
		if slices.ContainsFunc(list, func(snap registry.Snapshot) bool { return operations.ReasonOf(snap.Err) == failure }) {
			reason = failure
			break
		}
	}
	return &operations.Error{
		Code: operations.CodeNotFound, Reason: reason, Subject: operations.SubjectModel.WithName(op.Model), Hive: op.HiveID, Message: b.String(),
	}
}
