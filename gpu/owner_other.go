//go:build !unix

package gpu

// owner returns "": there is no procfs on this platform.
func owner(string, int) string { return "" }
