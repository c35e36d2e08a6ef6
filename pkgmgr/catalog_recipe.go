package pkgmgr

import "github.com/rbee-keeper/rbee/pkgmgr/wire"

// Recipe says how one worker type is installed, started and probed.
type Recipe struct {
	Type        string
	Description string // one line; may be empty

	// Latest is the version that [Latest] stands for; empty for that of the
	// first source.
	Latest string

	// Sources are tried in order. Without any, the type can be wanted and
	// validated but not installed, and Note says what to do.
	Sources []Source
	Note    string

	Start Start
	Ready Ready
	Needs Needs

	// File is where the recipe was read from; "catalog/..." for a built-in one.
	File string
	Pos  Pos // of the type in File
}

// Source is one place that a worker can be installed from. Exactly one of
// Builtin, File and URL is set. In File, URL and Entry of a [Recipe], {version},
// {os} and {arch} stand for what is installed; those of a [Resolved] have them
// replaced.
type Source struct {
	// Version is the version that it gives; empty for a built-in server, which
	// has rbee's.
	Version string

	// OS and Arch (as GOOS and GOARCH) and Libc ("glibc", "musl") are what it
	// runs on; empty is any.
	OS, Arch, Libc string

	Builtin string // a server inside rbee
	File    string // a path on the machine that installs from, relative to the recipe's folder
	URL     string // https, or http, which the checksum makes safe

	// SHA256 (64 lower-case hex digits) and Size (bytes, 0 if not known) are of
	// the file or download. SHA256 is always set for a URL.
	SHA256 string
	Size   int64

	// Format is how it is packed, Entry the program's slash-separated path
	// inside an archive. Neither is set for a built-in server.
	Format wire.Format
	Entry  string

	Pos Pos
}

// Start is how a worker is started: the arguments after its entry point and
// variables added to its environment. In both {entry}, {host}, {port} and {model}
// stand for what it is started with.
type Start struct {
	Args []string
	Env  map[string]string
}

// Ready is how a worker shows that it can serve: a GET of Path on its port that
// answers with Status. An empty Path means that nothing is probed.
type Ready struct {
	Path   string
	Status int
}

// Needs are what a machine must have for a worker to be of use there.
type Needs struct {
	GPU       string // "nvidia", "amd", "intel", "apple", "any"; empty for none
	GPUMemory int64  // bytes on one GPU; 0 for no need
	Disk      int64  // bytes free; 0 for no need

	OS, Arch []string // as GOOS and GOARCH; nil is any
}
