package ui

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

func (p *page) spawn(r *operations.WorkerSpawnReport) {
	w := r.Worker
	switch {
	case r.Outcome() != operations.OutcomeOK:
		p.fail(w.Hive, w.ID+" "+string(w.State)+format.Prefixed(": ", format.WorkerProblem(w)))
		p.logTail(w.LogTail)
		p.hint("run `rbee worker-logs " + w.ID + onHive(w.Hive) + "` for the complete log")
	case w.State == operations.WorkerReady:
		p.okf("Spawned %s%s: %s serves %s on port %d (PID %d, %s, ready after %s)",
			w.ID, atHive(w.Hive), w.Worker, w.Model, w.Port, w.PID, devicesText(w.Devices), format.Seconds(r.DurationSeconds))
	default:
		p.okf("Started %s%s: %s is %s %s on port %d (PID %d, %s)",
			w.ID, atHive(w.Hive), w.Worker, w.State, w.Model, w.Port, w.PID, devicesText(w.Devices))
		p.hint("run `rbee get-worker " + w.ID + onHive(w.Hive) + "` to see whether it is ready")
	}
	if p.style.Verbose && r.Reason != "" {
		p.linef("   %s", clean(r.Reason))
	}
}

// logTail writes the last lines of a log without hidden characters.
func (p *page) logTail(lines []string) {
	if len(lines) == 0 {
		return
	}
	p.linef("   last lines of the log:")
	for _, line := range lines {
		p.linef("%s", strings.TrimRight("     "+printable(line), " "))
	}
}

// atHive formats a hive for a sentence, onHive for a command line.
func atHive(alias string) string { return format.Prefixed(" on ", alias) }
func onHive(alias string) string { return format.Prefixed(" --hive ", alias) }

// devicesText formats the devices of a worker: "GPU 0", "GPUs 0,1" or "CPU".
func devicesText(devices []operations.WorkerDevice) string {
	switch len(devices) {
	case 0:
		return "CPU"
	case 1:
		return "GPU " + format.DeviceIndices(devices)
	default:
		return "GPUs " + format.DeviceIndices(devices)
	}
}

func (p *page) workers(r *operations.WorkerListReport) {
	t := table{
		header: []string{"HIVE", "ID", "WORKER", "MODEL", "STATE", "PID", "PORT", "DEVICES", "REQUESTS", "UPTIME", "NOTE"},
		right:  map[string]bool{"PID": true, "PORT": true, "REQUESTS": true, "UPTIME": true},
	}
	now := p.style.now()
	for _, w := range r.Workers {
		devices, requests := format.DeviceIndices(w.Devices), ""
		if w.PID > 0 && devices == "" {
			devices = "CPU"
		}
		if w.State == operations.WorkerReady || w.Requests > 0 {
			requests = fmt.Sprint(w.Requests)
		}
		t.add(w.Hive, w.ID, w.Worker, w.Model, string(w.State), positive(w.PID), positive(w.Port), devices, requests, format.WorkerUptime(w, now), workerNote(w, now))
	}
	switch {
	case len(r.Workers) > 0:
		t.write(&p.text, p.style, "")
	case len(r.Errors) == 0:
		p.linef("No workers running.")
		p.hint("run `rbee spawn-worker` to start one")
	}
	p.errors(r.Errors)
}

// errors writes the errors of hives that did not respond.
func (p *page) errors(errs []*operations.Error) {
	for _, e := range errs {
		p.failure(e.Hive, e)
	}
}

// positive formats n, or returns "" if n is not positive.
func positive(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// workerNote returns the details of a worker's state for a table.
func workerNote(w operations.WorkerProcess, now time.Time) string {
	var notes []string
	switch w.State {
	case operations.WorkerStopped, operations.WorkerFailed:
		if !w.RestartAt.IsZero() {
			notes = append(notes, format.Restart(w.RestartAt, now))
		} else if !w.EndedAt.IsZero() {
			notes = append(notes, "exited "+format.Age(now.Sub(w.EndedAt))+" ago")
		}
	}
	if w.Restarts > 0 {
		notes = append(notes, format.Count(w.Restarts, "restart"))
	}
	if text := format.WorkerProblem(w); text != "" && w.State != operations.WorkerStopped {
		notes = append(notes, text)
	}
	return cut(oneLine(strings.Join(notes, "; ")), 100)
}

func (p *page) worker(w operations.WorkerProcess) {
	now := p.style.now()
	t := facts(w.ID)
	t.fact("hive", w.Hive)
	t.fact("worker", strings.TrimSpace(w.Worker+" "+w.Version))
	t.fact("model", w.Model)
	t.fact("state", string(w.State))
	t.fact("problem", format.WorkerProblem(w))
	if !w.RestartAt.IsZero() {
		t.fact("next attempt", format.Restart(w.RestartAt, now))
	}
	t.fact("restarts", positive(w.Restarts))
	t.fact("PID", positive(w.PID))
	t.fact("port", positive(w.Port))
	t.fact("devices", deviceList(w.Devices))
	if w.MemoryEstimate > 0 {
		t.fact("expected memory", bytesize.Format(w.MemoryEstimate))
	}
	t.fact("requests", positive(w.Requests))
	t.moment("created", w.CreatedAt, now)
	t.moment("started", w.StartedAt, now)
	t.moment("ready", w.ReadyAt, now)
	t.moment("exited", w.EndedAt, now)
	t.fact("command", commandText(w.Argv))
	t.fact("environment", strings.Join(w.EnvNames, ", "))
	t.fact("log", w.LogPath)
	t.write(&p.text, p.style, "")
	p.logTail(w.LogTail)
}

func deviceList(devices []operations.WorkerDevice) string {
	if len(devices) == 0 {
		return "CPU"
	}
	list := make([]string, len(devices))
	for i, d := range devices {
		list[i] = strings.TrimSpace(fmt.Sprintf("%d %s", d.Index, cmp.Or(d.Name, d.Vendor)))
	}
	return strings.Join(list, ", ")
}

// commandText formats a command line, with words quoted where necessary.
func commandText(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		words[i] = word
		if word == "" || strings.ContainsAny(word, " \t\n\"'$\\") {
			words[i] = fmt.Sprintf("%q", word)
		}
	}
	return strings.Join(words, " ")
}

func (p *page) stopWorker(r *operations.WorkerDeleteReport) {
	w := r.Worker
	switch {
	case r.Outcome() == operations.OutcomeOK:
		killed := ""
		if r.Killed {
			killed = "killed, "
		}
		p.okf("Stopped %s%s (%s%s)", w.ID, atHive(w.Hive), killed, format.Seconds(r.DurationSeconds))
		if r.Note != "" {
			p.linef("   %s", r.Note)
		}
	case w.State == operations.WorkerStopped:
		p.fail(w.Hive, w.ID+" stopped, but "+r.Problem)
	default:
		p.fail(w.Hive, w.ID+" is "+string(w.State)+", not stopped"+format.Prefixed(": ", cmp.Or(r.Problem, w.Problem)))
	}
	if len(r.Holders) > 0 {
		p.linef("   processes that use memory on its devices:")
		var devices []gpu.Device
		for _, d := range w.Devices {
			devices = append(devices, gpu.Device{Index: d.Index, Vendor: gpu.Vendor(d.Vendor), UUID: d.UUID})
		}
		p.deviceProcesses(r.Holders, devices, "     ")
	}
}
