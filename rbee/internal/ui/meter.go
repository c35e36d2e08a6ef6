package ui

import (
	"math"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

const (
	meterStep  = 250 * time.Millisecond // the shortest time over which speed is measured
	meterSpan  = 5 * time.Second        // over which speed is smoothed
	meterStall = 10 * time.Second       // of silence, after which it is told
)

// meter measures how fast bytes move. The zero value is ready.
type meter struct {
	at    time.Time // of the last measurement
	bytes int64
	rate  float64 // bytes in a second, smoothed; 0 is not known yet
}

// add takes over how many bytes have moved by now. The first number is where the
// count begins: what an earlier run left did not move now.
func (m *meter) add(now time.Time, bytes int64) {
	if m.at.IsZero() || bytes < m.bytes {
		*m = meter{at: now, bytes: bytes}
		return
	}
	passed := now.Sub(m.at)
	if passed < meterStep {
		return
	}
	rate := float64(bytes-m.bytes) / passed.Seconds()
	if m.rate > 0 {
		weight := 1 - math.Exp(-passed.Seconds()/meterSpan.Seconds())
		rate = m.rate + weight*(rate-m.rate)
	}
	*m = meter{at: now, bytes: bytes, rate: rate}
}

// parts words the speed and, where total is known, the time that is left.
func (m *meter) parts(now time.Time, total int64) []string {
	if silent := now.Sub(m.at); !m.at.IsZero() && silent >= meterStall {
		return []string{"stalled for " + format.Age(silent)}
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

// rate writes a speed in bytes a second.
func rate(bytes float64) string { return bytesize.Format(int64(min(bytes, 1<<62))) + "/s" }

// moved words bytes of a total.
func moved(bytes, total int64) string {
	if total > 0 {
		return bytesize.Format(bytes) + "/" + bytesize.Format(total)
	}
	return bytesize.Format(bytes)
}
