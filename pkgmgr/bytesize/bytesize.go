// Package bytesize formats sizes of files, disks and memory. Everything that rbee prints
// uses it: binary units, one digit after the decimal point.
package bytesize

import (
	"math/bits"
	"strconv"

	"github.com/dustin/go-humanize"
)

// Format returns a number of bytes in the largest binary unit that fits: "512 B",
// "64.0 KiB", "30.4 GiB". A negative number is 0.
func Format[T int | int64 | uint64](n T) string {
	if n < 1024 {
		return strconv.FormatUint(uint64(max(n, 0)), 10) + " B"
	}
	v := uint64(n)
	whole := v >> unitShift(v) // whose digits IBytesN counts, too
	return humanize.IBytesN(v, len(strconv.FormatUint(whole, 10))+1)
}

// FormatOf returns a part of a total, both in the unit of the total: "0.4/80.0 GiB".
func FormatOf(part, total uint64) string {
	digits := 1
	if total < 1024 {
		digits = 0
	}
	return strconv.FormatFloat(float64(part)/float64(uint64(1)<<unitShift(total)), 'f', digits, 64) + "/" + Format(total)
}

// unitShift returns the power of two of the largest binary unit that is not above n.
func unitShift(n uint64) int { return 10 * ((bits.Len64(max(n, 1)) - 1) / 10) }
