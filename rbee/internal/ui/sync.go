package ui

import (
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// maxNamedHives is the number of changed hives at which the output counts the hives
// instead of naming them.
const maxNamedHives = 12

func (p *page) sync(r *operations.SyncReport) {
	if r.DryRun {
		p.plan(r)
		return
	}
	p.upgrades(r.Plan.Upgrades)
	p.installedHives(r)
	p.changedHives(r)
	p.hiveFailures(r.Hives)
	p.blockedWorkers(r.Plan.Blocked)
	sum := r.Summary
	if p.text.Len() == 0 {
		p.okf("Nothing to change: %s, %s already installed (%s)",
			format.Count(sum.HivesAlreadyInstalled, "hive"), format.Count(sum.WorkersAlreadyInstalled, "worker"), format.Seconds(sum.DurationSeconds))
	}
	p.warnings(r.Warnings)
}

// installedHives writes the hives on which rbee was installed.
func (p *page) installedHives(r *operations.SyncReport) {
	var hives []operations.HiveReport
	workers := 0
	for _, h := range r.Hives {
		if h.Status == operations.HiveInstalled {
			hives = append(hives, h)
			workers += len(workersOf(h.Steps, operations.ActionInstallWorker, operations.ActionUpdateWorker))
		}
	}
	duration := format.Seconds(r.Summary.DurationSeconds)
	switch len(hives) {
	case 0:
	case 1:
		p.okf("Installed %s (%s, %s)", hives[0].Alias, format.Count(workers, "worker"), duration)
	default:
		p.okf("Installed %s, %s (%s)", format.Count(len(hives), "hive"), format.Count(workers, "worker"), duration)
	}
}

// changedHives writes the changes on hives that already had rbee.
func (p *page) changedHives(r *operations.SyncReport) {
	var hives []operations.HiveReport
	for _, h := range r.Hives {
		if h.Status != operations.HiveInstalled && len(h.Steps) > 0 {
			hives = append(hives, h)
		}
	}
	if len(hives) < maxNamedHives {
		for _, h := range hives {
			p.changes(h)
		}
		return
	}
	var steps []operations.Step
	for _, h := range hives {
		steps = append(steps, h.Steps...)
	}
	p.okf("Updated %s: %s installed, %s updated, %s removed (%s)", format.Count(len(hives), "hive"),
		format.Count(len(workersOf(steps, operations.ActionInstallWorker)), "worker"),
		format.Count(len(workersOf(steps, operations.ActionUpdateWorker)), "worker"),
		format.Count(len(workersOf(steps, operations.ActionRemoveWorker)), "worker"), format.Seconds(r.Summary.DurationSeconds))
}

// changes writes one line for each kind of change on a hive.
func (p *page) changes(h operations.HiveReport) {
	for _, kind := range []struct {
		action operations.Action
		format string
	}{
		{operations.ActionInstallWorker, "Installed %s on %s"},
		{operations.ActionUpdateWorker, "Updated %s on %s"},
		{operations.ActionRemoveWorker, "Removed %s from %s"},
	} {
		if workers := workersOf(h.Steps, kind.action); len(workers) > 0 {
			p.okf(kind.format, strings.Join(workers, ", "), h.Alias)
		}
	}
	for _, s := range h.Steps {
		switch s.Action {
		case operations.ActionUpdateHive:
			p.okf("Updated rbee on %s%s", h.Alias, format.Prefixed(" to ", s.Version))
		case operations.ActionConfigureHive:
			p.okf("Changed the settings of %s", h.Alias)
		case operations.ActionStartHive:
			p.okf("Started %s", h.Alias)
		case operations.ActionStopHive:
			p.okf("Stopped %s", h.Alias)
		case operations.ActionRemoveHive:
			p.okf("Removed %s", h.Alias)
		}
	}
}

// workersOf returns the workers of the steps with any of the actions.
func workersOf(steps []operations.Step, actions ...operations.Action) []string {
	var workers []string
	for _, s := range steps {
		for _, a := range actions {
			if s.Action == a {
				workers = append(workers, s.Worker)
			}
		}
	}
	return workers
}

// hiveFailures writes the errors of the hives that failed. If several steps failed
// with the same message, it is written once, with the first step. Steps that were
// not started are written only if the hive has no other error.
func (p *page) hiveFailures(hives []operations.HiveReport) {
	for _, h := range hives {
		written := map[string]bool{} // by message
		for _, f := range h.FailedSteps {
			e := f.Error
			if e == nil {
				e = &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotStarted, Message: "not started"}
			}
			if e.Reason == operations.ReasonNotStarted && (h.Error != nil && h.Error.Reason != operations.ReasonNotStarted || len(written) > 0) {
				continue
			}
			if !written[e.Message] {
				p.fail(h.Alias, fmt.Sprintf("cannot %s: %s", infinitive(f.Step), e.Message))
				p.hint(Hint(e))
				p.detail(e.Detail)
			}
			written[e.Message] = true
		}
		switch h.Status {
		case operations.HiveFailed, operations.HiveUnreachable, operations.HiveLocked, operations.HiveCanceled:
			if e := hiveError(h); !written[e.Message] && (h.Error != nil || len(h.FailedSteps) == 0) {
				p.failure(h.Alias, e)
			}
		}
	}
}

// hiveError returns the error of a hive, or a new error with its status.
func hiveError(h operations.HiveReport) *operations.Error {
	switch {
	case h.Error != nil:
		return h.Error
	case h.Status == operations.HiveCanceled:
		return &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "canceled before it was complete"}
	default:
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonFailed, Message: string(h.Status)}
	}
}

// blockedWorkers writes the workers that cannot be installed on a hive.
func (p *page) blockedWorkers(blocked []operations.Blocked) {
	for _, b := range blocked {
		text := b.Reason
		if b.Worker != "" {
			text = fmt.Sprintf("cannot install worker '%s': %s", b.Worker, b.Reason)
		}
		p.fail(b.Hive, text)
		p.hint(Hint(b.Error))
		p.detail(b.Detail)
	}
}

// detail writes the complete output of a failed program, if the style is verbose.
func (p *page) detail(text string) {
	if !p.style.Verbose || text == "" {
		return
	}
	for line := range strings.Lines(text) {
		p.linef("      %s", strings.TrimRight(line, "\r\n"))
	}
}

// plan writes the result of a dry run: the steps as a table, and a summary.
func (p *page) plan(r *operations.SyncReport) {
	p.upgrades(r.Plan.Upgrades)
	if len(r.Plan.Steps) > 0 {
		t := table{
			header: []string{"HIVE", "ACTION", "WORKER", "VERSION", "VARIANT", "REASON", "SIZE"},
			right:  map[string]bool{"SIZE": true},
		}
		var total, downloads int64
		hives := map[string]bool{}
		for _, s := range r.Plan.Steps {
			bytes := ""
			if s.Bytes > 0 {
				bytes = bytesize.Format(s.Bytes)
			}
			t.add(s.Hive, strings.ReplaceAll(string(s.Action), "_", " "), s.Worker, versions(s.From, s.Version), s.Variant, s.Reason, bytes)
			total, downloads = total+s.Bytes, downloads+s.DownloadBytes
			hives[s.Hive] = true
		}
		t.write(&p.text, p.style, "")
		p.linef("")
		p.variants(r.Plan.Steps)
		p.linef("%s%s on %s%s. Nothing was changed.", p.style.warn(),
			format.Count(len(r.Plan.Steps), "change"), format.Count(len(hives), "hive"), transfers(total-downloads, downloads))
	}
	p.hiveFailures(r.Hives)
	p.blockedWorkers(r.Plan.Blocked)
	if p.text.Len() == 0 {
		p.okf("Nothing to change: %s, %s already installed (%s)", format.Count(r.Summary.HivesAlreadyInstalled, "hive"),
			format.Count(r.Summary.WorkersAlreadyInstalled, "worker"), format.Seconds(r.Summary.DurationSeconds))
	}
	p.warnings(r.Warnings)
}

// transfers formats the bytes that this machine sends and the bytes that the hives
// download: ", 17 MiB to send, 3.0 GiB to download".
func transfers(send, download int64) string {
	text := ""
	if send > 0 {
		text += ", " + bytesize.Format(send) + " to send"
	}
	if download > 0 {
		text += ", " + bytesize.Format(download) + " to download"
	}
	return text
}

// variants writes why the variants of a plan were chosen.
func (p *page) variants(steps []operations.Step) {
	explained := false
	for _, s := range steps {
		if s.VariantReason != "" {
			p.linef("%s: %s %s: %s", s.Hive, s.Worker, s.Variant, s.VariantReason)
			explained = true
		}
	}
	if explained {
		p.linef("")
	}
}

// versions formats a change of version.
func versions(from, to string) string {
	if from == "" || from == to {
		return to
	}
	if to == "" {
		return from
	}
	return from + " -> " + to
}

func (p *page) uninstall(r *operations.UninstallReport) {
	sum := r.Summary
	var removed []string
	for _, h := range r.Hives {
		if h.Status == operations.HiveUninstalled {
			removed = append(removed, h.Alias)
		}
	}
	switch {
	case len(removed) == 1:
		p.okf("Uninstalled %s (%s, %s)", removed[0], format.Count(sum.WorkersRemoved, "worker"), format.Seconds(sum.DurationSeconds))
	case len(removed) > 1:
		p.okf("Uninstalled %s, %s (%s)", format.Count(len(removed), "hive"), format.Count(sum.WorkersRemoved, "worker"), format.Seconds(sum.DurationSeconds))
	}
	p.hiveFailures(r.Hives)
	if len(removed) == 0 && p.text.Len() == 0 {
		p.okf("Nothing to remove: rbee is not installed on %s", format.Count(sum.HivesNotInstalled, "hive"))
	}
	for _, path := range r.PurgedPaths {
		p.okf("Removed %s", path)
	}
}
