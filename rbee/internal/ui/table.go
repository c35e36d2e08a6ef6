package ui

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// table aligns rows under a header. The columns in right are aligned to the right.
// Columns that are empty in every row are left out.
type table struct {
	header []string
	right  map[string]bool
	rows   [][]string
}

func (t *table) add(cells ...string) {
	row := make([]string, len(t.header))
	for i, c := range cells {
		row[i] = oneLine(c)
	}
	t.rows = append(t.rows, row)
}

// facts returns a table of names and values, with title as its header.
func facts(title string) *table { return &table{header: []string{oneLine(title), ""}} }

// fact adds a line, unless value is empty.
func (t *table) fact(name, value string) {
	if value != "" {
		t.add(name, value)
	}
}

// moment adds a line with a time and its age, unless the time is zero.
func (t *table) moment(name string, at, now time.Time) {
	if !at.IsZero() {
		t.add(name, at.Local().Format(time.DateTime)+" ("+format.Age(now.Sub(at))+" ago)")
	}
}

// write writes the table with indent before each line.
func (t *table) write(b *strings.Builder, s Style, indent string) {
	widths := t.widths()
	t.line(b, t.header, widths, indent, func(text string) string { return s.paint(format.Bold, text) })
	for _, row := range t.rows {
		t.line(b, row, widths, indent, func(text string) string { return text })
	}
}

// widths returns the widths of the columns in runes; 0 is a column without content.
func (t *table) widths() []int {
	widths := make([]int, len(t.header))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for i, w := range widths {
		if w > 0 || len(t.rows) == 0 {
			widths[i] = max(w, utf8.RuneCountInString(t.header[i]))
		}
	}
	return widths
}

func (t *table) line(b *strings.Builder, cells []string, widths []int, indent string, paint func(string) string) {
	b.WriteString(indent)
	pending := 0 // spaces to write before more text
	for i, cell := range cells {
		if widths[i] == 0 {
			continue
		}
		padding := widths[i] - utf8.RuneCountInString(cell)
		if t.right[t.header[i]] {
			pending, padding = pending+padding, 0
		}
		if cell != "" {
			b.WriteString(strings.Repeat(" ", pending))
			b.WriteString(paint(cell))
			pending = 0
		}
		pending += padding + 2
	}
	b.WriteByte('\n')
}
