package scheduler

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// LoadTarget is a hive that can load a model.
type LoadTarget struct {
	Hive   int    // index into the hives passed to [LoadTargets]
	Model  string // model ID
	Worker string // worker type
	Free   uint64 // device memory, in bytes
}

// LoadTargets returns the hives that can load a model, most free memory first. reasons
// contains, by alias, why each other hive with a snapshot cannot load the model.
func LoadTargets(hives []Hive, model string) (list []LoadTarget, reasons map[string]string) {
	reasons = map[string]string{}
	for i := range hives {
		h := &hives[i]
		if h.Report == nil {
			continue
		}
		found := FindModels(h.Report.Models, model)
		if len(found) != 1 {
			reasons[h.Alias] = modelProblem(found)
			continue
		}
		m := found[0]
		typ := Engine(*h, m.Format)
		switch {
		case !m.Complete:
			reasons[h.Alias] = "the model is incomplete"
		case typ == "":
			reasons[h.Alias] = "no installed worker type serves " + cmp.Or(m.Format, "such") + " models"
		default:
			list = append(list, LoadTarget{i, m.ID, typ, freeMemory(h.Report)})
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Free > list[j].Free })
	return list, reasons
}

// Engine returns the installed worker type that serves a format, or "". If there are
// several, the order of the config decides. The hive must have a snapshot.
func Engine(h Hive, format string) string {
	serves := func(typ string) bool {
		return slices.ContainsFunc(h.Report.WorkerTypes, func(i operations.InstalledWorkerType) bool {
			return i.Type == typ && slices.Contains(i.Formats, format)
		})
	}
	for _, typ := range h.Types {
		if serves(typ) {
			return typ
		}
	}
	for _, i := range h.Report.WorkerTypes {
		if serves(i.Type) {
			return i.Type
		}
	}
	return ""
}

// modelProblem returns the reason why a name does not identify a model of a hive. found are
// the models that match.
func modelProblem(found []*operations.Model) string {
	if len(found) == 0 {
		return "the model is not on the hive"
	}
	ids := make([]string, len(found))
	for i, m := range found {
		ids[i] = m.ID
	}
	return "the model name is ambiguous: " + strings.Join(ids, ", ")
}

func freeMemory(s *operations.HiveSnapshot) (free uint64) {
	for _, d := range s.Machine.Devices {
		if n, known := d.Available(); known && d.Error == "" {
			free += n
		}
	}
	return free
}

// RestartingWorker returns a failed worker of the model that will be restarted, or nil. The
// hive must have a snapshot.
func RestartingWorker(h Hive, model string) *operations.WorkerProcess {
	serves := Serves(h.Report.Models, model)
	for i, w := range h.Report.Workers {
		if w.State == operations.WorkerFailed && !w.RestartAt.IsZero() && serves(&w) {
			return &h.Report.Workers[i]
		}
	}
	return nil
}

// PendingWorkers returns the workers of a hive that are starting or loading, and could serve
// the request once they are ready. The hive must have a snapshot.
func PendingWorkers(r Request, h Hive) (list []*operations.WorkerProcess) {
	serves := Serves(h.Report.Models, r.Model)
	for i := range h.Report.Workers {
		w := &h.Report.Workers[i]
		if IsPending(w) && w.API == "" && serves(w) && (r.Device == "" || OnDevice(*w, r.Device)) {
			list = append(list, w)
		}
	}
	return list
}

// IsPending reports whether a worker is starting or loading.
func IsPending(w *operations.WorkerProcess) bool {
	return w.State == operations.WorkerStarting || w.State == operations.WorkerLoading
}

// FetchTarget returns the index of the hive that should fetch a model: the hive that has a
// part of the model, else the hive with the most memory among those with an engine for it. It
// returns -1 if some hive has the complete model, if the name is ambiguous or not a hub
// reference (owner/name), and if no hive has an engine. known contains the last
// reported models of each hive, including offline hives, which may have the model.
func FetchTarget(hives []Hive, known [][]operations.Model, model string) int {
	if !strings.Contains(model, "/") {
		return -1
	}
	target := largestHive(hives, formatOf(model))
	for i := range hives {
		found := FindModels(known[i], model)
		switch {
		case len(found) > 1, len(found) == 1 && found[0].Complete:
			return -1 // the caller reports the problem
		case len(found) == 1 && hives[i].Report != nil:
			target = i
		}
	}
	return target
}

// formatOf guesses the format of a model from its name: names of GGUF repositories usually
// contain the format, and only GGUF models have a quantization after a colon.
func formatOf(model string) string {
	if _, after, _ := strings.Cut(model, "/"); strings.Contains(after, ":") || strings.Contains(strings.ToLower(after), "gguf") {
		return "gguf"
	}
	return "safetensors"
}

// largestHive returns the index of the hive with the most memory among those with an
// engine for a format. If no hive has one, it considers all hives with an engine. It returns
// -1 if no hive has an engine.
func largestHive(hives []Hive, format string) int {
	var list []int
	for i := range hives {
		if s := hives[i].Report; s != nil && slices.ContainsFunc(s.WorkerTypes, func(t operations.InstalledWorkerType) bool { return len(t.Formats) > 0 }) {
			list = append(list, i)
		}
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := hives[list[i]], hives[list[j]]
		if hasEngine := Engine(a, format) != ""; hasEngine != (Engine(b, format) != "") {
			return hasEngine
		}
		return Capacity(a.Report) > Capacity(b.Report)
	})
	if len(list) == 0 {
		return -1
	}
	return list[0]
}

// Capacity returns the total memory for models on a hive, in bytes: the memory of its
// accelerators, or main memory if it has no accelerator.
func Capacity(s *operations.HiveSnapshot) (n uint64) {
	for _, d := range s.Machine.Devices {
		if d.Error == "" {
			n += d.MemoryTotal
		}
	}
	if n == 0 {
		return s.Machine.MemoryTotal
	}
	return n
}
