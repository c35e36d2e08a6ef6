package ui

import (
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

func (p *page) status(r *operations.StatusReport) {
	if len(r.Hives) > 0 {
		p.details(r.Hives)
		p.linef("")
	}
	extra := false
	fixable := false
	for _, d := range r.Drift {
		if d.Issue == operations.IssueUnreachable {
			p.unreachable(d)
			continue
		}
		p.warn(d.Hive, driftText(d))
		switch d.Issue {
		case operations.IssueNewerHive: // sync does not change such a hive
			p.hint(Hint(&operations.Error{Reason: operations.ReasonNewerHive, Hive: d.Hive}))
		case operations.IssueExtraHive, operations.IssueExtraWorker:
			extra = true
		default:
			fixable = true
		}
	}
	switch {
	case extra && fixable:
		p.hint("run `rbee sync` to fix missing and outdated items; --remove-extra also removes items that are not in the config")
	case extra:
		p.hint("run `rbee sync --remove-extra` to remove it, or add it to the config")
	case fixable:
		p.hint("run `rbee sync` to fix it (`--dry-run` prints the plan)")
	case len(r.Drift) == 0:
		p.okf("All components match config (%s, %s)", format.Count(r.Summary.TotalHives, "hive"), format.Seconds(r.Summary.DurationSeconds))
	}
	p.warnings(r.Warnings)
}

func (p *page) unreachable(d operations.Drift) {
	e := d.Error
	if e == nil {
		e = &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonUnreachable, Subject: operations.SubjectHive.WithName(d.Hive), Hive: d.Hive, Message: d.Details}
	}
	p.failure(d.Hive, e)
}

// details writes the table of `rbee status --verbose`, with one line per hive.
func (p *page) details(hives []operations.HiveDetail) {
	t := table{header: []string{"HIVE", "RBEE", "DAEMON", "PLATFORM", "DISK FREE", "WORKERS"}, right: map[string]bool{"DISK FREE": true}}
	for _, h := range hives {
		t.add(h.Alias, rbeeText(h), daemonText(h.Daemon), platformText(h), diskText(h), workersText(h.Workers))
	}
	t.write(&p.text, p.style, "")
}

func rbeeText(h operations.HiveDetail) string {
	switch {
	case h.Error != nil:
		return "unreachable"
	case !h.Installed:
		return "not installed"
	case h.Version == "":
		return "unknown"
	default:
		return h.Version
	}
}

func daemonText(d *operations.DaemonDetail) string {
	switch {
	case d == nil:
		return ""
	case d.Running && d.Supervisor != "" && d.Supervisor != "none":
		return fmt.Sprintf("running, port %d, %s", d.Port, d.Supervisor)
	case d.Running:
		return fmt.Sprintf("running, port %d", d.Port)
	case d.Problem != "":
		return "not running: " + d.Problem
	default:
		return "not running"
	}
}

func platformText(h operations.HiveDetail) string {
	if h.OS == "" {
		return ""
	}
	text := h.OS + "/" + h.Arch
	if h.Libc != "" {
		text += " (" + h.Libc + ")"
	}
	return text
}

func diskText(h operations.HiveDetail) string {
	if h.DiskFree == 0 {
		return ""
	}
	return bytesize.Format(h.DiskFree)
}

func workersText(workers []operations.WorkerDetail) string {
	names := make([]string, len(workers))
	for i, w := range workers {
		names[i] = w.Type
		if w.Version != "" {
			names[i] += " " + w.Version
		}
		if w.Problem != "" {
			names[i] += " (" + w.Problem + ")"
		}
	}
	return strings.Join(names, ", ")
}
