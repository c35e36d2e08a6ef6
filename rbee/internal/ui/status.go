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
	differs := false
	for _, d := range r.Drift {
		if d.Issue == operations.IssueUnreachable {
			p.unreachable(d)
			continue
		}
		p.warn(d.Hive, driftText(d))
		switch d.Issue {
		case operations.IssueNewerHive: // sync leaves it as it is
			p.hint(Hint(&operations.Error{Reason: operations.ReasonNewerHive, Hive: d.Hive}))
		case operations.IssueExtraHive, operations.IssueExtraWorker:
			extra = true
		default:
			differs = true
		}
	}
	switch {
	case extra && differs:
		p.hint("`rbee sync` installs what is missing or outdated, and with --remove-extra removes what is extra")
	case extra:
		p.hint("`rbee sync --remove-extra` removes it; add it to the config to keep it")
	case differs:
		p.hint("`rbee sync` mends it, `rbee sync --dry-run` shows how")
	case len(r.Drift) == 0:
		p.okf("All components match config (%s, %s)", format.Count(r.Summary.TotalHives, "hive"), format.Seconds(r.Summary.DurationSeconds))
	}
	p.warnings(r.Warnings)
}

func (p *page) unreachable(d operations.Drift) {
	e := d.Error
	if e == nil {
		e = &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonUnreachable, Subject: operations.SubjectHive.Named(d.Hive), Hive: d.Hive, Message: d.Details}
	}
	p.failure(d.Hive, e)
}

// details is the table of `status --verbose`: a line for each hive, with its workers.
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
