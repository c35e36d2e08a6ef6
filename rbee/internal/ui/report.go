package ui

import (
	"fmt"
	"io"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// Report writes a report as text, in one write. It writes an unknown type of
// report as JSON.
func Report(w io.Writer, s Style, report operations.Report) error {
	p := &page{style: s}
	if err := p.report(report); err != nil {
		return err
	}
	_, err := io.WriteString(w, p.text.String())
	return err
}

func (p *page) report(report operations.Report) error {
	switch r := report.(type) {
	case *operations.SyncReport:
		p.sync(r)
	case *operations.UninstallReport:
		p.uninstall(r)
	case *operations.StatusReport:
		p.status(r)
	case *operations.ValidateReport:
		p.validate(r)
	case *operations.MigrateReport:
		p.migrate(r)
	case *operations.HiveListReport:
		p.hives(r.Hives)
		p.warnings(r.Warnings)
	case *operations.HiveGetReport:
		p.hive(r)
	case *operations.HiveDaemonReport:
		p.daemon(r)
	case *operations.HiveCapabilitiesReport:
		p.capabilities(r)
	case *operations.WorkerSpawnReport:
		p.spawn(r)
	case *operations.WorkerListReport:
		p.workers(r)
	case *operations.WorkerGetReport:
		p.worker(r.Worker)
	case *operations.WorkerDeleteReport:
		p.stopWorker(r)
	case *operations.ModelDownloadReport:
		p.downloadModel(r)
	case *operations.ModelListReport:
		p.models(r)
	case *operations.ModelGetReport:
		p.model(r.Model)
	case *operations.ModelDeleteReport:
		p.deleteModel(r)
	case *operations.RollbackReport:
		p.rollback(r)
	case *operations.BundleReport:
		p.bundle(r)
	case *Catalog:
		p.catalog(r)
	case *Recipe:
		p.recipe(r)
	case *CheckedRecipe:
		p.checkedRecipe(r)
	case *MultiHive:
		return p.multiHive(r)
	default:
		return JSON(&p.text, report)
	}
	return nil
}

// Failure writes an error as text, with a hint in the line below. If hint is
// empty, it writes the result of [Hint].
func Failure(w io.Writer, s Style, e *operations.Error, hint string) error {
	if hint == "" {
		hint = Hint(e)
	}
	p := &page{style: s}
	p.fail(e.Hive, e.Message)
	for _, problem := range e.Problems {
		p.linef("   %s", problem)
	}
	p.hint(hint)
	_, err := io.WriteString(w, p.text.String())
	return err
}

// page collects the lines of one report.
type page struct {
	style Style
	text  strings.Builder
}

func (p *page) linef(format string, args ...any) {
	fmt.Fprintf(&p.text, format+"\n", args...)
}

func (p *page) okf(format string, args ...any) {
	p.linef("%s%s", p.style.ok(), clean(fmt.Sprintf(format, args...)))
}

func (p *page) warn(hive, text string) { p.linef("%s%s", p.style.warn(), withHive(hive, text)) }
func (p *page) fail(hive, text string) { p.linef("%s%s", p.style.fail(), withHive(hive, text)) }

// warnings writes a line for each warning.
func (p *page) warnings(list []operations.ValidateWarning) {
	for _, w := range list {
		p.warn(w.Hive, w.Warning)
	}
}

// hint writes a line that states what to do, if text is not empty.
func (p *page) hint(text string) {
	if text != "" {
		p.note("hint: " + text)
	}
}

// note writes a line with details about the line above.
func (p *page) note(text string) { p.linef("   %s", clean(text)) }

// failure writes the error of a hive and its hint.
func (p *page) failure(hive string, e *operations.Error) {
	if e == nil {
		e = &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonFailed, Message: "failed without an error message"}
	}
	p.fail(hive, e.Message)
	p.hint(Hint(e))
}

// withHive prefixes text with the alias of a hive, if there is one.
func withHive(hive, text string) string {
	if hive == "" {
		return clean(text)
	}
	return clean(hive + ": " + text)
}
