// Package top draws the live view of `rbee top`: one frame from one snapshot of a fleet.
package top

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Options says how [Frame] draws.
type Options struct {
	// Width and Height bound the frame, in columns and lines; 0 is no bound.
	Width, Height int

	// Color allows escape codes for color, and ASCII allows only ASCII characters.
	Color, ASCII bool

	// Queen is the queen's address, and Keys says which keys do what. Both are
	// drawn where there is room.
	Queen, Keys string

	// Age is how long ago the queen was heard last, and Problem why it is not
	// heard now; empty if it is.
	Age     time.Duration
	Problem string
}

// Frame draws a fleet as one frame of lines, each ended by "\n": totals, what is
// wrong, traffic, and as much of hives, workers and models as there is room for.
// now is the present by the queen's clock. No line is wider than o.Width and
// there are no more lines than o.Height, whatever the fleet holds.
func Frame(s operations.FleetSnapshot, now time.Time, o Options) string {
	p := &page{s: s, now: now, o: o, width: o.Width, height: o.Height}
	if p.width <= 0 {
		p.width = math.MaxInt32
	}
	if p.height <= 0 {
		p.height = math.MaxInt32
	}
	lines := p.header(min(max(p.height/5, 1), 3))
	lines = append(lines, p.troubles(max((p.height-len(lines))/3, 1))...)
	if p.height-len(lines) >= 4 {
		lines = append(lines, p.traffic()...)
	}
	lines = append(lines, p.sections(p.height-len(lines))...)
	if len(lines) > p.height {
		lines = lines[:p.height]
	}
	return strings.Join(lines, "\n") + "\n"
}

// page is one frame.
type page struct {
	s             operations.FleetSnapshot
	now           time.Time
	o             Options
	width, height int
}

// cell is a piece of a line, or with bar set a bar of which share is full.
type cell struct {
	text, color string
	bar         bool
	share       float64
}

// header tells the totals, on at most n lines: in full, or else in short.
func (p *page) header(n int) []string {
	t := p.totals()
	lines, all := p.flow(p.headerParts(t, true), n)
	if !all {
		lines, _ = p.flow(p.headerParts(t, false), n)
	}
	return lines
}

// totals are the sums of a fleet. What is known of hives that are offline does
// not count.
type totals struct {
	hives                         map[operations.Link]int
	devices                       int
	workers, ready, failed, ended int
}

func (p *page) totals() totals {
	t := totals{hives: map[operations.Link]int{}}
	for _, h := range p.s.Hives {
		t.hives[h.Link]++
		if h.Snapshot == nil || h.Link == operations.LinkOffline {
			continue
		}
		t.devices += len(h.Snapshot.Machine.Devices)
		for _, w := range h.Snapshot.Workers {
			t.workers++
			switch w.State {
			case operations.WorkerReady:
				t.ready++
			case operations.WorkerFailed:
				t.failed++
			case operations.WorkerDraining, operations.WorkerStopped:
				t.ended++
			case operations.WorkerStarting, operations.WorkerLoading:
			}
		}
	}
	return t
}

func (p *page) headerParts(t totals, long bool) [][]cell {
	var parts [][]cell
	part := func(cells ...cell) { parts = append(parts, cells) }
	hives, online := len(p.s.Hives), t.hives[operations.LinkOnline]
	if long {
		part(counted(hives, "hive", online, []tally{
			{online, "online", format.Green}, {t.hives[operations.LinkStale], "stale", format.Yellow},
			{t.hives[operations.LinkOffline], "offline", format.Red}, {t.hives[operations.LinkConnecting], "connecting", format.Yellow},
		})...)
		part(cell{text: format.Count(t.devices, "device")})
		part(counted(t.workers, "worker", t.ready, []tally{
			{t.ready, "ready", format.Green}, {t.workers - t.ready - t.failed - t.ended, "loading", format.Yellow},
			{t.failed, "failed", format.Red}, {t.ended, "ending", format.Yellow},
		})...)
	} else {
		part(share(online, hives, "hives"))
		part(share(t.ready, t.workers, "workers"))
	}
	part(cell{text: perSecond(p.rate()) + " req/s"})
	part(cell{text: fmt.Sprintf("%d in flight", max(p.s.Traffic.InFlight, 0))})
	waiting := cell{text: fmt.Sprintf("%d waiting", max(p.s.Traffic.Waiting, 0))}
	if p.s.Traffic.Waiting > 0 {
		waiting.color = format.Yellow
	}
	part(waiting)
	old := cell{text: "age " + format.Age(p.o.Age)}
	if p.o.Problem != "" {
		old.color = format.Red
	}
	part(old)
	if !long {
		part(cell{text: format.Count(t.devices, "device")})
		return parts
	}
	if p.o.Keys != "" {
		part(cell{text: p.o.Keys, color: format.Faint})
	}
	if p.o.Queen != "" {
		part(cell{text: strings.TrimSpace("rbee "+p.s.Version) + " at " + p.o.Queen, color: format.Faint})
	}
	return parts
}

// tally is how many there are of a kind.
type tally struct {
	n           int
	kind, color string
}

// counted words a number and what it is made of: 3 hives: 2 online 1 stale. For all
// of the first kind it is short: 3 hives online.
func counted(n int, word string, first int, kinds []tally) []cell {
	if n == 0 {
		return []cell{{text: format.Count(0, word)}}
	}
	if first == n {
		return []cell{{text: format.Count(n, word)}, {text: kinds[0].kind, color: kinds[0].color}}
	}
	cells := []cell{{text: format.Count(n, word) + ":"}}
	for _, k := range kinds {
		if k.n > 0 {
			cells = append(cells, cell{text: fmt.Sprintf("%d %s", k.n, k.kind), color: k.color})
		}
	}
	return cells
}

func share(some, all int, word string) cell {
	c := cell{text: fmt.Sprintf("%d/%d %s", some, all, word), color: format.Green}
	if some < all {
		c.color = format.Yellow
	}
	return c
}

// flow sets parts on at most n lines, never tearing one apart. all is false if
// some found no room, but for faint ones, which are worth no line of their own.
func (p *page) flow(parts [][]cell, n int) (lines []string, all bool) {
	line, used := p.line(), 0
	for _, part := range parts {
		width := -1
		for _, c := range part {
			width += 1 + textWidth(p.clean(c.text))
		}
		switch {
		case used == 0:
		case used+2+width <= p.width:
			line.pending += 2
			used += 2
		case part[0].color == format.Faint && p.height < 30:
			continue
		case len(lines)+1 == n:
			return append(lines, line.String()), part[0].color == format.Faint
		default:
			lines = append(lines, line.String())
			line, used = p.line(), 0
		}
		for i, c := range part {
			if i > 0 {
				line.pending++
			}
			line.add(c)
		}
		if used += width; used > p.width {
			return append(lines, line.String()), false
		}
	}
	return append(lines, line.String()), true
}

// troubles says what is wrong, on at most n lines.
func (p *page) troubles(n int) []string {
	list := p.problems()
	rest := 0
	if len(list) > n {
		rest = len(list) - (n - 1)
		list = list[:n-1]
	}
	lines := make([]string, 0, len(list)+1)
	for _, c := range list {
		line := p.line()
		line.add(cell{text: "!", color: c.color})
		line.pending++
		line.add(cell{text: c.text})
		lines = append(lines, line.String())
	}
	switch {
	case rest > 0 && len(lines) == 0:
		lines = append(lines, p.plain(cell{text: "! " + format.Count(rest, "problem"), color: format.Red}))
	case rest > 0:
		lines = append(lines, p.plain(cell{text: p.dots() + " " + fmt.Sprint(rest) + " more problem" + plural(rest), color: format.Red}))
	}
	return lines
}

// problems lists what is wrong, the worst first.
func (p *page) problems() []cell {
	var list, late, workers, devices []cell
	bad := func(text string) cell { return cell{text: text, color: format.Red} }
	if p.o.Problem != "" {
		list = append(list, bad("the queen is not heard: "+p.o.Problem))
	}
	if p.s.ConfigProblem != "" {
		list = append(list, bad("the config cannot be read: "+p.s.ConfigProblem))
	}
	for _, h := range p.s.Hives {
		switch text := h.Alias + " is " + string(h.Link) + format.Prefixed(": ", h.Problem); h.Link {
		case operations.LinkOffline:
			list = append(list, bad(text))
			continue
		case operations.LinkStale:
			if h.Problem == "" && !h.SeenAt.IsZero() {
				text += ": not heard for " + format.Age(p.now.Sub(h.SeenAt))
			}
			late = append(late, cell{text: text, color: format.Yellow})
		case operations.LinkOnline, operations.LinkConnecting:
			if h.Problem != "" {
				late = append(late, cell{text: text, color: format.Yellow})
			}
		}
		if h.Snapshot == nil {
			continue
		}
		for _, w := range h.Snapshot.Workers {
			if w.State != operations.WorkerFailed {
				continue
			}
			text := h.Alias + ": " + w.ID + " failed" + format.Prefixed(": ", format.WorkerProblem(w))
			if !w.RestartAt.IsZero() {
				text += "; " + format.Restart(w.RestartAt, p.now)
			}
			workers = append(workers, bad(text))
		}
		for _, d := range h.Snapshot.Machine.Devices {
			if d.Error != "" {
				devices = append(devices, bad(h.Alias+": "+deviceLabel(d)+" cannot be used: "+d.Error))
			}
		}
	}
	list = append(append(append(list, workers...), devices...), late...)
	if n := len(p.s.Drift); n > 0 {
		text := format.Count(n, "difference") + " from the config"
		if !p.s.DriftAt.IsZero() {
			text += ", " + format.Age(p.now.Sub(p.s.DriftAt)) + " ago"
		}
		list = append(list, cell{text: text + ": `rbee status` shows them", color: format.Yellow})
	}
	return list
}
