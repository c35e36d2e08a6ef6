//go:build !unix

package gpu

// owner returns "": this platform has no procfs.
func owner(string, int) string { return "" }
