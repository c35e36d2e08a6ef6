package ui

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// table lines rows up under a header. Columns named in right are set flush
// right; columns that are empty in every row are left out.
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

// facts is a table of two columns without a header of their own: names and values.
func facts(title string) *table { return &table{header: []string{oneLine(title), ""}} }

// fact adds a line, unless there is nothing to say.
func (t *table) fact(name, value string) {
	if value != "" {
		t.add(name, value)
	}
}

// moment adds when something was, and how long ago.
func (t *table) moment(name string, at, now time.Time) {
	if !at.IsZero() {
		t.add(name, at.Local().Format(time.DateTime)+" ("+format.Age(now.Sub(at))+" ago)")
	}
}

// write draws the table with an indent before each line.
func (t *table) write(b *strings.Builder, s Style, indent string) {
	widths := t.widths()
	t.line(b, t.header, widths, indent, func(text string) string { return s.paint(format.Bold, text) })
	for _, row := range t.rows {
		t.line(b, row, widths, indent, func(text string) string { return text })
	}
}

// widths are in runes; 0 marks a column without content.
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
	pending := 0 // spaces that are written only when more text follows
	for i, cell := range cells {
		if widths[i] == 0 {
			continue
		}
		room := widths[i] - utf8.RuneCountInString(cell)
		if t.right[t.header[i]] {
			pending, room = pending+room, 0
		}
		if cell != "" {
			b.WriteString(strings.Repeat(" ", pending))
			b.WriteString(paint(cell))
			pending = 0
		}
		pending += room + 2
	}
	b.WriteByte('\n')
}
