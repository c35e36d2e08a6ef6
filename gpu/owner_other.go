//go:build !unix

package gpu

// owner is unknown where there is no procfs.
func owner(string, int) string { return "" }
