// Package scheduler decides which worker processes a request, which hive loads a model,
// and which workers may be evicted. Its functions have no side effects. `rbee infer` and
// the gateway use the same functions.
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

// Hive is the state of a hive that the scheduler uses.
type Hive struct {
	Alias string

	// Types are the worker types of the hive, in the order of the config.
	Types []string

	// Link is the state of the connection to the hive.
	Link operations.Link

	// Report is the last snapshot of the hive. A hive without a snapshot (nil) is never
	// selected.
	Report *operations.HiveSnapshot
}

// Request contains the requirements of a request.
type Request struct {
	// Model is the name of the model. It may be empty if API is not.
	Model string

	// API is the API that the worker must have, such as "comfyui"; empty for the
	// OpenAI API.
	API string

	// WorkerID is the ID of the worker, or a prefix of it; empty for any.
	WorkerID string

	// Device is an index, a vendor and an index as in "cuda:0", a UUID, or "cpu";
	// empty for any.
	Device string

	// Exclude lists the instances of workers that failed for this request.
	Exclude []string

	// Affinity is a hash of the beginning of the conversation.
	Affinity uint64
}

// Usage reports the current state of workers.
type Usage interface {
	// Busy returns the number of requests that the worker is processing.
	Busy(w operations.WorkerProcess) int

	// Evicting reports whether the worker is being evicted.
	Evicting(w operations.WorkerProcess) bool

	// Suspect reports whether a request to the worker failed a moment ago.
	Suspect(w operations.WorkerProcess) bool
}

// ReportedUsage is the [Usage] of a program that runs one operation. It uses only the
// snapshots of hives.
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
	// Candidates are the workers that can serve the request, best first.
	Candidates []Candidate

	// Offline are the aliases of offline hives with a worker that could otherwise serve the request.
	Offline []string
}

// Candidate is a worker that can serve the request.
type Candidate struct {
	Hive   int // index into the hives passed to [Schedule]
	Worker *operations.WorkerProcess

	unreliable bool
	busy       int
	freeMemory uint64
	rank       uint64
}

// Schedule decides which workers can serve a request, and in which order to try
// them. Each worker passes through these rules, in order:
//
//  1. The request names another worker: reject it.
//  2. The request needs an API that the worker does not have: reject it.
//  3. The request needs the OpenAI API and the worker has another one: reject it.
//  4. The worker serves another model: reject it, unless the request needs an API
//     and names no model.
//  5. The request names a device on which the worker does not run: reject it.
//  6. The worker is not ready: reject it.
//  7. The worker failed for this request and has not restarted since: reject it.
//  8. The worker is being evicted: reject it.
//  9. The hive of the worker is offline: reject it, and report the hive as offline.
//
// The remaining workers are the candidates. The first rule in which two of them
// differ decides their order:
//
//  10. A worker that failed a moment ago, or whose hive is stale, comes after all
//     others.
//  11. The worker that is processing fewer requests comes first.
//  12. The worker with more free memory on its devices comes first, rounded down to GiB.
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
	servesModel := serves(w)
	switch {
	case r.WorkerID != "" && w.ID != r.WorkerID && !strings.HasPrefix(w.ID, r.WorkerID):
		return otherWorker // (1)
	case r.API != "" && w.API != r.API:
		return noWorkflows // (2)
	case r.API == "" && w.API != "" && servesModel:
		return workflowsOnly // (3)
	case !servesModel && (r.API == "" || r.Model != ""):
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

// Explain returns why no worker of a hive can serve a request, and an empty string
// if one can. The hive must have a snapshot.
func Explain(r Request, h Hive, u Usage) string {
	var reasons []string
	stopping := ""
	serves := Serves(h.Report.Models, r.Model)
	for i := range h.Report.Workers {
		w := &h.Report.Workers[i]
		switch reject(&r, w, serves, u) {
		case accepted:
			return ""
		case otherWorker:
		case noWorkflows:
			reasons = append(reasons, w.ID+" does not run workflows")
		case workflowsOnly:
			reasons = append(reasons, w.ID+" runs only workflows")
		case otherModel:
			reasons = append(reasons, fmt.Sprintf("%s serves %s", w.ID, w.Model))
		case otherDevice:
			reasons = append(reasons, fmt.Sprintf("%s is not on device %s", w.ID, r.Device))
		case notReady:
			text := fmt.Sprintf("%s is %s: %s", w.ID, w.State, w.Problem)
			switch {
			case w.State == operations.WorkerFailed && !w.RestartAt.IsZero():
				text = fmt.Sprintf("%s failed and will restart at %s: %s", w.ID, w.RestartAt.Format(time.TimeOnly), w.Problem)
			case w.State == operations.WorkerFailed:
				text = fmt.Sprintf("%s failed: %s", w.ID, w.Problem)
			}
			reasons = append(reasons, strings.TrimSuffix(text, ": "))
		case excluded:
			reasons = append(reasons, w.ID+" failed")
		case evicting:
			stopping = w.ID + " is stopping"
		}
	}
	switch {
	case stopping != "":
		return stopping
	case len(h.Report.Workers) == 0:
		return "no worker is running"
	case len(reasons) == 0:
		return fmt.Sprintf("no worker %s is running", r.WorkerID)
	default:
		return strings.Join(reasons, ", ")
	}
}

// OnDevice reports whether a worker runs on a device. The device is an index, a vendor and
// an index as in "cuda:0", or a UUID; "cpu" matches workers without a device.
func OnDevice(w operations.WorkerProcess, device string) bool {
	if device == "cpu" || device == operations.DeviceNone {
		return len(w.Devices) == 0
	}
	_, index, _ := strings.Cut(device, ":")
	return slices.ContainsFunc(w.Devices, func(d operations.WorkerDevice) bool {
		return d.UUID != "" && d.UUID == device || strconv.Itoa(d.Index) == cmp.Or(index, device)
	})
}

// freeOnDevices returns the free memory of the devices that a worker uses, rounded
// down to GiB, so that small differences do not matter.
func freeOnDevices(s *operations.HiveSnapshot, w *operations.WorkerProcess) (free uint64) {
	for _, d := range s.Machine.Devices {
		on := slices.ContainsFunc(w.Devices, func(o operations.WorkerDevice) bool { return o.UUID == d.UUID && o.Index == d.Index })
		if n, known := d.Available(); on && known {
			free += n
		}
	}
	return free >> 30
}

// rank returns the rank of a worker for a conversation, with rendezvous hashing
// (https://en.wikipedia.org/wiki/Rendezvous_hashing).
func rank(affinity uint64, key string) uint64 {
	h := affinity ^ 14695981039346656037
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}
