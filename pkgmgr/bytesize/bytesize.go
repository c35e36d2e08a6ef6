// Package bytesize formats sizes of files, disks and memory for all output of rbee. It uses
// binary units with one digit after the decimal point.
package bytesize

import (
	"math/bits"
	"strconv"

	"github.com/dustin/go-humanize"
)

// Format formats n bytes in the largest binary unit that is at most n, such as "512 B",
// "64.0 KiB" or "30.4 GiB". It returns "0 B" for negative numbers.
func Format[T int | int64 | uint64](n T) string {
	if n < 1024 {
		return strconv.FormatUint(uint64(max(n, 0)), 10) + " B"
	}
	v := uint64(n)
	integer := v >> unitShift(v) // IBytesN counts its digits too
	return humanize.IBytesN(v, len(strconv.FormatUint(integer, 10))+1)
}

// FormatOf formats part and total, both in the unit of total, such as "0.4/80.0 GiB".
func FormatOf(part, total uint64) string {
	digits := 1
	if total < 1024 {
		digits = 0
	}
	return strconv.FormatFloat(float64(part)/float64(uint64(1)<<unitShift(total)), 'f', digits, 64) + "/" + Format(total)
}

// unitShift returns the binary logarithm of the largest binary unit that is at most n.
func unitShift(n uint64) int { return 10 * ((bits.Len64(max(n, 1)) - 1) / 10) }
