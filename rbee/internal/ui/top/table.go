package top

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// column is a column of a table. On a narrow screen it shrinks or is left out.
type column struct {
	name     string
	right    bool // aligned to the right
	minWidth int  // 0: the column does not shrink
	drop     int  // the column with the highest value is left out first; 0: never
}

// table aligns rows under a header. Columns without content are left out.
type table struct {
	columns []column
	rows    [][]cell
}

const (
	barWidth     = 12 // preferred width of a bar
	maxTextWidth = 64 // maximum width of a column of text
)

// layout returns the widths of the columns so that a row fits; 0 leaves a column
// out. It considers all rows, so that columns do not move when other rows are shown.
func (t *table) layout(p *page) []int {
	widths := make([]int, len(t.columns))
	for _, row := range t.rows {
		for i, c := range row {
			w := barWidth
			if !c.bar {
				w = min(textWidth(p.clean(c.text)), maxTextWidth)
			}
			widths[i] = max(widths[i], w)
		}
	}
	for i, w := range widths {
		if w > 0 {
			widths[i] = max(w, len(t.columns[i].name))
		}
	}
	for excess := t.excess(widths, p.width); excess > 0; excess = t.excess(widths, p.width) {
		shrunk := append([]int(nil), widths...)
		for ; excess > 0; excess-- {
			widest := -1
			for i, c := range t.columns {
				if c.minWidth > 0 && shrunk[i] > c.minWidth && (widest < 0 || shrunk[i] > shrunk[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			shrunk[widest]--
		}
		if excess == 0 {
			return shrunk
		}
		last := -1
		for i, c := range t.columns {
			if widths[i] > 0 && c.drop > 0 && (last < 0 || c.drop > t.columns[last].drop) {
				last = i
			}
		}
		if last < 0 {
			return shrunk // lines are cut at the end
		}
		widths[last] = 0
	}
	return widths
}

// excess returns how many columns the table is wider than width.
func (t *table) excess(widths []int, width int) int {
	sum := -2
	for _, w := range widths {
		if w > 0 {
			sum += w + 2
		}
	}
	return sum - width
}

// table returns the lines of the header and of some rows.
func (p *page) table(t *table, rows [][]cell) []string {
	widths := t.layout(p)
	header := make([]cell, len(t.columns))
	for i, c := range t.columns {
		header[i] = cell{text: c.name, color: format.Bold}
	}
	lines := make([]string, 0, len(rows)+1)
	for _, row := range append([][]cell{header}, rows...) {
		line := p.line()
		for i, c := range row {
			width := widths[i]
			if width == 0 {
				continue
			}
			if c.bar {
				c.text = p.bar(c.share, width)
			}
			c.text = p.cut(p.clean(c.text), width)
			padding := width - textWidth(c.text)
			if t.columns[i].right {
				line.pending, padding = line.pending+padding, 0
			}
			line.add(c)
			line.pending += padding + 2
		}
		lines = append(lines, line.String())
	}
	return lines
}

func (p *page) bar(share float64, width int) string {
	full, empty := "█", "░"
	if p.o.ASCII {
		full, empty = "#", "."
	}
	cells := max(width-2, 1)
	n := int(math.Round(min(max(share, 0), 1) * float64(cells)))
	return "[" + strings.Repeat(full, n) + strings.Repeat(empty, cells-n) + "]"
}

// frameLine builds a line that is never wider than the frame.
type frameLine struct {
	p       *page
	b       strings.Builder
	used    int
	pending int // spaces to write before more text
}

func (p *page) line() *frameLine { return &frameLine{p: p} }

// plain returns a line of one cell.
func (p *page) plain(c cell) string {
	line := p.line()
	line.add(c)
	return line.String()
}

func (l *frameLine) add(c cell) {
	text := l.p.clean(c.text)
	available := l.p.width - l.used - l.pending
	if text == "" || available <= 0 {
		return
	}
	text = l.p.cut(text, available)
	l.used += l.pending + textWidth(text)
	l.b.WriteString(strings.Repeat(" ", l.pending))
	l.pending = 0
	if c.color != "" && l.p.o.Color {
		text = format.Paint(c.color, text)
	}
	l.b.WriteString(text)
}

func (l *frameLine) String() string { return l.b.String() }

// dots returns an ellipsis.
func (p *page) dots() string {
	if p.o.ASCII {
		return "..."
	}
	return "…"
}

// cut shortens text to width columns.
func (p *page) cut(text string, width int) string {
	if textWidth(text) <= width {
		return text
	}
	mark := "…"
	if p.o.ASCII {
		mark = "~"
	}
	used := 0
	for i, r := range text {
		if used += runeWidth(r); used > width-1 {
			return text[:i] + mark
		}
	}
	return text
}

// clean makes external text safe: one line without characters that control the
// terminal, have no width or change the width of others.
func (p *page) clean(text string) string {
	const maxBytes = 4096 // more than fits in a line
	text = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, format.IsHidden(r):
			return ' '
		case unicode.Is(unicode.Cf, r), unicode.Is(unicode.Variation_Selector, r):
			return -1
		case p.o.ASCII && r > '~' && !unicode.IsSpace(r):
			return '?'
		}
		return r
	}, text[:min(len(text), maxBytes)])
	return strings.Join(strings.Fields(text), " ")
}

// textWidth returns the maximum number of terminal columns of text.
func textWidth(text string) int {
	n := 0
	for _, r := range text {
		n += runeWidth(r)
	}
	return n
}

// wideRunes are the ranges of characters that a terminal may draw two columns wide:
// East Asian characters and emoji. Narrow characters within a range only waste a
// column.
var wideRunes = [][2]rune{
	{0x1100, 0x115f}, {0x231a, 0x23f3}, {0x25fd, 0x27bf}, {0x2b1b, 0x2b55}, {0x2e80, 0xa4cf}, {0xa960, 0xa97c}, {0xac00, 0xd7a3},
	{0xf900, 0xfaff}, {0xfe10, 0xfe6f}, {0xff01, 0xff60}, {0xffe0, 0xffe6}, {0x16fe0, 0x1b2ff}, {0x1d300, 0x1d37f}, {0x1f000, 0x1faff}, {0x20000, 0x3fffd},
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.Is(unicode.Mn, r), unicode.Is(unicode.Me, r):
		return 0
	}
	for _, w := range wideRunes {
		if r >= w[0] && r <= w[1] {
			return 2
		}
	}
	return 1
}
