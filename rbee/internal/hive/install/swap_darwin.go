package install

import "golang.org/x/sys/unix"

// exchange atomically exchanges two files or directories.
func exchange(a, b string) error { return unix.RenamexNp(a, b, unix.RENAME_SWAP) }
