package top

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// every is the time between two points of the traffic, in seconds.
func (p *page) every() float64 {
	if e := p.s.Traffic.EverySeconds; e > 0.1 {
		return min(e, 3600)
	}
	return 0.1
}

// points is the traffic until now, with what was quiet since the last point. Of the
// time in which the queen was not heard nothing is known.
func (p *page) points() []operations.TrafficPoint {
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
func (p *page) rate() float64 {
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
func (p *page) traffic() []string {
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
	line.add(cell{text: label, color: format.Bold})
	line.pending = 1
	line.add(cell{text: p.graph(points), color: format.Green})
	line.pending += 2
	line.add(cell{text: tail})
	return []string{line.String()}
}

// trafficText says in n words what the points show.
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
	words := []string{"peak " + perSecond(float64(peak)/p.every()) + "/s", format.Count(errors, "error"), amount(int64(tokens)) + " tokens"}
	if first > 0 {
		words = append(words, "first after "+format.ShortSeconds(first))
	}
	span := format.Age(time.Duration(float64(len(points)) * p.every() * float64(time.Second)))
	return span + ": " + strings.Join(words[:min(n, len(words))], ", ")
}

// graph draws one character for each point; the highest stands for the most.
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
		// Only nothing is as low as nothing.
		level := int(math.Ceil(float64(max(point.Requests, 0)) / float64(peak) * float64(len(levels)-1)))
		b.WriteRune(levels[level])
	}
	return b.String()
}
