package ui

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

func (p *page) validate(r *operations.ValidateReport) {
	for _, e := range r.Errors {
		problem := operations.Problem{File: e.File, Line: e.Line, Column: e.Column, Message: e.Error, Hint: e.Hint}
		hive := e.Hive
		if e.File != "" {
			hive = "" // the position is more precise than the alias
		}
		p.fail(hive, problem.String())
		if e.Hint == "" && e.Unreachable != "" {
			p.hint(Hint(&operations.Error{Code: operations.CodeUnreachable, Reason: operations.Reason(e.Unreachable), Hive: e.Hive}))
		}
	}
	for _, w := range r.Warnings {
		p.warn(w.Hive, w.Warning)
	}
	if len(r.Errors) == 0 {
		p.okf("Config valid (%s, %s)", format.Count(r.Hives, "hive"), format.Count(r.Workers, "worker"))
		return
	}
	p.linef("%sValidation failed: %s, %s", p.style.fail(), format.Count(len(r.Errors), "error"), format.Count(len(r.Warnings), "warning"))
}

func (p *page) migrate(r *operations.MigrateReport) {
	for _, w := range r.Warnings {
		p.warn(w.Hive, w.Warning)
	}
	p.okf("Generated %s (%s, %s)", filepath.Base(r.OutputPath), format.Count(r.Summary.Hives, "hive"), format.Count(r.Summary.Workers, "worker"))
	p.linef("   %s", clean(r.OutputPath))
}

func (p *page) hives(hives []operations.HiveSummary) {
	if len(hives) == 0 {
		p.linef("No hives configured.")
		p.hint("run `rbee init` to create a config")
		return
	}
	t := table{header: []string{"HIVE", "HOST", "HIVE PORT", "WORKERS", "LABELS", "INSTALLED", "NOTE"}, right: map[string]bool{"HIVE PORT": true}}
	for _, h := range hives {
		note := ""
		if !h.InConfig {
			note = "not in config"
		}
		installed := "never"
		if !h.InstalledAt.IsZero() {
			installed = h.InstalledAt.Local().Format(time.DateOnly)
		}
		port := ""
		if h.HivePort != 0 {
			port = fmt.Sprint(h.HivePort)
		}
		t.add(h.Alias, address(h), port, configuredText(h.Workers), strings.Join(h.Labels, ", "), installed, note)
	}
	t.write(&p.text, p.style, "")
}

// address formats the SSH address of a hive as [user@]host[:port].
func address(h operations.HiveSummary) string {
	text := h.Hostname
	if h.SSHPort != 0 && h.SSHPort != 22 {
		if strings.Contains(text, ":") {
			text = "[" + text + "]"
		}
		text = fmt.Sprintf("%s:%d", text, h.SSHPort)
	}
	if h.SSHUser != "" {
		text = h.SSHUser + "@" + text
	}
	return text
}

// configuredText lists the workers of a hive in the config.
func configuredText(workers []operations.WorkerSummary) string {
	names := make([]string, len(workers))
	for i, w := range workers {
		names[i] = w.Type
		if w.Version != "" && w.Version != "latest" {
			names[i] += " " + w.Version
		}
	}
	return strings.Join(names, ", ")
}

func (p *page) hive(r *operations.HiveGetReport) {
	t := facts(r.Hive.Alias)
	d := r.Detail
	t.fact("host", address(r.Hive))
	t.fact("labels", strings.Join(r.Hive.Labels, ", "))
	t.fact("configured", configuredText(r.Hive.Workers))
	if !r.Hive.InConfig {
		t.fact("note", "not in config")
	}
	if !r.Hive.InstalledAt.IsZero() {
		t.fact("installed", r.Hive.InstalledAt.Local().Format(time.DateTime))
	}
	t.fact("rbee", rbeeText(d))
	t.fact("daemon", daemonText(d.Daemon))
	t.fact("workers", workersText(d.Workers))
	t.fact("platform", platformText(d))
	t.fact("machine", d.Hostname)
	t.fact("directory", d.Home)
	t.fact("disk free", diskText(d))
	t.write(&p.text, p.style, "")
	if d.Error != nil {
		p.failure(r.Hive.Alias, d.Error)
	}
}

func (p *page) daemon(r *operations.HiveDaemonReport) {
	process := ""
	if r.Daemon.Running {
		process = fmt.Sprintf(" (port %d, PID %d)", r.Daemon.Port, r.Daemon.PID)
	}
	switch r.Status {
	case operations.DaemonStarted:
		p.okf("Started %s%s", r.Alias, process)
	case operations.DaemonAlreadyRunning:
		p.okf("%s is already running%s", r.Alias, process)
	case operations.DaemonStopped:
		p.okf("Stopped %s", r.Alias)
	case operations.DaemonAlreadyStopped:
		p.okf("%s is already stopped", r.Alias)
	case operations.DaemonRunning:
		p.okf("%s is running%s", r.Alias, process)
	case operations.DaemonNotInstalled:
		p.warn(r.Alias, "Hive not installed")
		p.hint("run `rbee sync --hive " + r.Alias + "` to install it")
	default:
		text := "Hive not running"
		if r.Daemon.Problem != "" {
			text += ": " + r.Daemon.Problem
		}
		p.warn(r.Alias, text)
		p.hint("run `rbee start-hive " + r.Alias + "` to start it")
	}
}

// InitResult writes the result of creating a config, with the next step as a hint.
func InitResult(w io.Writer, s Style, path string, hives []string) error {
	p := &page{style: s}
	p.okf("Created %s (%s: %s)", path, format.Count(len(hives), "hive"), strings.Join(hives, ", "))
	p.hint("add your machines to the file, then run `rbee validate`")
	_, err := io.WriteString(w, p.text.String())
	return err
}
