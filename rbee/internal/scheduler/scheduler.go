// Package scheduler decides which worker answers a request, which hive loads a
// model, and which worker may be evicted, at which cost. It is pure: everything it
// needs is passed as arguments, and it has no effects. `rbee infer` and the gateway
// use the same functions.
package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// Hive is what the scheduler knows about one hive.
type Hive struct {
	Alias string

	// Types are the worker types of the hive in the config, in that order.
	Types []string

	// Link is the state of the connection to the hive.
	Link operations.Link

	// Report is the last snapshot of the hive; nil if there is none. A hive without
	// one is never chosen.
	Report *operations.HiveSnapshot
}

// Request is what a request needs from a worker.
type Request struct {
	// Model is the name of the model. It may be empty if API is not.
	Model string

	// API is the API that the worker must have, such as "comfyui"; empty for the
	// OpenAI API.
	API string

	// WorkerID is the id of the worker, or the beginning of it; empty for any.
	WorkerID string

	// Device is an index, a vendor and an index as in "cuda:0", a UUID, or "cpu";
	// empty for any.
	Device string

	// Exclude lists the instances of workers that failed at this request.
	Exclude []string

	// Affinity is a hash of the beginning of the conversation.
	Affinity uint64
}

// Usage reports what is known about a worker besides the snapshot of its hive.
type Usage interface {
	// Busy returns the number of requests that the worker is answering.
	Busy(w operations.WorkerProcess) int

	// Evicting reports whether the worker is being evicted.
	Evicting(w operations.WorkerProcess) bool

	// Suspect reports whether the worker failed at a request a moment ago.
	Suspect(w operations.WorkerProcess) bool
}

// ReportedUsage is the [Usage] of a program that runs one operation: it knows what hives
// report, and nothing else.
type ReportedUsage struct{}

var _ Usage = ReportedUsage{}

// Busy implements [Usage].
func (ReportedUsage) Busy(w operations.WorkerProcess) int { return w.Requests }

// Evicting implements [Usage].
func (ReportedUsage) Evicting(operations.WorkerProcess) bool { return false }

// Suspect implements [Usage].
func (ReportedUsage) Suspect(operations.WorkerProcess) bool { return false }

// Decision is the result of [Schedule].
type Decision struct {
	// Candidates are the workers that can answer, best first.
	Candidates []Candidate

	// Offline are the aliases of hives that run a worker that could answer if the
	// hive was not offline.
	Offline []string
}

// Candidate is a worker that can answer.
type Candidate struct {
	Hive   int // index into the hives that were passed
	Worker *operations.WorkerProcess

	unreliable bool
	busy       int
	freeMemory uint64
	rank       uint64
}

// Schedule decides which workers can answer a request, and in which order to ask
// them. Each worker passes through these rules, in order:
//
//  1. The request names another worker: reject it.
//  2. The request needs an API that the worker does not have: reject it.
//  3. The request needs the OpenAI API and the worker has another one: reject it.
//  4. The worker serves another model: reject it, unless the request needs an API
//     and names no model.
//  5. The request names a device on which the worker does not run: reject it.
//  6. The worker is not ready: reject it.
//  7. The worker failed at this request, and was not restarted since: reject it.
//  8. The worker is being evicted: reject it.
//  9. The hive of the worker is offline: reject it, and report the hive as offline.
//
// The remaining workers are the candidates. The first rule in which two of them
// differ decides their order:
//
//  10. A worker that failed a moment ago, or whose hive is stale, comes after all
//     others.
//  11. The worker that is answering fewer requests comes first.
//  12. The worker with more free memory on its devices comes first, in whole GiB.
//  13. The worker with the higher rank for the conversation comes first, so that the
//     same conversation reaches the same worker.
//
// For the workers of one hive that rules 1 to 8 reject, [Explain] returns the reasons.
func Schedule(r Request, hives []Hive, u Usage) Decision {
	var d Decision
	for i := range hives {
		h := &hives[i]
		if h.Report == nil {
			continue
		}
		serves := Serves(h.Report.Models, r.Model)
		for j := range h.Report.Workers {
			w := &h.Report.Workers[j]
			if reject(&r, w, serves, u) != accepted {
				continue
			}
			if h.Link == operations.LinkOffline { // (9)
				d.Offline = append(d.Offline, h.Alias)
				continue
			}
			d.Candidates = append(d.Candidates, Candidate{
				Hive: i, Worker: w, unreliable: h.Link == operations.LinkStale || u.Suspect(*w), busy: u.Busy(*w),
				freeMemory: freeOnDevices(h.Report, w), rank: rank(r.Affinity, WorkerKey(*w)),
			})
		}
	}
	sort.Slice(d.Candidates, func(i, j int) bool {
		a, b := &d.Candidates[i], &d.Candidates[j]
		switch {
		case a.unreliable != b.unreliable: // (10)
			return b.unreliable
		case a.busy != b.busy: // (11)
			return a.busy < b.busy
		case a.freeMemory != b.freeMemory: // (12)
			return a.freeMemory > b.freeMemory
		default: // (13)
			return a.rank > b.rank
		}
	})
	return d
}

// rejection is the rule of [Schedule] that rejects a worker.
type rejection int

const (
	accepted rejection = iota
	otherWorker
	noWorkflows
	workflowsOnly
	otherModel
	otherDevice
	notReady
	excluded
	evicting
)

// reject returns the first of the rules 1 to 8 that rejects a worker.
func reject(r *Request, w *operations.WorkerProcess, serves func(*operations.WorkerProcess) bool, u Usage) rejection {
	asked := serves(w)
	switch {
	case r.WorkerID != "" && w.ID != r.WorkerID && !strings.HasPrefix(w.ID, r.WorkerID):
		return otherWorker // (1)
	case r.API != "" && w.API != r.API:
		return noWorkflows // (2)
	case r.API == "" && w.API != "" && asked:
		return workflowsOnly // (3)
	case !asked && (r.API == "" || r.Model != ""):
		return otherModel // (4)
	case r.Device != "" && !OnDevice(*w, r.Device):
		return otherDevice // (5)
	case w.State != operations.WorkerReady:
		return notReady // (6)
	case len(r.Exclude) > 0 && slices.Contains(r.Exclude, Instance(*w)):
		return excluded // (7)
	case u.Evicting(*w):
		return evicting // (8)
	}
	return accepted
}

// Explain returns why no worker of a hive can answer a request, and an empty string
// if one can. The hive must have a snapshot.
func Explain(r Request, h Hive, u Usage) string {
	var not []string
	ending := ""
	serves := Serves(h.Report.Models, r.Model)
	for i := range h.Report.Workers {
		w := &h.Report.Workers[i]
		switch reject(&r, w, serves, u) {
		case accepted:
			return ""
		case otherWorker:
		case noWorkflows:
			not = append(not, w.ID+" runs no workflows")
		case workflowsOnly:
			not = append(not, w.ID+" runs workflows only")
		case otherModel:
			not = append(not, fmt.Sprintf("%s serves %s", w.ID, w.Model))
		case otherDevice:
			not = append(not, fmt.Sprintf("%s is not on device %s", w.ID, r.Device))
		case notReady:
			text := fmt.Sprintf("%s is %s: %s", w.ID, w.State, w.Problem)
			if w.State == operations.WorkerFailed && !w.RestartAt.IsZero() {
				text = fmt.Sprintf("%s failed and is started again at %s: %s", w.ID, w.RestartAt.Format(time.TimeOnly), w.Problem)
			}
			not = append(not, strings.TrimSuffix(text, ": "))
		case excluded:
			not = append(not, w.ID+" failed")
		case evicting:
			ending = w.ID + " is being ended"
		}
	}
	switch {
	case ending != "":
		return ending
	case len(h.Report.Workers) == 0:
		return "no worker runs there"
	case len(not) == 0:
		return fmt.Sprintf("no worker %s runs there", r.WorkerID)
	default:
		return strings.Join(not, ", ")
	}
}

// OnDevice reports whether a worker runs on a device, named by index, by vendor
// and index as in "cuda:0", or by UUID; "cpu" is none.
func OnDevice(w operations.WorkerProcess, device string) bool {
	if device == "cpu" || device == operations.DeviceNone {
		return len(w.Devices) == 0
	}
	_, index, _ := strings.Cut(device, ":")
	return slices.ContainsFunc(w.Devices, func(d operations.WorkerDevice) bool {
		return d.UUID != "" && d.UUID == device || strconv.Itoa(d.Index) == cmp.Or(index, device)
	})
}

// freeOnDevices is the device memory that is free beside a worker, in whole GiB: less is
// no difference.
func freeOnDevices(s *operations.HiveSnapshot, w *operations.WorkerProcess) (free uint64) {
	for _, d := range s.Machine.Devices {
		on := slices.ContainsFunc(w.Devices, func(o operations.WorkerDevice) bool { return o.UUID == d.UUID && o.Index == d.Index })
		if n, known := d.Available(); on && known {
			free += n
		}
	}
	return free >> 30
}

// rank gives each worker another rank for each conversation, and always the same
// (rendezvous hashing, https://en.wikipedia.org/wiki/Rendezvous_hashing).
func rank(affinity uint64, key string) uint64 {
	h := affinity ^ 14695981039346656037
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}
