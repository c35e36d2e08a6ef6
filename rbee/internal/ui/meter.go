package ui

import (
	"math"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

const (
	measureInterval = 250 * time.Millisecond // minimum time between two measurements of the speed
	smoothingSpan   = 5 * time.Second        // time constant of the smoothed speed
	stallTimeout    = 10 * time.Second       // time without progress after which a transfer counts as stalled
)

// meter measures the speed of a transfer. The zero value is ready to use.
type meter struct {
	at    time.Time // time of the last measurement
	bytes int64
	rate  float64 // smoothed bytes per second; 0 if unknown
}

// add records the number of bytes transferred so far. The first number is the
// start of the measurement: a resumed transfer starts above 0.
func (m *meter) add(now time.Time, bytes int64) {
	if m.at.IsZero() || bytes < m.bytes {
		*m = meter{at: now, bytes: bytes}
		return
	}
	elapsed := now.Sub(m.at)
	if elapsed < measureInterval {
		return
	}
	rate := float64(bytes-m.bytes) / elapsed.Seconds()
	if m.rate > 0 {
		weight := 1 - math.Exp(-elapsed.Seconds()/smoothingSpan.Seconds())
		rate = m.rate + weight*(rate-m.rate)
	}
	*m = meter{at: now, bytes: bytes, rate: rate}
}

// parts formats the speed and, if total is known, the remaining time.
func (m *meter) parts(now time.Time, total int64) []string {
	if idle := now.Sub(m.at); !m.at.IsZero() && idle >= stallTimeout {
		return []string{"stalled for " + format.Age(idle)}
	}
	if m.rate < 1 {
		return nil
	}
	parts := []string{rate(m.rate)}
	if left := total - m.bytes; left > 0 {
		parts = append(parts, format.Age(time.Duration(float64(left)/m.rate*float64(time.Second)))+" left")
	}
	return parts
}

// rate formats a speed in bytes per second.
func rate(bytes float64) string { return bytesize.Format(int64(min(bytes, 1<<62))) + "/s" }

// formatTransfer formats the transferred bytes and the total; total 0 is unknown.
func formatTransfer(bytes, total int64) string {
	if total > 0 {
		return bytesize.Format(bytes) + "/" + bytesize.Format(total)
	}
	return bytesize.Format(bytes)
}
