package ui

import (
	"cmp"
	"fmt"
	"math"
	"sort"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/operations"
)

// TopOptions says how [Top] draws.
type TopOptions struct {
	// Width and Height bound the frame, in columns and lines; 0 is no bound.
	Width, Height int

	// Style says whether there may be colour, and symbols.
	Style Style

	// Queen is the queen's address, and Keys says which keys do what. Both are
	// drawn where there is room.
	Queen, Keys string

	// Age is how long ago the queen was heard last, and Problem why it is not
	// heard now; empty if it is.
	Age     time.Duration
	Problem string
}

// Top draws a fleet as one frame of lines, each ended by "\n": totals, what is
// wrong, traffic, and as much of hives, workers and models as there is room for.
// now is the present by the queen's clock. No line is wider than o.Width and
// there are no more lines than o.Height, whatever the fleet holds.
func Top(s operations.FleetSnapshot, now time.Time, o TopOptions) string {
	p := &topPage{s: s, now: now, o: o, width: o.Width, height: o.Height}
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

// topPage is one frame.
type topPage struct {
	s             operations.FleetSnapshot
	now           time.Time
	o             TopOptions
	width, height int
}

// topCell is a piece of a line, or with bar set a bar of which share is full.
type topCell struct {
	text, color string
	bar         bool
	share       float64
}

// header tells the totals, on at most n lines: in full, or else in short.
func (p *topPage) header(n int) []string {
	t := p.totals()
	lines, all := p.flow(p.headerParts(t, true), n)
	if !all {
		lines, _ = p.flow(p.headerParts(t, false), n)
	}
	return lines
}

// topTotals are the sums of a fleet. What is known of hives that are offline does
// not count.
type topTotals struct {
	hives                         map[operations.Link]int
	devices                       int
	workers, ready, failed, ended int
}

func (p *topPage) totals() topTotals {
	t := topTotals{hives: map[operations.Link]int{}}
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

func (p *topPage) headerParts(t topTotals, long bool) [][]topCell {
	var parts [][]topCell
	part := func(cells ...topCell) { parts = append(parts, cells) }
	hives, online := len(p.s.Hives), t.hives[operations.LinkOnline]
	if long {
		part(counted(hives, "hive", online, []topTally{
			{online, "online", green}, {t.hives[operations.LinkStale], "stale", yellow},
			{t.hives[operations.LinkOffline], "offline", red}, {t.hives[operations.LinkConnecting], "connecting", yellow},
		})...)
		part(topCell{text: count(t.devices, "device")})
		part(counted(t.workers, "worker", t.ready, []topTally{
			{t.ready, "ready", green}, {t.workers - t.ready - t.failed - t.ended, "loading", yellow},
			{t.failed, "failed", red}, {t.ended, "ending", yellow},
		})...)
	} else {
		part(share(online, hives, "hives"))
		part(share(t.ready, t.workers, "workers"))
	}
	part(topCell{text: perSecond(p.rate()) + " req/s"})
	part(topCell{text: fmt.Sprintf("%d in flight", max(p.s.Traffic.InFlight, 0))})
	waiting := topCell{text: fmt.Sprintf("%d waiting", max(p.s.Traffic.Waiting, 0))}
	if p.s.Traffic.Waiting > 0 {
		waiting.color = yellow
	}
	part(waiting)
	old := topCell{text: "age " + age(p.o.Age)}
	if p.o.Problem != "" {
		old.color = red
	}
	part(old)
	if !long {
		part(topCell{text: count(t.devices, "device")})
		return parts
	}
	if p.o.Keys != "" {
		part(topCell{text: p.o.Keys, color: faint})
	}
	if p.o.Queen != "" {
		part(topCell{text: strings.TrimSpace("rbee "+p.s.Version) + " at " + p.o.Queen, color: faint})
	}
	return parts
}

// topTally is how many there are of a kind.
type topTally struct {
	n           int
	kind, color string
}

// counted words a number and what it is made of: 3 hives: 2 online 1 stale. For all
// of the first kind it is short: 3 hives online.
func counted(n int, word string, first int, kinds []topTally) []topCell {
	if n == 0 {
		return []topCell{{text: count(0, word)}}
	}
	if first == n {
		return []topCell{{text: count(n, word)}, {text: kinds[0].kind, color: kinds[0].color}}
	}
	cells := []topCell{{text: count(n, word) + ":"}}
	for _, k := range kinds {
		if k.n > 0 {
			cells = append(cells, topCell{text: fmt.Sprintf("%d %s", k.n, k.kind), color: k.color})
		}
	}
	return cells
}

func share(some, all int, word string) topCell {
	c := topCell{text: fmt.Sprintf("%d/%d %s", some, all, word), color: green}
	if some < all {
		c.color = yellow
	}
	return c
}

// flow sets parts on at most n lines, never tearing one apart. all is false if
// some found no room, but for faint ones, which are worth no line of their own.
func (p *topPage) flow(parts [][]topCell, n int) (lines []string, all bool) {
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
		case part[0].color == faint && p.height < 30:
			continue
		case len(lines)+1 == n:
			return append(lines, line.String()), part[0].color == faint
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
func (p *topPage) troubles(n int) []string {
	list := p.problems()
	rest := 0
	if len(list) > n {
		rest = len(list) - (n - 1)
		list = list[:n-1]
	}
	lines := make([]string, 0, len(list)+1)
	for _, c := range list {
		line := p.line()
		line.add(topCell{text: "!", color: c.color})
		line.pending++
		line.add(topCell{text: c.text})
		lines = append(lines, line.String())
	}
	switch {
	case rest > 0 && len(lines) == 0:
		lines = append(lines, p.plain(topCell{text: "! " + count(rest, "problem"), color: red}))
	case rest > 0:
		lines = append(lines, p.plain(topCell{text: p.dots() + " " + fmt.Sprint(rest) + " more problem" + plural(rest), color: red}))
	}
	return lines
}

// problems lists what is wrong, the worst first.
func (p *topPage) problems() []topCell {
	var list, late, workers, devices []topCell
	bad := func(text string) topCell { return topCell{text: text, color: red} }
	if p.o.Problem != "" {
		list = append(list, bad("the queen is not heard: "+p.o.Problem))
	}
	if p.s.ConfigProblem != "" {
		list = append(list, bad("the config cannot be read: "+p.s.ConfigProblem))
	}
	for _, h := range p.s.Hives {
		switch text := h.Alias + " is " + string(h.Link) + prefixed(": ", h.Problem); h.Link {
		case operations.LinkOffline:
			list = append(list, bad(text))
			continue
		case operations.LinkStale:
			if h.Problem == "" && !h.SeenAt.IsZero() {
				text += ": not heard for " + age(p.now.Sub(h.SeenAt))
			}
			late = append(late, topCell{text: text, color: yellow})
		case operations.LinkOnline, operations.LinkConnecting:
			if h.Problem != "" {
				late = append(late, topCell{text: text, color: yellow})
			}
		}
		if h.Snapshot == nil {
			continue
		}
		for _, w := range h.Snapshot.Workers {
			if w.State != operations.WorkerFailed {
				continue
			}
			text := h.Alias + ": " + w.ID + " failed" + prefixed(": ", problemText(w))
			if !w.RestartAt.IsZero() {
				text += "; " + restartText(w.RestartAt, p.now)
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
		text := count(n, "difference") + " from the config"
		if !p.s.DriftAt.IsZero() {
			text += ", " + age(p.now.Sub(p.s.DriftAt)) + " ago"
		}
		list = append(list, topCell{text: text + ": `rbee status` shows them", color: yellow})
	}
	return list
}

// every is the time between two points of the traffic, in seconds.
func (p *topPage) every() float64 {
	if e := p.s.Traffic.EverySeconds; e > 0.1 {
		return min(e, 3600)
	}
	return 0.1
}

// points is the traffic until now, with what was quiet since the last point. Of the
// time in which the queen was not heard nothing is known.
func (p *topPage) points() []operations.TrafficPoint {
	const most = 600
	points := p.s.Traffic.Points
	points = points[max(len(points)-most, 0):]
	if len(points) == 0 || p.o.Problem != "" {
		return points
	}
	quiet := p.now.Sub(points[len(points)-1].Time).Seconds() / p.every()
	return append(points[:len(points):len(points)], make([]operations.TrafficPoint, int(min(max(quiet, 0), most)))...)
}

// rate is requests per second over the last 10 seconds and the point that is still
// going on.
func (p *topPage) rate() float64 {
	points, every := p.points(), p.every()
	if len(points) == 0 {
		return 0
	}
	whole := min(int(math.Ceil(10/every)), len(points)-1)
	requests := 0
	for _, point := range points[len(points)-1-whole:] {
		requests += max(point.Requests, 0)
	}
	at := p.now
	if p.o.Problem != "" {
		at = p.s.Time
	}
	// How long the last point has lasted is the time beyond a whole number of them.
	going := min(max(at.Sub(p.s.Traffic.Points[len(p.s.Traffic.Points)-1].Time).Seconds(), 0), 1e9)
	if going = math.Mod(going, every); whole == 0 {
		going = max(going, min(every, 1))
	}
	return float64(requests) / (float64(whole)*every + going)
}

func perSecond(rate float64) string {
	if rate >= 99.95 {
		return fmt.Sprintf("%.0f", rate)
	}
	return fmt.Sprintf("%.1f", rate)
}

// traffic is a line with a graph of requests per second, if there is any traffic.
func (p *topPage) traffic() []string {
	points := p.points()
	if len(points) == 0 {
		return nil
	}
	const label, least, most = "REQ/S", 24, 60
	points = points[max(len(points)-most, 0):]
	tail, room := "", 0
	for n := 4; ; n-- {
		tail = p.trafficText(points, n)
		room = max(p.width-len(label)-3-textWidth(p.clean(tail)), 1)
		if n > 0 && room < min(least, len(points)) {
			continue // the graph before the words
		}
		if room < len(points) {
			points = points[len(points)-max(room-2, 1):]
			tail = p.trafficText(points, n) // may now be a little longer
		}
		break
	}
	line := p.line()
	line.add(topCell{text: label, color: bold})
	line.pending = 1
	line.add(topCell{text: p.graph(points), color: green})
	line.pending += 2
	line.add(topCell{text: tail})
	return []string{line.String()}
}

// trafficText says in n words what the points show.
func (p *topPage) trafficText(points []operations.TrafficPoint, n int) string {
	if n == 0 {
		return ""
	}
	peak, errors, tokens, first := 0, 0, 0, 0.0
	for _, point := range points {
		peak = max(peak, point.Requests)
		errors += max(point.Errors, 0)
		tokens += max(point.Tokens, 0)
		if point.FirstToken > 0 {
			first = min(point.FirstToken, 1e6)
		}
	}
	words := []string{"peak " + perSecond(float64(peak)/p.every()) + "/s", count(errors, "error"), amount(int64(tokens)) + " tokens"}
	if first > 0 {
		words = append(words, "first after "+short(first))
	}
	span := age(time.Duration(float64(len(points)) * p.every() * float64(time.Second)))
	return span + ": " + strings.Join(words[:min(n, len(words))], ", ")
}

// graph draws one character for each point; the highest stands for the most.
func (p *topPage) graph(points []operations.TrafficPoint) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	if p.o.Style.ASCII {
		levels = []rune("_.-:=+*#")
	}
	peak := 1
	for _, point := range points {
		peak = max(peak, point.Requests)
	}
	var b strings.Builder
	for _, point := range points {
		// Only nothing is as low as nothing.
		level := int(math.Ceil(float64(max(point.Requests, 0)) / float64(peak) * float64(len(levels)-1)))
		b.WriteRune(levels[level])
	}
	return b.String()
}

// topSection is a table of which not all rows need be shown. A row that goes on
// with the thing of the row before counts as a part.
type topSection struct {
	table      topTable
	word, part string
	goesOn     []bool // for each row; nil: none does
	ranks      []int  // for each row: in their order rows are shown where not all can be; nil: as they are
}

// Len, Less and Swap sort the rows by rank.
func (s *topSection) Len() int           { return len(s.ranks) }
func (s *topSection) Less(i, j int) bool { return s.ranks[i] < s.ranks[j] }
func (s *topSection) Swap(i, j int) {
	s.ranks[i], s.ranks[j] = s.ranks[j], s.ranks[i]
	s.table.rows[i], s.table.rows[j] = s.table.rows[j], s.table.rows[i]
	if s.goesOn != nil {
		s.goesOn[i], s.goesOn[j] = s.goesOn[j], s.goesOn[i]
	}
}

// sections sets the tables into n lines, the first ones first.
func (p *topPage) sections(n int) []string {
	all := []*topSection{p.hives(), p.workers(), p.models()}
	var shown []*topSection
	needs, sum := []int{}, 0
	for _, s := range all {
		if len(s.table.rows) > 0 {
			shown = append(shown, s)
			needs = append(needs, len(s.table.rows)+1)
			sum += len(s.table.rows) + 1
		}
	}
	if len(p.s.Hives) == 0 && n > 0 {
		return []string{p.plain(topCell{text: "There are no hives: `rbee init` writes a first config."})}
	}
	blank := sum+len(shown) <= n
	var lines []string
	for i, rows := range allot(needs, n) {
		if blank {
			lines = append(lines, "")
		}
		lines = append(lines, p.section(shown[i], rows)...)
	}
	return lines
}

// allot shares n lines out: equally, but none gets more than it needs, and those at
// the end nothing where it would not be three for each.
func allot(needs []int, n int) []int {
	given := make([]int, len(needs))
	takers := min(len(needs), max(n/3, 1))
	for left := n; left > 0; {
		hungry := 0
		for i := range takers {
			if given[i] < needs[i] {
				hungry++
			}
		}
		if hungry == 0 {
			break
		}
		each := max(left/hungry, 1)
		for i := range takers {
			more := min(each, needs[i]-given[i], left)
			given[i] += more
			left -= more
		}
	}
	return given
}

// section writes a table on n lines.
func (p *topPage) section(s *topSection, n int) []string {
	rows := s.table.rows
	if n <= 0 {
		return nil
	}
	more := ""
	if len(rows)+1 > n {
		sort.Stable(s)
		kept := max(n-2, 0)
		things, parts := 0, 0
		for i := kept; i < len(rows); i++ {
			if s.goesOn != nil && s.goesOn[i] {
				parts++
			} else {
				things++
			}
		}
		word := s.word
		if things == 0 {
			things, word = parts, s.part
		}
		if kept > 0 {
			word = "more " + word
		}
		more = fmt.Sprintf("%s %d %s%s", p.dots(), things, word, plural(things))
		rows = rows[:kept]
	}
	lines := p.table(&s.table, rows)
	if n == 1 { // no room for a title
		lines = lines[:0]
	}
	if more != "" {
		lines = append(lines, p.plain(topCell{text: more, color: faint}))
	}
	return lines
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// hives is a row for each device. Hives with workers have the first rank, and those
// that are away the last: their problems are told above.
func (p *topPage) hives() *topSection {
	s := &topSection{word: "hive", part: "device", table: topTable{columns: []topColumn{
		{name: "HIVE", least: 6}, {name: "LINK", drop: 3}, {name: "DEVICE", least: 3}, {least: 6, drop: 2},
		{name: "MEMORY", right: true, drop: 1}, {name: "UTIL", right: true, drop: 4}, {name: "TEMP", right: true, drop: 5}, {name: "POWER", right: true, drop: 6},
	}}}
	for _, h := range p.s.Hives {
		rank := 1
		switch {
		case h.Snapshot == nil || h.Link == operations.LinkOffline:
			rank = 2
		case len(h.Snapshot.Workers) > 0:
			rank = 0
		}
		for i, row := range p.hiveRows(h) {
			if i == 0 {
				row[0], row[1] = topCell{text: h.Alias, color: bold}, topCell{text: string(h.Link), color: linkColor(h.Link)}
			}
			s.table.rows = append(s.table.rows, row)
			s.goesOn = append(s.goesOn, i > 0)
			s.ranks = append(s.ranks, rank)
		}
	}
	return s
}

func linkColor(l operations.Link) string {
	switch l {
	case operations.LinkOnline:
		return green
	case operations.LinkOffline:
		return red
	case operations.LinkStale, operations.LinkConnecting:
	}
	return yellow
}

// hiveRows are the rows of a hive's devices, or of its own memory if it has none;
// their first two cells are the caller's.
func (p *topPage) hiveRows(h operations.HiveView) [][]topCell {
	row := func() []topCell { return make([]topCell, 8) }
	if h.Snapshot == nil || h.Link == operations.LinkOffline {
		r := row()
		switch {
		case !h.SeenAt.IsZero():
			r[2] = topCell{text: "heard " + age(p.now.Sub(h.SeenAt)) + " ago", color: faint}
		default:
			r[2] = topCell{text: "never heard", color: faint}
		}
		return [][]topCell{r}
	}
	m := h.Snapshot.Machine
	if len(m.Devices) == 0 {
		r := row()
		r[2] = topCell{text: "CPU" + prefixed(" ", m.CPU.Model)}
		if m.MemoryTotal > 0 {
			p.memoryCells(r, m.MemoryTotal-min(m.MemoryAvailable, m.MemoryTotal), m.MemoryTotal)
		}
		return [][]topCell{r}
	}
	var rows [][]topCell
	for _, d := range m.Devices {
		r := row()
		r[2] = topCell{text: deviceLabel(d)}
		used := d.MemoryUsed
		if used == nil && d.MemoryFree != nil {
			n := d.MemoryTotal - min(*d.MemoryFree, d.MemoryTotal)
			used = &n
		}
		switch {
		case d.Error != "":
			r[2].color = red
		case d.MemoryTotal > 0 && used != nil:
			p.memoryCells(r, *used, d.MemoryTotal)
		case d.MemoryTotal > 0:
			r[4] = topCell{text: memory(d.MemoryTotal)}
		}
		r[5], r[6], r[7] = topCell{text: whole(d.Utilization, "%")}, topCell{text: whole(d.Temperature, p.degrees())}, topCell{text: whole(d.Power, "W")}
		rows = append(rows, r)
	}
	return rows
}

func (p *topPage) memoryCells(row []topCell, used, total uint64) {
	row[3] = topCell{bar: true, share: float64(used) / float64(total), color: green}
	if row[3].share > 0.97 {
		row[3].color = yellow
	}
	row[4] = topCell{text: usedMemory(used, total)}
}

// usedMemory is "used/total" with the unit once.
func usedMemory(used, total uint64) string {
	if total < 1<<30 {
		return fmt.Sprintf("%.0f/%.0f MiB", float64(used)/(1<<20), float64(total)/(1<<20))
	}
	return fmt.Sprintf("%.1f/%.1f GiB", float64(used)/(1<<30), float64(total)/(1<<30))
}

// deviceLabel is a device's index and name, without the vendor before the name.
func deviceLabel(d operations.Device) string {
	name := cmp.Or(d.Name, d.Vendor)
	if n := len(d.Vendor); n > 0 && len(name) > n+1 && strings.EqualFold(name[:n], d.Vendor) && name[n] == ' ' {
		name = name[n+1:]
	}
	if d.Index < 0 {
		return name
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", d.Index, name))
}

func (p *topPage) degrees() string {
	if p.o.Style.ASCII {
		return "C"
	}
	return "°C"
}

// whole writes a measured number; what cannot have been measured is cut.
func whole(v *float64, unit string) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.0f%s", min(max(*v, -9999), 9999), unit)
}

// workers is a row for each worker: those that failed or load first.
func (p *topPage) workers() *topSection {
	s := &topSection{word: "worker", table: topTable{columns: []topColumn{
		{name: "HIVE", least: 4, drop: 3}, {name: "ID", least: 6}, {name: "MODEL", least: 6, drop: 1}, {name: "STATE", drop: 2},
		{name: "DEVICES", drop: 5}, {name: "REQ", right: true, drop: 4}, {name: "UPTIME", right: true, drop: 6},
	}}}
	for _, h := range p.s.Hives {
		if h.Snapshot == nil {
			continue
		}
		for _, w := range h.Snapshot.Workers {
			state, up, devices, requests := topCell{text: string(w.State), color: yellow}, uptime(w, p.now), cmp.Or(indices(w.Devices), "cpu"), ""
			rank := 1
			switch w.State {
			case operations.WorkerReady:
				state.color, rank = green, 2
			case operations.WorkerFailed:
				state.color, rank = red, 0
			case operations.WorkerStarting, operations.WorkerLoading, operations.WorkerDraining, operations.WorkerStopped:
			}
			if w.State == operations.WorkerReady || w.Requests > 0 {
				requests = fmt.Sprint(w.Requests)
			}
			if h.Link == operations.LinkOffline { // what it did last is not what it does
				state, up, requests, rank = topCell{text: "unknown", color: faint}, "", "", 3
			}
			s.table.rows = append(s.table.rows, []topCell{{text: h.Alias}, {text: w.ID}, {text: w.Model}, state, {text: devices}, {text: requests}, {text: up}})
			s.ranks = append(s.ranks, rank)
		}
	}
	sort.Stable(s)
	return s
}

// models is a row for each model that was asked, the busiest first.
func (p *topPage) models() *topSection {
	s := &topSection{word: "model", table: topTable{columns: []topColumn{
		{name: "MODEL", least: 6}, {name: "REQUESTS", right: true}, {name: "ERRORS", right: true, drop: 2},
		{name: "TOKENS", right: true, drop: 1}, {name: "IN FLIGHT", right: true, drop: 3},
	}}}
	models := append([]operations.ModelTraffic(nil), p.s.Traffic.Models...)
	sort.SliceStable(models, func(i, j int) bool {
		if models[i].Requests != models[j].Requests {
			return models[i].Requests > models[j].Requests
		}
		return models[i].Model < models[j].Model
	})
	for _, m := range models {
		errors := topCell{text: fmt.Sprint(max(m.Errors, 0))}
		if m.Errors > 0 {
			errors.color = red
		}
		s.table.rows = append(s.table.rows, []topCell{{text: m.Model}, {text: amount(m.Requests)}, errors, {text: amount(m.Tokens)}, {text: fmt.Sprint(max(m.InFlight, 0))}})
	}
	return s
}

// amount writes a count, in thousands where it is large: 812, 45.3k, 1.2M.
func amount(n int64) string {
	n = max(n, 0)
	if n < 10_000 {
		return fmt.Sprint(n)
	}
	value, units := float64(n)/1000, "kMGTPE"
	for value >= 999.95 && len(units) > 1 {
		value, units = value/1000, units[1:]
	}
	return fmt.Sprintf("%.1f%c", value, units[0])
}

// topColumn is a column of a table that gives way where the room is short: it
// shrinks to least columns (0: not at all), and is left out, the highest drop first
// (0: never).
type topColumn struct {
	name        string
	right       bool
	least, drop int
}

// topTable lines rows up under a header. Columns without content are left out.
type topTable struct {
	columns []topColumn
	rows    [][]topCell
}

const (
	topBar  = 12 // the width of a bar where there is room
	topText = 64 // the widest that a text makes its column
)

// layout gives the columns' widths such that a row fits; 0 leaves one out. All rows
// count, so that the columns stay where they are when other rows are shown.
func (t *topTable) layout(p *topPage) []int {
	widths := make([]int, len(t.columns))
	for _, row := range t.rows {
		for i, c := range row {
			w := topBar
			if !c.bar {
				w = min(textWidth(p.clean(c.text)), topText)
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
func (t *topTable) over(widths []int, room int) int {
	sum := -2
	for _, w := range widths {
		if w > 0 {
			sum += w + 2
		}
	}
	return sum - room
}

// table writes the header and some of the rows.
func (p *topPage) table(t *topTable, rows [][]topCell) []string {
	widths := t.layout(p)
	header := make([]topCell, len(t.columns))
	for i, c := range t.columns {
		header[i] = topCell{text: c.name, color: bold}
	}
	lines := make([]string, 0, len(rows)+1)
	for _, row := range append([][]topCell{header}, rows...) {
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

func (p *topPage) bar(share float64, width int) string {
	full, empty := "█", "░"
	if p.o.Style.ASCII {
		full, empty = "#", "."
	}
	cells := max(width-2, 1)
	n := int(math.Round(min(max(share, 0), 1) * float64(cells)))
	return "[" + strings.Repeat(full, n) + strings.Repeat(empty, cells-n) + "]"
}

// topLine is a line that is never wider than the frame.
type topLine struct {
	p       *topPage
	b       strings.Builder
	used    int
	pending int // spaces that are written only when more text follows
}

func (p *topPage) line() *topLine { return &topLine{p: p} }

// plain is a line of one cell.
func (p *topPage) plain(c topCell) string {
	line := p.line()
	line.add(c)
	return line.String()
}

func (l *topLine) add(c topCell) {
	text := l.p.clean(c.text)
	room := l.p.width - l.used - l.pending
	if text == "" || room <= 0 {
		return
	}
	text = l.p.cut(text, room)
	l.used += l.pending + textWidth(text)
	l.b.WriteString(strings.Repeat(" ", l.pending))
	l.pending = 0
	if c.color != "" {
		text = l.p.o.Style.paint(c.color, text)
	}
	l.b.WriteString(text)
}

func (l *topLine) String() string { return l.b.String() }

// dots stand for what is not shown.
func (p *topPage) dots() string {
	if p.o.Style.ASCII {
		return "..."
	}
	return "…"
}

// cut shortens text to so many columns.
func (p *topPage) cut(text string, width int) string {
	if textWidth(text) <= width {
		return text
	}
	mark := "…"
	if p.o.Style.ASCII {
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
func (p *topPage) clean(text string) string {
	const most = 4096 // bytes; no line shows more
	text = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, hidden(r):
			return ' '
		case unicode.Is(unicode.Cf, r), unicode.Is(unicode.Variation_Selector, r):
			return -1
		case p.o.Style.ASCII && r > '~' && !unicode.IsSpace(r):
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
