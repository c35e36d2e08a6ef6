// Package top draws the screen of `rbee top`: one frame from one snapshot of a fleet.
package top

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Options configure [Frame].
type Options struct {
	// Width and Height limit the frame, in columns and lines; 0 means unlimited.
	Width, Height int

	// Color allows escape codes for color. ASCII allows only ASCII characters.
	Color, ASCII bool

	// Queen is the address of the queen, and Keys describes the keys. Both are drawn
	// if there is enough space.
	Queen, Keys string

	// Age is the time since the last message from the queen. Problem is the error of
	// the connection to the queen, or empty.
	Age     time.Duration
	Problem string
}

// Frame draws a fleet as lines that end with "\n": totals, problems, traffic, and
// as many hives, workers and models as fit. now is the current time of the queen's
// clock. For every fleet, the frame is at most o.Width columns wide and o.Height
// lines high.
func Frame(s operations.FleetSnapshot, now time.Time, o Options) string {
	p := &page{s: s, now: now, o: o, width: o.Width, height: o.Height}
	if p.width <= 0 {
		p.width = math.MaxInt32
	}
	if p.height <= 0 {
		p.height = math.MaxInt32
	}
	lines := p.header(min(max(p.height/5, 1), 3))
	lines = append(lines, p.problemLines(max((p.height-len(lines))/3, 1))...)
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

// cell is a part of a line: a text, or a bar filled up to share, from 0 to 1.
type cell struct {
	text, color string
	bar         bool
	share       float64
}

// header returns the totals on at most n lines, in a short form if necessary.
func (p *page) header(n int) []string {
	t := p.totals()
	lines, all := p.flow(p.headerParts(t, true), n)
	if !all {
		lines, _ = p.flow(p.headerParts(t, false), n)
	}
	return lines
}

// totals are the sums of a fleet, without the devices and workers of offline hives.
type totals struct {
	hives                            map[operations.Link]int
	devices                          int
	workers, ready, failed, stopping int
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
				t.stopping++
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
		part(formatCounts(hives, "hive", online, []tally{
			{online, "online", format.Green}, {t.hives[operations.LinkStale], "stale", format.Yellow},
			{t.hives[operations.LinkOffline], "offline", format.Red}, {t.hives[operations.LinkConnecting], "connecting", format.Yellow},
		})...)
		part(cell{text: format.Count(t.devices, "device")})
		part(formatCounts(t.workers, "worker", t.ready, []tally{
			{t.ready, "ready", format.Green}, {t.workers - t.ready - t.failed - t.stopping, "loading", format.Yellow},
			{t.failed, "failed", format.Red}, {t.stopping, "stopping", format.Yellow},
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
	age := cell{text: "age " + format.Age(p.o.Age)}
	if p.o.Problem != "" {
		age.color = format.Red
	}
	part(age)
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

// tally is a number of items of one kind.
type tally struct {
	n           int
	kind, color string
}

// formatCounts formats a number and its parts: "3 hives: 2 online 1 stale", or "3 hives
// online" if all are of the first kind.
func formatCounts(n int, word string, first int, kinds []tally) []cell {
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

// flow places parts on at most n lines without splitting a part. all is false if
// parts did not fit. Faint parts do not count, and do not start a line on a small
// screen.
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

// problemLines returns the problems on at most n lines.
func (p *page) problemLines(n int) []string {
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

// problems returns the problems of the fleet, the worst first.
func (p *page) problems() []cell {
	var list, warnings, workers, devices []cell
	critical := func(text string) cell { return cell{text: text, color: format.Red} }
	if p.o.Problem != "" {
		list = append(list, critical("no connection to the queen: "+p.o.Problem))
	}
	if p.s.ConfigProblem != "" {
		list = append(list, critical("cannot read the config: "+p.s.ConfigProblem))
	}
	for _, h := range p.s.Hives {
		switch text := h.Alias + " is " + string(h.Link) + format.Prefixed(": ", h.Problem); h.Link {
		case operations.LinkOffline:
			list = append(list, critical(text))
			continue
		case operations.LinkStale:
			if h.Problem == "" && !h.SeenAt.IsZero() {
				text += ": last seen " + format.Age(p.now.Sub(h.SeenAt)) + " ago"
			}
			warnings = append(warnings, cell{text: text, color: format.Yellow})
		case operations.LinkOnline, operations.LinkConnecting:
			if h.Problem != "" {
				warnings = append(warnings, cell{text: text, color: format.Yellow})
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
			workers = append(workers, critical(text))
		}
		for _, d := range h.Snapshot.Machine.Devices {
			if d.Error != "" {
				devices = append(devices, critical(h.Alias+": "+deviceLabel(d)+" cannot be used: "+d.Error))
			}
		}
	}
	list = append(append(append(list, workers...), devices...), warnings...)
	if n := len(p.s.Drift); n > 0 {
		text := format.Count(n, "difference") + " between hives and config"
		if !p.s.DriftAt.IsZero() {
			text += ", found " + format.Age(p.now.Sub(p.s.DriftAt)) + " ago"
		}
		list = append(list, cell{text: text + "; run `rbee status`", color: format.Yellow})
	}
	return list
}
