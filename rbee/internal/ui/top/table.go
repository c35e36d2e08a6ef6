package top

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// column is a column of a table that gives way where the room is short: it
// shrinks to least columns (0: not at all), and is left out, the highest drop first
// (0: never).
type column struct {
	name        string
	right       bool
	least, drop int
}

// table lines rows up under a header. Columns without content are left out.
type table struct {
	columns []column
	rows    [][]cell
}

const (
	barWidth     = 12 // the width of a bar where there is room
	maxTextWidth = 64 // the widest that a text makes its column
)

// layout gives the columns' widths such that a row fits; 0 leaves one out. All rows
// count, so that the columns stay where they are when other rows are shown.
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
	for over := t.over(widths, p.width); over > 0; over = t.over(widths, p.width) {
		shrunk := append([]int(nil), widths...)
		for ; over > 0; over-- {
			widest := -1
			for i, c := range t.columns {
				if c.least > 0 && shrunk[i] > c.least && (widest < 0 || shrunk[i] > shrunk[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			shrunk[widest]--
		}
		if over == 0 {
			return shrunk
		}
		last := -1
		for i, c := range t.columns {
			if widths[i] > 0 && c.drop > 0 && (last < 0 || c.drop > t.columns[last].drop) {
				last = i
			}
		}
		if last < 0 {
			return shrunk // the end of the lines is cut
		}
		widths[last] = 0
	}
	return widths
}

// over is how much wider than room the columns are.
func (t *table) over(widths []int, room int) int {
	sum := -2
	for _, w := range widths {
		if w > 0 {
			sum += w + 2
		}
	}
	return sum - room
}

// table writes the header and some of the rows.
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
			room := width - textWidth(c.text)
			if t.columns[i].right {
				line.pending, room = line.pending+room, 0
			}
			line.add(c)
			line.pending += room + 2
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

// frameLine is a line that is never wider than the frame.
type frameLine struct {
	p       *page
	b       strings.Builder
	used    int
	pending int // spaces that are written only when more text follows
}

func (p *page) line() *frameLine { return &frameLine{p: p} }

// plain is a line of one cell.
func (p *page) plain(c cell) string {
	line := p.line()
	line.add(c)
	return line.String()
}

func (l *frameLine) add(c cell) {
	text := l.p.clean(c.text)
	room := l.p.width - l.used - l.pending
	if text == "" || room <= 0 {
		return
	}
	text = l.p.cut(text, room)
	l.used += l.pending + textWidth(text)
	l.b.WriteString(strings.Repeat(" ", l.pending))
	l.pending = 0
	if c.color != "" && l.p.o.Color {
		text = format.Paint(c.color, text)
	}
	l.b.WriteString(text)
}

func (l *frameLine) String() string { return l.b.String() }

// dots stand for what is not shown.
func (p *page) dots() string {
	if p.o.ASCII {
		return "..."
	}
	return "…"
}

// cut shortens text to so many columns.
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

// clean makes foreign text harmless: one line without characters that do something
// to a terminal or that have no width of their own but change that of others.
func (p *page) clean(text string) string {
	const most = 4096 // bytes; no line shows more
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
	}, text[:min(len(text), most)])
	return strings.Join(strings.Fields(text), " ")
}

// textWidth is how many columns a terminal takes for a text, at most.
func textWidth(text string) int {
	n := 0
	for _, r := range text {
		n += runeWidth(r)
	}
	return n
}

// wideRunes are those that a terminal may draw two columns wide: East Asian ones and
// emoji. Some that are in between are narrow, which only wastes a column.
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
