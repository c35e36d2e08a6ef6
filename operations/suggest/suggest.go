// Package suggest finds the known name that a misspelled one most likely means. Every
// "did you mean" of this module comes from it.
package suggest

import "strings"

// Nearest is the candidate that s was most likely meant to be, or empty if none
// is close: at most a third of the letters differ, or one holds the other.
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

// distance counts the letters to insert, drop, replace or swap with the next one
// to make b from a (optimal string alignment). Long words are all far apart.
func distance(a, b string) int {
	const long = 64
	if len(a) > long || len(b) > long {
		return long
	}
	var rows [3][long + 1]int
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
