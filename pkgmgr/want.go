package pkgmgr

import (
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Want is what hives are compared with, besides their config: everything that
// had to be looked up before a decision can be made without looking anywhere.
type Want struct {
	// Version is the version of rbee that hives shall have.
	Version string

	// Binaries holds the rbee for each platform, by [PlatformKey]. For a
	// platform that is missing, hives are compared by Version alone.
	Binaries map[string]BinaryWant

	// Workers says what each worker wish of the config comes to.
	Workers map[WorkerKey]WorkerWant
}

// BinaryWant is the rbee for one platform, or why there is none.
type BinaryWant struct {
	Version string
	SHA256  string // in hex
	Size    int64  // of the binary, in bytes

	// Err is why no binary can be had; the other fields are empty then.
	Err error
}

// PlatformKey is "os/arch" as Go names them.
func PlatformKey(p Platform) string { return p.OS + "/" + p.Arch }

// WorkerKey is one worker wish on one kind of platform.
type WorkerKey struct {
	Type     string
	Version  string // as the config says it
	Platform Platform
}

// WorkerWant is what a worker wish comes to, or why it cannot be fulfilled.
type WorkerWant struct {
	// Version is the exact version.
	Version string

	// Source is what the hive is told. For a builtin source its SHA256 is that
	// of the platform's rbee, and empty if that is not known.
	Source wire.Source

	// Launch is how the hive shall run it; nil compares nothing.
	Launch *wire.Launch

	// File is the artefact on this machine for a pushed source that is one
	// already; else the artefact is fetched from URL when it is needed.
	File string
	URL  string

	// Err is why there is no way to install it; the other fields are empty then.
	Err error
}
