package catalog

import (
	"maps"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Recipe describes how to install, start and verify a worker type.
type Recipe struct {
	Type        string
	Description string // one line; may be empty

	// API is the API that the worker serves: [APIOpenAI] or [APIComfyUI].
	API string

	// Formats lists the model formats that the worker serves: "gguf", "safetensors". rbee
	// starts the worker automatically for models in these formats.
	Formats []string

	// Versions describes where versions are published. If it is nil, only the versions of
	// the sources can be installed.
	Versions *Versions

	// Latest is the version that [version.Latest] resolves to if Versions is nil. Empty
	// means the version of the first source.
	Latest string

	// Sources are tried in order. A type without sources is valid in a config but cannot
	// be installed by rbee; then Note contains instructions for the user.
	Sources []Source
	Note    string

	Start Start
	Ready Ready
	Needs Needs

	// Verify is the command that checks an installed worker; nil for none. [Source].Verify
	// takes precedence.
	Verify *wire.Verify

	// Grace is the time that the worker may take to exit after SIGTERM. 0 means the
	// default of the hive, 20 s.
	Grace time.Duration

	// Memory describes the worker's device memory; nil for a worker that uses none.
	Memory *Memory

	// File is the path of the recipe's file, or "catalog/..." for a built-in recipe. Pos is
	// the position of the type in it.
	File string
	Pos  config.Pos
}

// Values of [Recipe].API.
const (
	APIOpenAI  = "openai"
	APIComfyUI = "comfyui"
)

// Versions describes where versions are published. Either GitHub or Package is set.
type Versions struct {
	// GitHub is a repository with releases, owner/name. Tag is the form of its tags, such as
	// "v{version}".
	GitHub, Tag string

	// Prereleases includes prereleases in the resolution of [version.Latest] and of ranges.
	// An exact version can always be a prerelease.
	Prereleases bool

	// Match is a pattern for [path.Match] that a version from GitHub must match, such as
	// "b[0-9]*". Releases with other tags are ignored. Empty matches all.
	Match string

	// Pointer describes GitHub releases that refer to another release; nil if the repository
	// has none. It requires Match, which distinguishes versions from pointers.
	Pointer *Pointer

	// Package is the name of a package in the Python package index.
	Package string

	Pos config.Pos
}

// Pointer describes releases without files to install that refer to another release. A text
// file in the pointer release contains the tag of the other release: release v0.5.0 has the
// asset nightly-tag.txt, which contains "b10811".
type Pointer struct {
	// Tag is the form of the tags of pointer releases, such as "v{version}".
	Tag string

	// Asset is the name of the text file.
	Asset string
}

// Source is a variant of a worker: its requirements for machines and the steps that install
// it. In the strings of a step and in Entry, the placeholders {version}, {os} and {arch} are
// replaced with the installed version and the platform.
type Source struct {
	// Name identifies the source in the recipe, such as "cuda-13"; may be empty.
	Name string

	// Version is the version that the source installs. It is empty for a server that is
	// built into rbee and has rbee's version. If the recipe has Versions, it is the range of
	// versions that the source supports, in the form of [version.ParseRange]; empty means
	// all.
	Version string

	// OS and Arch (values of GOOS and GOARCH) and Libc ("glibc" or "musl") describe the
	// supported platform; empty means any. Glibc is the oldest supported version of glibc.
	OS, Arch, Libc, Glibc string

	// GPU is the vendor of the required accelerator, or "any". It is empty if no accelerator
	// is required, and [wire.NoGPU] for a build that does not use accelerators. Driver and
	// Compute are the oldest supported driver and the lowest supported compute capability.
	GPU, Driver, Compute string

	// ComputeMax, Native, PTXDriver and Architectures have the same meaning as in
	// [wire.DeviceRequirements].
	ComputeMax    string
	Native        []string
	PTXDriver     string
	Architectures []string

	// ROCm is the required version of ROCm or a prefix of it, such as "10"; empty if ROCm is
	// not required. Libraries lists required shared libraries from [wire.ProbedLibraries].
	ROCm      string
	Libraries []string

	// Steps create the worker's payload. Entry is the slash-separated path of the program
	// in the payload. It is empty for a built-in server and for a single file.
	Steps []Step
	Entry string

	// Args are appended to the arguments of [Start]. Env is added to the environment of
	// Start and takes precedence. Neither affects the installation.
	Args []string
	Env  map[string]string

	// Verify replaces the recipe's verify command unless it is nil.
	Verify *wire.Verify

	Pos config.Pos
}

// Step creates a part of a worker's payload.
type Step struct {
	Kind wire.StepKind

	// Builtin is the name of a built-in server, for [wire.StepBuiltin].
	Builtin string

	// Origin is the origin of the file or archive, for [wire.StepFile] and
	// [wire.StepArchive]. Format and Strip have the same meaning as in [wire.InstallStep].
	Origin Origin
	Format wire.Format
	Strip  int

	// Into has the same meaning as in [wire.InstallStep].
	Into string

	// Python is set for [wire.StepPython].
	Python *Python

	Pos config.Pos
}

// Origin is the origin of an artifact. File, URL, Asset and Code are mutually exclusive.
type Origin struct {
	File string // a path on the machine that runs rbee, relative to the recipe's directory
	URL  string // https, or http with a checksum

	// Asset is the name of a release file, or a pattern for [path.Match]. Code selects the
	// archive of the release's source code, which GitHub generates. Both require
	// [Versions.GitHub].
	Asset string
	Code  bool

	// SHA256 (64 lowercase hexadecimal digits) and Size (bytes, 0 if unknown) describe the
	// file. If SHA256 is empty for a download, the checksum of the first download is
	// recorded in the lock and used from then on.
	SHA256 string
	Size   int64
}

// Python describes a virtual environment that a step creates.
type Python struct {
	Version string // of the interpreter, such as "3.12"

	// Packages are requirements in pip's syntax. Requirements is the path of a requirements
	// file in the payload, which an earlier step unpacked.
	Packages     []string
	Requirements string

	// Torch is the backend of the PyTorch build, such as "cu128", "rocm6.4" or "cpu". Empty
	// means the build in the package index.
	Torch string

	// Prerelease allows prereleases of dependencies.
	Prerelease bool

	// Overrides replace requirements of packages. Constraints limit versions without
	// requiring a package. Both are in pip's syntax.
	Overrides   []string `json:",omitempty"`
	Constraints []string `json:",omitempty"`

	// Indexes take precedence over the default package index: if an index contains a
	// package, the package is installed from it.
	Indexes []Index `json:",omitempty"`

	// ExcludeNewer excludes packages published after a date, such as 2025-10-31, or after a
	// time in RFC 3339 format. Empty means the release date of the worker's version, and
	// [ExcludeNewerNever] excludes nothing.
	ExcludeNewer string `json:",omitempty"`
}

// ExcludeNewerNever is the value of [Python].ExcludeNewer that selects the newest packages.
const ExcludeNewerNever = "never"

// Reproducible reports whether the recipe alone determines all files that the source
// installs. Such a source does not need a lock.
func (s *Source) Reproducible() bool {
	for _, step := range s.Steps {
		o := step.Origin
		if step.Python != nil || o.Asset != "" || o.Code || o.URL != "" && o.SHA256 == "" {
			return false
		}
	}
	return true
}

// InstallsLocalFile reports whether the source installs a file from this machine.
func (s *Source) InstallsLocalFile() bool {
	return slices.ContainsFunc(s.Steps, func(step Step) bool { return step.Origin.File != "" })
}

// Start describes how to start a worker: the arguments of its program and additional
// environment variables. Both can contain placeholders:
//
//	{entry}         the worker's program
//	{payload}       the directory with the worker's files
//	{state}         a private directory of the process, empty except for Links
//	{host}, {port}  the address to listen on
//	{model}         the requested name of the model
//	{model_path}    the model's file, or the directory of its snapshot; a recipe with
//	                this placeholder requires the model on the hive's disk
//	{model_file}    the name of the model's file
//	{model_sha256}  the SHA-256 of the model's file
//	{devices}       indices of the accelerators, such as "0,1"; empty on the CPU
//	{device_count}  the number of accelerators
//	{context}       the context length of one request in tokens, as requested or as
//	                used for the memory estimate; 0 if unknown
//	{cuda_home}     the directory of the machine's CUDA toolkit; empty if it has none
//	{context_total} the context length of all parallel requests together, for engines
//	                that divide it
//	{parallel}      the number of parallel requests; 1 by default
//
// If a placeholder has a question mark, such as {context?}, and no value was requested, the
// argument or variable that contains it is omitted.
type Start struct {
	Args []string
	Env  map[string]string

	// Links maps the names of symbolic links, relative to {state}, to their targets. The
	// links are created before the worker starts.
	Links map[string]string

	// Prepare lists requests to send to the worker once it responds. The worker is ready
	// after the last request.
	Prepare []wire.HTTPRequest

	// Serves is the name of the model in requests to the worker; empty means {model}.
	Serves string
}

// Ready describes the readiness check of a worker: a GET request for Path that returns
// Status. If Path is empty, the worker is ready once it listens on its port.
type Ready struct {
	Path   string
	Status int

	// Stall is the maximum time without progress while the worker loads its model. A line in
	// the log or a change of memory use is progress. 0 means the default of the hive, 5
	// minutes.
	Stall time.Duration
}

// Memory describes how to estimate the device memory of a worker.
type Memory struct {
	Fixed    int64   // bytes for any model; 0 means an estimate from the model's files and context
	Overhead int64   // additional bytes on each device
	Share    float64 // fraction of each device's memory that the worker reserves, up to 1; 0 means no reservation
	Context  int     // default context length in tokens; 0 means the model's context length, at most 8192
}

// Launch returns the launch description that the hive stores with an installed worker. s is
// the installed source, or nil if the worker was not installed by rbee.
func (r *Recipe) Launch(s *Source) *wire.Launch {
	args, env := r.Start.Args, r.Start.Env
	if s != nil && len(s.Args) > 0 {
		args = slices.Concat(args, s.Args)
	}
	if s != nil && len(s.Env) > 0 {
		env = maps.Clone(env)
		if env == nil {
			env = map[string]string{}
		}
		maps.Copy(env, s.Env)
	}
	l := &wire.Launch{
		Args: args, Env: env, Links: r.Start.Links, Prepare: r.Start.Prepare, Serves: r.Start.Serves,
		ReadyPath: r.Ready.Path, ReadyStatus: r.Ready.Status,
		StallSeconds: r.Ready.Stall.Seconds(), GraceSeconds: r.Grace.Seconds(), GPU: r.Needs.GPU, Formats: r.Formats,
	}
	if s != nil {
		l.Devices = s.deviceRequirements()
	}
	if r.API != APIOpenAI {
		l.API = r.API
	}
	if m := r.Memory; m != nil {
		l.Memory = &wire.Memory{Fixed: m.Fixed, Overhead: m.Overhead, Share: m.Share, Context: m.Context}
	}
	return l
}

// Needs describes the requirements of a worker type that a machine must meet whichever source
// is installed. The requirements of one source are fields of [Source].
type Needs struct {
	GPU       string // "nvidia", "amd", "intel", "apple" or "any"; empty if no GPU is required
	GPUMemory int64  // bytes on one GPU; 0 for no requirement
	Driver    string // the oldest driver of the GPU
	Compute   string // the lowest compute capability of the GPU
	Glibc     string // the oldest version of glibc, for machines with glibc
	Disk      int64  // bytes of free disk space; 0 for no requirement

	// Commands lists programs that the worker runs, from [wire.ProbedCommands].
	Commands []string

	OS, Arch []string // values of GOOS and GOARCH; nil means any
}

// HasPython reports whether the source has a step that creates a Python environment.
func (s *Source) HasPython() bool {
	return slices.ContainsFunc(s.Steps, func(step Step) bool { return step.Python != nil })
}

// PythonTool is the name of the tool recipe for the Python interpreter.
const PythonTool = "python"
