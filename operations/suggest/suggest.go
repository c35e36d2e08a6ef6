// Package suggest finds the known name that is nearest to a misspelled name, for "did you
// mean" hints in error messages.
package suggest

import "strings"

// Nearest returns the candidate that is most similar to s, ignoring case. A candidate
// qualifies if its edit distance to s is at most len(s)/3 + 1 and less than its own length.
// If no candidate qualifies, Nearest returns the first candidate that contains s or is
// contained in s, or "" if no candidate is.
func Nearest[S ~string](s string, candidates []S) S {
	best, least := S(""), len(s)/3+2
	for _, c := range candidates {
		if d := distance(strings.ToLower(s), strings.ToLower(string(c))); d < least && d < len(c) {
			best, least = c, d
		}
	}
	if best != "" || len(s) < 3 {
		return best
	}
	for _, c := range candidates {
		if strings.Contains(string(c), strings.ToLower(s)) || len(c) >= 3 && strings.Contains(strings.ToLower(s), string(c)) {
			return c
		}
	}
	return ""
}

// distance returns the optimal string alignment distance of a and b: the number of bytes
// to insert, delete, replace or swap with the next byte. For strings longer than 64 bytes
// it returns 64.
func distance(a, b string) int {
	const maxLen = 64
	if len(a) > maxLen || len(b) > maxLen {
		return maxLen
	}
	var rows [3][maxLen + 1]int
	prev2, prev, row := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev, row = prev, row, prev2
	}
	return prev[len(b)]
}
