package ui

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

func (p *page) downloadModel(r *operations.ModelDownloadReport) {
	m := r.Model
	if r.Downloaded == 0 {
		p.okf("Nothing to change: %s is already%s (%s)", m.ID, cmp.Or(atHive(m.Hive), " downloaded"), bytesize.Format(m.Bytes))
		return
	}
	text := bytesize.Format(r.Downloaded) + " in " + format.Seconds(r.DurationSeconds)
	if r.DurationSeconds > 0 {
		text += " (" + rate(float64(r.Downloaded)/r.DurationSeconds) + ")"
	}
	if r.Resumed > 0 {
		text += ", " + bytesize.Format(r.Resumed) + " resumed"
	}
	if r.Present > 0 {
		text += ", " + bytesize.Format(r.Present) + " already present"
	}
	p.okf("Downloaded %s%s: %s", m.ID, format.Prefixed(" to ", m.Hive), text)
}

func (p *page) models(r *operations.ModelListReport) {
	t := table{
		header: []string{"HIVE", "MODEL", "FORMAT", "SIZE", "USED BY", "CHANGED", "NOTE"},
		right:  map[string]bool{"SIZE": true},
	}
	for _, m := range r.Models {
		changed := ""
		if !m.ModifiedAt.IsZero() {
			changed = m.ModifiedAt.Local().Format("2006-01-02 15:04")
		}
		t.add(m.Hive, m.ID, m.Format, bytesize.Format(m.Bytes), strings.Join(m.UsedBy, ", "), changed, modelNote(m))
	}
	switch {
	case len(r.Models) > 0:
		t.write(&p.text, p.style, "")
	case len(r.Errors) == 0:
		p.linef("No models found.")
		p.hint("run `rbee download-model MODEL` to download one")
	}
	p.errors(r.Errors)
}

func modelNote(m operations.Model) string {
	switch {
	case m.Complete:
		return ""
	case m.PartialBytes > 0:
		return "incomplete: " + bytesize.Format(m.PartialBytes) + " downloaded"
	default:
		return "incomplete"
	}
}

func (p *page) model(m operations.Model) {
	t := facts(m.ID)
	t.fact("hive", m.Hive)
	t.fact("repository", m.Repo)
	t.fact("revisions", strings.Join(m.Revisions, ", "))
	t.fact("commit", m.Commit)
	t.fact("format", m.Format)
	t.fact("size", bytesize.Format(m.Bytes))
	t.fact("note", modelNote(m))
	if m.MemoryEstimate > 0 {
		t.fact("expected memory", bytesize.Format(m.MemoryEstimate))
	}
	t.fact("used by", strings.Join(m.UsedBy, ", "))
	t.moment("changed", m.ModifiedAt, p.style.now())
	t.fact("path", m.Path)
	t.write(&p.text, p.style, "")
	if len(m.Files) == 0 {
		return
	}
	p.linef("")
	files := table{header: []string{"FILE", "SIZE", "SHA-256", "NOTE"}, right: map[string]bool{"SIZE": true}}
	for _, f := range m.Files {
		note := ""
		if f.Missing {
			note = "missing"
		}
		files.add(f.Path, bytesize.Format(f.Bytes), cut(f.SHA256, 13), note)
	}
	files.write(&p.text, p.style, "")
}

func (p *page) deleteModel(r *operations.ModelDeleteReport) {
	kept := ""
	if r.Kept > 0 {
		kept = fmt.Sprintf(", %s kept for other models", bytesize.Format(r.Kept))
	}
	p.okf("Deleted %s%s (%s freed%s)", r.Model.ID, format.Prefixed(" from ", r.Model.Hive), bytesize.Format(r.Freed), kept)
}
