package pkgmgr

import (
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

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

	// Grace is how long it may take to end after SIGTERM; 0 leaves that to the
	// hive (20 s).
	Grace time.Duration

	// Memory says what it takes on accelerators; nil for a worker that uses none.
	Memory *Memory

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
// variables added to its environment. In both, words in braces stand for what it
// is started with:
//
//	{entry}         the worker's program
//	{host}, {port}  where it shall listen
//	{model}         the model's name, as it was asked for
//	{model_path}    the model's file, or the directory of its snapshot; a recipe
//	                with this word needs the model on the machine's disk
//	{devices}       indices of its accelerators, such as "0,1"; empty on the CPU
//	{device_count}  how many those are
//	{context}       the length of context that was asked for; 0 if none was
type Start struct {
	Args []string
	Env  map[string]string
}

// Ready is how a worker shows that it can serve: a GET of Path on its port that
// answers with Status. An empty Path means that it is ready once it listens.
type Ready struct {
	Path   string
	Status int

	// Stall is how long it may load without a sign of life, which is a line in
	// its log or a change of its memory; 0 leaves that to the hive (5 minutes).
	Stall time.Duration
}

// Memory is how the device memory of a worker is estimated.
type Memory struct {
	Fixed    int64   // bytes whatever the model; 0: by the model's files and its context
	Overhead int64   // bytes on each device besides
	Share    float64 // part of each device that it reserves, above 0 to 1; 0: what it needs
	Context  int     // tokens, where none are asked for; 0: the model's own, at most 8192
}

// Launch is the part of a recipe that a machine keeps beside an installed worker.
func (r *Recipe) Launch() *wire.Launch {
	l := &wire.Launch{
		Args: r.Start.Args, Env: r.Start.Env, ReadyPath: r.Ready.Path, ReadyStatus: r.Ready.Status,
		StallSeconds: r.Ready.Stall.Seconds(), GraceSeconds: r.Grace.Seconds(), GPU: r.Needs.GPU,
	}
	if m := r.Memory; m != nil {
		l.Memory = &wire.Memory{Fixed: m.Fixed, Overhead: m.Overhead, Share: m.Share, Context: m.Context}
	}
	return l
}

// Needs are what a machine must have for a worker to be of use there.
type Needs struct {
	GPU       string // "nvidia", "amd", "intel", "apple", "any"; empty for none
	GPUMemory int64  // bytes on one GPU; 0 for no need
	Disk      int64  // bytes free; 0 for no need

	OS, Arch []string // as GOOS and GOARCH; nil is any
}
