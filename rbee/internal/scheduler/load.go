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
	Hive   int    // index into the hives that were passed
	Model  string // its id
	Worker string // the type
	Free   uint64 // device memory, in bytes
}

// LoadTargets are where a model could be loaded, the one with the most room first. Of
// the hives that are none, why tells the reason.
func LoadTargets(hives []Hive, model string) (list []LoadTarget, why map[string]string) {
	why = map[string]string{}
	for i := range hives {
		h := &hives[i]
		if h.Report == nil {
			continue
		}
		found := FindModels(h.Report.Models, model)
		if len(found) != 1 {
			why[h.Alias] = modelProblem(found)
			continue
		}
		m := found[0]
		typ := Engine(*h, m.Format)
		switch {
		case !m.Complete:
			why[h.Alias] = "the model is not whole there"
		case typ == "":
			why[h.Alias] = "no engine for " + cmp.Or(m.Format, "such") + " models is installed there"
		default:
			list = append(list, LoadTarget{i, m.ID, typ, freeMemory(h.Report)})
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Free > list[j].Free })
	return list, why
}

// Engine is the installed worker type that serves a format; of several the one
// that the config names first. The hive must have a snapshot.
func Engine(h Hive, format string) string {
	serves := func(typ string) bool {
		return slices.ContainsFunc(h.Report.Installed, func(i operations.InstalledType) bool {
			return i.Type == typ && slices.Contains(i.Formats, format)
		})
	}
	for _, typ := range h.Types {
		if serves(typ) {
			return typ
		}
	}
	for _, i := range h.Report.Installed {
		if serves(i.Type) {
			return i.Type
		}
	}
	return ""
}

// modelProblem says that a name means no model of a hive, or which.
func modelProblem(found []*operations.Model) string {
	if len(found) == 0 {
		return "the model is not there"
	}
	ids := make([]string, len(found))
	for i, m := range found {
		ids[i] = m.ID
	}
	return "several models of that name are there: " + strings.Join(ids, ", ")
}

func freeMemory(s *operations.HiveSnapshot) (free uint64) {
	for _, d := range s.Machine.Devices {
		if n, known := d.Available(); known && d.Error == "" {
			free += n
		}
	}
	return free
}

// RestartingWorker is a worker of the model that failed, and will be started again; nil if
// there is none. The hive must have a snapshot.
func RestartingWorker(h Hive, model string) *operations.WorkerProcess {
	serves := Serves(h.Report.Models, model)
	for i, w := range h.Report.Workers {
		if w.State == operations.WorkerFailed && !w.RestartAt.IsZero() && serves(&w) {
			return &h.Report.Workers[i]
		}
	}
	return nil
}

// PendingWorkers returns the workers of a hive that are starting or loading, and could answer
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

// FetchTarget returns the index of the hive that fetches a model that no hive has whole:
// the one that has begun to, else the one with the most memory among those that have an
// engine for it. It is -1 for a name that is none of a hub's or means several models,
// where no hive has an engine, and where a hive has the model whole. known are the models
// that each hive reported last, also of a hive that is away: unreachable is not absent.
func FetchTarget(hives []Hive, known [][]operations.Model, model string) int {
	if !strings.Contains(model, "/") {
		return -1
	}
	best := largestHive(hives, formatOf(model))
	for i := range hives {
		found := FindModels(known[i], model)
		switch {
		case len(found) > 1, len(found) == 1 && found[0].Complete:
			return -1 // what is wrong with that is told
		case len(found) == 1 && hives[i].Report != nil:
			best = i
		}
	}
	return best
}

// formatOf guesses the format of a model of which only the name is known: repositories
// of GGUF files say so in their names, and only they hold several quantisations.
func formatOf(model string) string {
	if _, after, _ := strings.Cut(model, "/"); strings.Contains(after, ":") || strings.Contains(strings.ToLower(after), "gguf") {
		return "gguf"
	}
	return "safetensors"
}

// largestHive is the hive with the most memory that has an engine for a format, or, where
// none has, for any; -1 if there is none.
func largestHive(hives []Hive, format string) int {
	var list []int
	for i := range hives {
		if s := hives[i].Report; s != nil && slices.ContainsFunc(s.Installed, func(t operations.InstalledType) bool { return len(t.Formats) > 0 }) {
			list = append(list, i)
		}
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := hives[list[i]], hives[list[j]]
		if has := Engine(a, format) != ""; has != (Engine(b, format) != "") {
			return has
		}
		return Capacity(a.Report) > Capacity(b.Report)
	})
	if len(list) == 0 {
		return -1
	}
	return list[0]
}

// Capacity is the memory that a model may take on a hive: that of its accelerators, or
// the machine's where it has none.
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
