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
	// IBytesN counts the digits before the point, too.
	whole := v >> (10 * ((bits.Len64(v) - 1) / 10))
	return humanize.IBytesN(v, len(strconv.FormatUint(whole, 10))+1)
}
