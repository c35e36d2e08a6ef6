package catalog

import (
	"maps"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Recipe says how one worker type is installed, started and probed.
type Recipe struct {
	Type        string
	Description string // one line; may be empty

	// API is the dialect that it speaks: [APIOpenAI] or [APIComfyUI].
	API string

	// Formats are the formats of models that it serves, "gguf" or "safetensors":
	// for them it may be started without anybody naming it.
	Formats []string

	// Versions is where its versions are published; nil if the sources name all
	// that there are.
	Versions *Versions

	// Latest is the version that [version.Latest] stands for where Versions is nil;
	// empty for that of the first source.
	Latest string

	// Sources are tried in order. Without any, the type can be wanted and
	// validated but not installed, and Note says what to do.
	Sources []Source
	Note    string

	Start Start
	Ready Ready
	Needs Needs

	// Verify proves on the machine that what was installed works there; nil for
	// none. That of a source replaces it.
	Verify *wire.Verify

	// Grace is how long it may take to end after SIGTERM; 0 leaves that to the
	// hive (20 s).
	Grace time.Duration

	// Memory says what it takes on accelerators; nil for a worker that uses none.
	Memory *Memory

	// File is where the recipe was read from; "catalog/..." for a built-in one.
	File string
	Pos  config.Pos // of the type in File
}

// The dialects of workers.
const (
	APIOpenAI  = "openai"
	APIComfyUI = "comfyui"
)

// Versions is a place where versions are published: exactly one of GitHub and
// Package is set.
type Versions struct {
	// GitHub is a repository with releases, owner/name, and Tag how a version is
	// written as a tag: "v{version}".
	GitHub, Tag string

	// Prereleases makes releases count that are marked as prereleases, for
	// [version.Latest] and for ranges. An exact version may always be a prerelease.
	Prereleases bool

	// Match is a pattern for [path.Match] that a version of GitHub must match, such
	// as "b[0-9]*". Releases with other tags are not versions. Empty matches all.
	Match string

	// Pointer describes releases of GitHub that stand for another release; nil if
	// the repository has none. It needs Match, which tells versions from pointers.
	Pointer *Pointer

	// Package is a package of the Python index.
	Package string

	Pos config.Pos
}

// Pointer describes releases that contain no files to install, but a text file
// with the tag of the release that they stand for: a release v0.5.0 with the
// asset nightly-tag.txt, which contains "b10811".
type Pointer struct {
	// Tag is how such a release is tagged: "v{version}".
	Tag string

	// Asset is the name of the text file.
	Asset string
}

// Source is one way to install a worker: on which machines, and in which steps.
// In the strings of a step and in Entry, {version}, {os} and {arch} stand for
// what is installed.
type Source struct {
	// Name tells it from the others, such as "cuda-13"; may be empty.
	Name string

	// Version is the version that it gives; empty for a server inside rbee, which
	// has rbee's. Where the recipe has Versions, it is a range that the source is
	// for, as [version.ParseRange] reads it, and empty for all.
	Version string

	// OS and Arch (as GOOS and GOARCH) and Libc ("glibc", "musl") are what it
	// runs on; empty is any. Glibc is the oldest glibc.
	OS, Arch, Libc, Glibc string

	// GPU is the vendor of an accelerator that the machine must have, "any" for
	// one of whatever vendor; empty for none, and [wire.NoGPU] for a build that
	// does not use any. Driver and Compute are the oldest
	// driver and the lowest compute capability of such an accelerator.
	GPU, Driver, Compute string

	// ComputeMax, Native and PTXDriver are as in [wire.DeviceNeeds].
	ComputeMax string
	Native     []string
	PTXDriver  string

	// Architectures are as in [wire.DeviceNeeds].
	Architectures []string

	// ROCm is the version of ROCm that the machine must have, as far as it must
	// agree, such as "10"; empty for none. Libraries are shared libraries that it
	// must have, of [wire.ProbedLibraries].
	ROCm      string
	Libraries []string

	// Steps make the worker's payload. Entry is the program's slash-separated
	// path there; empty for a server inside rbee and for a single file.
	Steps []Step
	Entry string

	// Args are given to the program after those of [Start], and Env is added to
	// its environment, in the place of what Start says there. What is installed
	// does not depend on them.
	Args []string
	Env  map[string]string

	// Verify is the source's own; nil for that of the recipe.
	Verify *wire.Verify

	Pos config.Pos
}

// Step makes a part of a worker's payload.
type Step struct {
	Kind wire.StepKind

	// Builtin is the server inside rbee, for [wire.StepBuiltin].
	Builtin string

	// Origin is where the file or the archive comes from, for [wire.StepFile] and
	// [wire.StepArchive]; Format and Strip are as in [wire.InstallStep].
	Origin Origin
	Format wire.Format
	Strip  int

	// Into is as in [wire.InstallStep].
	Into string

	// Python is for [wire.StepPython].
	Python *Python

	Pos config.Pos
}

// Origin is where an artifact comes from. Exactly one of File, URL, Asset and
// Code is set.
type Origin struct {
	File string // a path on the machine that installs from, relative to the recipe's folder
	URL  string // https, or http, which the checksum makes safe

	// Asset is the name of a file of the release, in which * stands for anything,
	// and Code the release's own source code, packed by the host of the release.
	// Both need [Versions.GitHub].
	Asset string
	Code  bool

	// SHA256 (64 lower-case hex digits) and Size (bytes, 0 if not known) are of
	// the file or download. Where SHA256 is empty for a download, what came first
	// is right from then on: the lock keeps its sum.
	SHA256 string
	Size   int64
}

// Python is a virtual environment that a step makes.
type Python struct {
	Version string // of the interpreter, such as "3.12"

	// Packages are requirements as pip reads them, and Requirements a file of
	// them in the payload, which an earlier step unpacked.
	Packages     []string
	Requirements string

	// Torch is the backend that PyTorch is built for, such as "cu128", "rocm6.4"
	// or "cpu"; empty for what the package index has.
	Torch string

	// Prerelease also allows versions of dependencies that are not final.
	Prerelease bool

	// Overrides are requirements that replace those which packages state, and
	// Constraints limit versions without requiring a package; both as pip reads them.
	Overrides   []string `json:",omitempty"`
	Constraints []string `json:",omitempty"`

	// Indexes are asked before the package index. A package that one of them has is
	// taken from it.
	Indexes []Index `json:",omitempty"`

	// ExcludeNewer is the date that packages are chosen as of: 2025-10-31, or a time
	// after RFC 3339. Empty means the release date of the worker's version, and
	// [ExcludeNewerNever] today.
	ExcludeNewer string `json:",omitempty"`
}

// ExcludeNewerNever is the value of [Python].ExcludeNewer for the newest packages.
const ExcludeNewerNever = "never"

// Pinned reports whether everything that the source installs stands in the recipe
// itself, so that no lock is needed to get the same again.
func (s *Source) Pinned() bool {
	for _, step := range s.Steps {
		o := step.Origin
		if step.Python != nil || o.Asset != "" || o.Code || o.URL != "" && o.SHA256 == "" {
			return false
		}
	}
	return true
}

// InstallsLocalFile reports whether the source installs a file of this machine.
func (s *Source) InstallsLocalFile() bool {
	return slices.ContainsFunc(s.Steps, func(step Step) bool { return step.Origin.File != "" })
}

// Start is how a worker is started: the arguments after its entry point and
// variables added to its environment. In both, words in braces stand for what it
// is started with:
//
//	{entry}         the worker's program
//	{payload}       the directory with its files
//	{state}         a directory of this process alone, empty but for Links
//	{host}, {port}  where it shall listen
//	{model}         the model's name, as it was asked for
//	{model_path}    the model's file, or the directory of its snapshot; a recipe
//	                with this word needs the model on the machine's disk
//	{model_file}    the name of the model's file
//	{model_sha256}  the SHA-256 of the model's file
//	{devices}       indices of its accelerators, such as "0,1"; empty on the CPU
//	{device_count}  how many those are
//	{context}       the length of context of one request, in tokens: what was asked
//	                for, or what memory was counted with; 0 if neither is known
//	{cuda_home}     the directory of the machine's CUDA toolkit; empty if it has none
//	{context_total} the same over all requests at once, for engines that divide it
//	{parallel}      how many requests it shall serve at once; 1 if nothing was said
//
// With a question mark, such as {context?}, the whole argument or variable is left
// out where nothing was asked for.
type Start struct {
	Args []string
	Env  map[string]string

	// Links are symbolic links that are made in {state} before it starts: what
	// each is called there, and what it leads to.
	Links map[string]string

	// Prepare are requests that it gets once it answers, before it is ready.
	Prepare []wire.HTTPRequest

	// Serves is what it calls its model in requests; empty if that is {model}.
	Serves string
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

// Launch is the part of a recipe that a machine keeps beside a worker that was
// installed from a source; nil for one that was put there by hand.
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
		l.Devices = s.deviceNeeds()
	}
	if r.API != APIOpenAI {
		l.API = r.API
	}
	if m := r.Memory; m != nil {
		l.Memory = &wire.Memory{Fixed: m.Fixed, Overhead: m.Overhead, Share: m.Share, Context: m.Context}
	}
	return l
}

// Needs are what a machine must have for a worker to be of use there, whatever
// the source.
type Needs struct {
	GPU       string // "nvidia", "amd", "intel", "apple", "any"; empty for none
	GPUMemory int64  // bytes on one GPU; 0 for no need
	Driver    string // the oldest driver of such a GPU
	Compute   string // the lowest compute capability of such a GPU
	Glibc     string // the oldest glibc, where the machine has glibc
	Disk      int64  // bytes free, for what is installed; 0 for no need

	// Commands are programs of the machine's own that it starts, of
	// [wire.ProbedCommands].
	Commands []string

	OS, Arch []string // as GOOS and GOARCH; nil is any
}

// HasPython reports whether a source resolves packages.
func (s *Source) HasPython() bool {
	return slices.ContainsFunc(s.Steps, func(step Step) bool { return step.Python != nil })
}

// PythonTool is the name of the tool recipe for the Python interpreter.
const PythonTool = "python"
