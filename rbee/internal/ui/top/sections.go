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

// section is a table that is shown in part if not all of its rows fit.
type section struct {
	table      table
	noun, part string // nouns for a row and for a row that belongs to the one above, such as hive and device
	isPart     []bool // by row: whether the row belongs to the one above; nil if no row does
	ranks      []int  // by row: order in which rows are shown if not all fit; nil keeps the order
}

// Len, Less and Swap sort the rows by rank.
func (s *section) Len() int           { return len(s.ranks) }
func (s *section) Less(i, j int) bool { return s.ranks[i] < s.ranks[j] }
func (s *section) Swap(i, j int) {
	s.ranks[i], s.ranks[j] = s.ranks[j], s.ranks[i]
	s.table.rows[i], s.table.rows[j] = s.table.rows[j], s.table.rows[i]
	if s.isPart != nil {
		s.isPart[i], s.isPart[j] = s.isPart[j], s.isPart[i]
	}
}

// sections returns the tables on at most n lines.
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
		return []string{p.plain(cell{text: "No hives configured: run `rbee init` to create a config."})}
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

// allot distributes n lines equally among tables. No table gets more than it needs, and
// the last tables get none if there are fewer than three lines for each.
func allot(needs []int, n int) []int {
	given := make([]int, len(needs))
	receivers := min(len(needs), max(n/3, 1))
	for left := n; left > 0; {
		unsatisfied := 0
		for i := range receivers {
			if given[i] < needs[i] {
				unsatisfied++
			}
		}
		if unsatisfied == 0 {
			break
		}
		each := max(left/unsatisfied, 1)
		for i := range receivers {
			more := min(each, needs[i]-given[i], left)
			given[i] += more
			left -= more
		}
	}
	return given
}

// section returns the lines of a table, at most n.
func (p *page) section(s *section, n int) []string {
	rows := s.table.rows
	if n <= 0 {
		return nil
	}
	more := ""
	if len(rows)+1 > n {
		sort.Stable(s)
		kept := max(n-2, 0)
		hidden, parts := 0, 0
		for i := kept; i < len(rows); i++ {
			if s.isPart != nil && s.isPart[i] {
				parts++
			} else {
				hidden++
			}
		}
		noun := s.noun
		if hidden == 0 {
			hidden, noun = parts, s.part
		}
		if kept > 0 {
			noun = "more " + noun
		}
		more = fmt.Sprintf("%s %d %s%s", p.dots(), hidden, noun, plural(hidden))
		rows = rows[:kept]
	}
	lines := p.table(&s.table, rows)
	if n == 1 { // no line for the header
		lines = lines[:0]
	}
	if more != "" {
		lines = append(lines, p.plain(cell{text: more, color: format.Faint}))
	}
	return lines
}

// plural returns the plural ending of a noun.
func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// hives returns a table with a row for each device. Hives with workers come first.
// Offline hives come last, since their problems are shown above.
func (p *page) hives() *section {
	s := &section{noun: "hive", part: "device", table: table{columns: []column{
		{name: "HIVE", minWidth: 6}, {name: "LINK", drop: 3}, {name: "DEVICE", minWidth: 3}, {minWidth: 6, drop: 2},
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
			s.isPart = append(s.isPart, i > 0)
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

// hiveRows returns a row for each device of a hive, or one for its main memory if it
// has no devices. The caller sets the first two cells.
func (p *page) hiveRows(h operations.HiveView) [][]cell {
	row := func() []cell { return make([]cell, 8) }
	if h.Snapshot == nil || h.Link == operations.LinkOffline {
		r := row()
		switch {
		case !h.SeenAt.IsZero():
			r[2] = cell{text: "last seen " + format.Age(p.now.Sub(h.SeenAt)) + " ago", color: format.Faint}
		default:
			r[2] = cell{text: "never seen", color: format.Faint}
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
		r[5], r[6], r[7] = cell{text: formatMeasurement(d.Utilization, "%")}, cell{text: formatMeasurement(d.Temperature, p.degrees())}, cell{text: formatMeasurement(d.Power, "W")}
		rows = append(rows, r)
	}
	return rows
}

// memoryCells sets the cells with a bar and the numbers of a memory.
func (p *page) memoryCells(row []cell, used, total uint64) {
	row[3] = cell{bar: true, share: float64(used) / float64(total), color: format.Green}
	if row[3].share > 0.97 {
		row[3].color = format.Yellow
	}
	row[4] = cell{text: bytesize.FormatOf(used, total)}
}

// deviceLabel returns the index and the name of a device, without its vendor.
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

// formatMeasurement formats a measurement without decimals, limited to plausible values.
func formatMeasurement(v *float64, unit string) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.0f%s", min(max(*v, -9999), 9999), unit)
}

// workers returns a table with a row for each worker, failed and loading ones first.
func (p *page) workers() *section {
	s := &section{noun: "worker", table: table{columns: []column{
		{name: "HIVE", minWidth: 4, drop: 3}, {name: "ID", minWidth: 6}, {name: "MODEL", minWidth: 6, drop: 1}, {name: "STATE", drop: 2},
		{name: "DEVICES", drop: 5}, {name: "ACTIVE", right: true, drop: 4}, {name: "UPTIME", right: true, drop: 6},
	}}}
	for _, h := range p.s.Hives {
		if h.Snapshot == nil {
			continue
		}
		for _, w := range h.Snapshot.Workers {
			state, up, devices, requests := cell{text: string(w.State), color: format.Yellow}, format.WorkerUptime(w, p.now), cmp.Or(format.DeviceIndices(w.Devices), "CPU"), ""
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
			if h.Link == operations.LinkOffline { // the snapshot may be outdated
				state, up, requests, rank = cell{text: "unknown", color: format.Faint}, "", "", 3
			}
			s.table.rows = append(s.table.rows, []cell{{text: h.Alias}, {text: w.ID}, {text: w.Model}, state, {text: devices}, {text: requests}, {text: up}})
			s.ranks = append(s.ranks, rank)
		}
	}
	sort.Stable(s)
	return s
}

// models returns a table with a row for each requested model, the busiest first.
func (p *page) models() *section {
	s := &section{noun: "model", table: table{columns: []column{
		{name: "MODEL", minWidth: 6}, {name: "REQUESTS", right: true}, {name: "ERRORS", right: true, drop: 2},
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

// amount formats a count, with a unit prefix from 10,000 on: 812, 45.3k, 1.2M.
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
