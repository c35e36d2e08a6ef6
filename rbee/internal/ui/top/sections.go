package top

import (
	"cmp"
	"fmt"
	"sort"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// section is a table of which not all rows need be shown. A row that goes on
// with the thing of the row before counts as a part.
type section struct {
	table      table
	word, part string
	goesOn     []bool // for each row; nil: none does
	ranks      []int  // for each row: in their order rows are shown where not all can be; nil: as they are
}

// Len, Less and Swap sort the rows by rank.
func (s *section) Len() int           { return len(s.ranks) }
func (s *section) Less(i, j int) bool { return s.ranks[i] < s.ranks[j] }
func (s *section) Swap(i, j int) {
	s.ranks[i], s.ranks[j] = s.ranks[j], s.ranks[i]
	s.table.rows[i], s.table.rows[j] = s.table.rows[j], s.table.rows[i]
	if s.goesOn != nil {
		s.goesOn[i], s.goesOn[j] = s.goesOn[j], s.goesOn[i]
	}
}

// sections sets the tables into n lines, the first ones first.
func (p *page) sections(n int) []string {
	all := []*section{p.hives(), p.workers(), p.models()}
	var shown []*section
	needs, sum := []int{}, 0
	for _, s := range all {
		if len(s.table.rows) > 0 {
			shown = append(shown, s)
			needs = append(needs, len(s.table.rows)+1)
			sum += len(s.table.rows) + 1
		}
	}
	if len(p.s.Hives) == 0 && n > 0 {
		return []string{p.plain(cell{text: "There are no hives: `rbee init` writes a first config."})}
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
func (p *page) section(s *section, n int) []string {
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
		lines = append(lines, p.plain(cell{text: more, color: format.Faint}))
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
func (p *page) hives() *section {
	s := &section{word: "hive", part: "device", table: table{columns: []column{
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
				row[0], row[1] = cell{text: h.Alias, color: format.Bold}, cell{text: string(h.Link), color: linkColor(h.Link)}
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
		return format.Green
	case operations.LinkOffline:
		return format.Red
	case operations.LinkStale, operations.LinkConnecting:
	}
	return format.Yellow
}

// hiveRows are the rows of a hive's devices, or of its own memory if it has none;
// their first two cells are the caller's.
func (p *page) hiveRows(h operations.HiveView) [][]cell {
	row := func() []cell { return make([]cell, 8) }
	if h.Snapshot == nil || h.Link == operations.LinkOffline {
		r := row()
		switch {
		case !h.SeenAt.IsZero():
			r[2] = cell{text: "heard " + format.Age(p.now.Sub(h.SeenAt)) + " ago", color: format.Faint}
		default:
			r[2] = cell{text: "never heard", color: format.Faint}
		}
		return [][]cell{r}
	}
	m := h.Snapshot.Machine
	if len(m.Devices) == 0 {
		r := row()
		r[2] = cell{text: "CPU" + format.Prefixed(" ", m.CPU.Model)}
		if m.MemoryTotal > 0 {
			p.memoryCells(r, m.MemoryTotal-min(m.MemoryAvailable, m.MemoryTotal), m.MemoryTotal)
		}
		return [][]cell{r}
	}
	var rows [][]cell
	for _, d := range m.Devices {
		r := row()
		r[2] = cell{text: deviceLabel(d)}
		used := d.MemoryUsed
		if used == nil && d.MemoryFree != nil {
			n := d.MemoryTotal - min(*d.MemoryFree, d.MemoryTotal)
			used = &n
		}
		switch {
		case d.Error != "":
			r[2].color = format.Red
		case d.MemoryTotal > 0 && used != nil:
			p.memoryCells(r, *used, d.MemoryTotal)
		case d.MemoryTotal > 0:
			r[4] = cell{text: bytesize.Format(d.MemoryTotal)}
		}
		r[5], r[6], r[7] = cell{text: whole(d.Utilization, "%")}, cell{text: whole(d.Temperature, p.degrees())}, cell{text: whole(d.Power, "W")}
		rows = append(rows, r)
	}
	return rows
}

func (p *page) memoryCells(row []cell, used, total uint64) {
	row[3] = cell{bar: true, share: float64(used) / float64(total), color: format.Green}
	if row[3].share > 0.97 {
		row[3].color = format.Yellow
	}
	row[4] = cell{text: bytesize.FormatOf(used, total)}
}

// deviceLabel is a device's index and name, without the vendor before the name.
func deviceLabel(d gpu.Device) string {
	vendor := string(d.Vendor)
	name := cmp.Or(d.Name, vendor)
	if n := len(vendor); n > 0 && len(name) > n+1 && strings.EqualFold(name[:n], vendor) && name[n] == ' ' {
		name = name[n+1:]
	}
	if d.Index < 0 {
		return name
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", d.Index, name))
}

func (p *page) degrees() string {
	if p.o.ASCII {
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
func (p *page) workers() *section {
	s := &section{word: "worker", table: table{columns: []column{
		{name: "HIVE", least: 4, drop: 3}, {name: "ID", least: 6}, {name: "MODEL", least: 6, drop: 1}, {name: "STATE", drop: 2},
		{name: "DEVICES", drop: 5}, {name: "REQ", right: true, drop: 4}, {name: "UPTIME", right: true, drop: 6},
	}}}
	for _, h := range p.s.Hives {
		if h.Snapshot == nil {
			continue
		}
		for _, w := range h.Snapshot.Workers {
			state, up, devices, requests := cell{text: string(w.State), color: format.Yellow}, format.WorkerUptime(w, p.now), cmp.Or(format.DeviceIndices(w.Devices), "cpu"), ""
			rank := 1
			switch w.State {
			case operations.WorkerReady:
				state.color, rank = format.Green, 2
			case operations.WorkerFailed:
				state.color, rank = format.Red, 0
			case operations.WorkerStarting, operations.WorkerLoading, operations.WorkerDraining, operations.WorkerStopped:
			}
			if w.State == operations.WorkerReady || w.Requests > 0 {
				requests = fmt.Sprint(w.Requests)
			}
			if h.Link == operations.LinkOffline { // what it did last is not what it does
				state, up, requests, rank = cell{text: "unknown", color: format.Faint}, "", "", 3
			}
			s.table.rows = append(s.table.rows, []cell{{text: h.Alias}, {text: w.ID}, {text: w.Model}, state, {text: devices}, {text: requests}, {text: up}})
			s.ranks = append(s.ranks, rank)
		}
	}
	sort.Stable(s)
	return s
}

// models is a row for each model that was asked, the busiest first.
func (p *page) models() *section {
	s := &section{word: "model", table: table{columns: []column{
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
		errors := cell{text: fmt.Sprint(max(m.Errors, 0))}
		if m.Errors > 0 {
			errors.color = format.Red
		}
		s.table.rows = append(s.table.rows, []cell{{text: m.Model}, {text: amount(m.Requests)}, errors, {text: amount(m.Tokens)}, {text: fmt.Sprint(max(m.InFlight, 0))}})
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
