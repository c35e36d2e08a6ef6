package top

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// pointSeconds returns the time between two points of the traffic, in seconds.
func (p *page) pointSeconds() float64 {
	if e := p.s.Traffic.IntervalSeconds; e > 0.1 {
		return min(e, 3600)
	}
	return 0.1
}

// points returns the traffic until now, with empty points for the time since the
// last point. Without a connection to the queen it ends at the last point.
func (p *page) points() []operations.TrafficPoint {
	const maxPoints = 600
	points := p.s.Traffic.Points
	points = points[max(len(points)-maxPoints, 0):]
	if len(points) == 0 || p.o.Problem != "" {
		return points
	}
	idle := p.now.Sub(points[len(points)-1].Time).Seconds() / p.pointSeconds()
	return append(points[:len(points):len(points)], make([]operations.TrafficPoint, int(min(max(idle, 0), maxPoints)))...)
}

// rate returns the requests per second over the last 10 seconds and the current
// point, which is not complete.
func (p *page) rate() float64 {
	points, interval := p.points(), p.pointSeconds()
	if len(points) == 0 {
		return 0
	}
	complete := min(int(math.Ceil(10/interval)), len(points)-1)
	requests := 0
	for _, point := range points[len(points)-1-complete:] {
		requests += max(point.Requests, 0)
	}
	at := p.now
	if p.o.Problem != "" {
		at = p.s.Time
	}
	// The age of the current point is the remainder of the time since the last one.
	current := min(max(at.Sub(p.s.Traffic.Points[len(p.s.Traffic.Points)-1].Time).Seconds(), 0), 1e9)
	if current = math.Mod(current, interval); complete == 0 {
		current = max(current, min(interval, 1))
	}
	return float64(requests) / (float64(complete)*interval + current)
}

func perSecond(rate float64) string {
	if rate >= 99.95 {
		return fmt.Sprintf("%.0f", rate)
	}
	return fmt.Sprintf("%.1f", rate)
}

// traffic returns a line with a graph of requests per second, or nothing without
// traffic.
func (p *page) traffic() []string {
	points := p.points()
	if len(points) == 0 {
		return nil
	}
	const label, minWidth, maxWidth = "REQ/S", 24, 60
	points = points[max(len(points)-maxWidth, 0):]
	tail, width := "", 0
	for n := 4; ; n-- {
		tail = p.trafficText(points, n)
		width = max(p.width-len(label)-3-textWidth(p.clean(tail)), 1)
		if n > 0 && width < min(minWidth, len(points)) {
			continue // prefer the graph to the text
		}
		if width < len(points) {
			points = points[len(points)-max(width-2, 1):]
			tail = p.trafficText(points, n) // may be slightly longer than before
		}
		break
	}
	line := p.line()
	line.add(cell{text: label, color: format.Bold})
	line.pending = 1
	line.add(cell{text: p.graph(points), color: format.Green})
	line.pending += 2
	line.add(cell{text: tail})
	return []string{line.String()}
}

// trafficText summarizes the points in n phrases.
func (p *page) trafficText(points []operations.TrafficPoint, n int) string {
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
	phrases := []string{"peak " + perSecond(float64(peak)/p.pointSeconds()) + "/s", format.Count(errors, "error"), amount(int64(tokens)) + " token" + plural(tokens)}
	if first > 0 {
		phrases = append(phrases, "first after "+format.ShortSeconds(first))
	}
	span := format.Age(time.Duration(float64(len(points)) * p.pointSeconds() * float64(time.Second)))
	return span + ": " + strings.Join(phrases[:min(n, len(phrases))], ", ")
}

// graph draws one character for each point, relative to the maximum.
func (p *page) graph(points []operations.TrafficPoint) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	if p.o.ASCII {
		levels = []rune("_.-:=+*#")
	}
	peak := 1
	for _, point := range points {
		peak = max(peak, point.Requests)
	}
	var b strings.Builder
	for _, point := range points {
		// Only points without requests have the lowest level.
		level := int(math.Ceil(float64(max(point.Requests, 0)) / float64(peak) * float64(len(levels)-1)))
		b.WriteRune(levels[level])
	}
	return b.String()
}
