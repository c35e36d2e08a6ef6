// Package wire is the protocol between pkgmgr and the rbee on a machine.
//
// pkgmgr speaks to a machine in two ways. It reads the machine's [State] from
// `rbee hive inspect`, and it changes the machine through `rbee hive apply`:
// a [Request] with its steps goes to stdin, and messages come back on stdout
// until the [Result]. All worker logic is Go code on both sides; the shell is
// only used to find rbee on a machine or to learn that it is not there.
//
// # Framing
//
// What a machine sends is a sequence of JSON records after RFC 7464: each
// begins with the byte 0x1E and ends with a newline. Anything else on the same
// stream, such as what a shell's start-up file prints, is skipped.
//
// # Artefacts
//
// A step whose source is pushed needs bytes from the queen's side. The machine
// asks for them with a [Message] that has Need set, when it is ready to take
// them; [SendBlob] answers on the machine's stdin and [BlobReader] reads it
// there. A machine that has the bytes already never asks.
//
// # Ends
//
// End of stdin tells the machine that nobody waits any more: it stops, cleans up
// what it was doing and leaves what was done.
package wire

import (
	"bytes"
	"encoding/json"
	"time"
)

// Schema is the version of this protocol. A machine whose rbee speaks another
// one is treated as outdated and gets a new rbee before anything else.
const Schema = 1

// Places below rbee's directory on a machine.
const (
	BinDir      = "bin"
	Binary      = "bin/rbee"
	PrevBinary  = "bin/rbee.prev"
	BinaryInfo  = "bin/rbee.json" // an [Installed]
	UploadGlob  = "bin/.*rbee-*"  // uploaded binaries that are not in place yet, whole or not
	WorkersDir  = "workers"
	EntryPrefix = "rbee-worker-" // workers/rbee-worker-<type> is a worker's entry point
	RunDir      = "run"
	LogsDir     = "logs"
	LockFile    = "lock"
)

// State is what a machine says of itself.
type State struct {
	Schema int `json:"schema"`

	Platform
	Hostname string `json:"hostname"`
	User     string `json:"user"`

	// Home is rbee's directory, an absolute path; it need not exist.
	Home string `json:"home"`

	// MissingDirs are the directories above Home, outermost first, that do not
	// exist yet, and so will have been made by an install.
	MissingDirs []string `json:"missing_dirs,omitempty"`

	// DiskFree is the free space for Home in bytes; 0 if not known.
	DiskFree uint64 `json:"disk_free"`

	// Devices are the accelerators; nil if they were not asked for.
	Devices []Device `json:"devices,omitempty"`

	// DevicesKnown tells whether Devices was asked for and answered.
	DevicesKnown bool `json:"devices_known,omitempty"`

	// Rbee is the rbee installed there; nil if there is none.
	Rbee *Installed `json:"rbee,omitempty"`

	// Broken says why the installed rbee does not work; empty if it does or
	// there is none.
	Broken string `json:"broken,omitempty"`

	// Settings are what the hive was last told; nil if never.
	Settings *Settings `json:"settings,omitempty"`

	// Daemon is the hive daemon.
	Daemon Daemon `json:"daemon"`

	// Workers are the worker types installed, sorted by type.
	Workers []Worker `json:"workers,omitempty"`
}

// Platform is what a binary must fit.
type Platform struct {
	OS   string `json:"os"`   // as GOOS
	Arch string `json:"arch"` // as GOARCH

	// Libc is "glibc", "musl" or empty (not Linux, or not known), and
	// LibcVersion its version, such as "2.36".
	Libc        string `json:"libc,omitempty"`
	LibcVersion string `json:"libc_version,omitempty"`
}

// Device is an accelerator, as far as an install needs to know it.
type Device struct {
	Vendor      string `json:"vendor"` // "nvidia", "amd", "intel", "apple"
	Name        string `json:"name"`
	MemoryBytes uint64 `json:"memory_bytes,omitempty"` // 0 if not known
	Error       string `json:"error,omitempty"`        // the driver's own words, if it is broken
}

// Installed is the record of an installed rbee binary.
type Installed struct {
	Version     string    `json:"version"`
	SHA256      string    `json:"sha256"` // of the binary, in hex
	Size        int64     `json:"size"`
	InstalledAt time.Time `json:"installed_at,omitzero"`

	// MadeDirs are directories above rbee's own that the install made; an
	// uninstall removes them again where they are empty.
	MadeDirs []string `json:"made_dirs,omitempty"`
}

// Settings are what the config says about a hive and the hive must know.
type Settings struct {
	Alias     string   `json:"alias"`
	HivePort  int      `json:"hive_port"`
	AutoStart bool     `json:"auto_start"`
	Labels    []string `json:"labels,omitempty"`
}

// Daemon is the state of the hive daemon.
type Daemon struct {
	// Running means that it runs and answers on its port.
	Running bool `json:"running"`

	PID     int       `json:"pid,omitempty"`
	Port    int       `json:"port,omitempty"`
	Version string    `json:"version,omitempty"`
	SHA256  string    `json:"sha256,omitempty"` // of the binary it runs, in hex
	Since   time.Time `json:"since,omitzero"`

	// Supervisor is what keeps it running: "systemd", "launchd" or "none".
	Supervisor string `json:"supervisor,omitempty"`

	// Problem says why a daemon that has a process does not answer.
	Problem string `json:"problem,omitempty"`
}

// Worker is a worker type that is installed.
type Worker struct {
	Type string `json:"type"`

	// Version is what is installed and Requested what the config asked for
	// then, such as "latest". Both are empty for a worker that rbee did not
	// install.
	Version   string `json:"version,omitempty"`
	Requested string `json:"requested,omitempty"`

	// SHA256 is that of the source it was installed from, in hex: the archive
	// or the plain file. Empty for a worker that rbee did not install.
	SHA256 string `json:"sha256,omitempty"`

	Bytes       int64     `json:"bytes,omitempty"`
	InstalledAt time.Time `json:"installed_at,omitzero"`

	// Foreign means that the entry point is there and rbee did not install it.
	Foreign bool `json:"foreign,omitempty"`

	// Launch is how it is run, as it was installed; nil where nothing was said.
	Launch *Launch `json:"launch,omitempty"`

	// Corrupt says what is wrong with the installed files; empty if nothing is
	// known to be. Files are only read again when a deep inspection is asked for.
	Corrupt string `json:"corrupt,omitempty"`
}

// Request is what `rbee hive apply` is to do, one JSON line on stdin.
type Request struct {
	Schema int `json:"schema"`

	// Owner says who asks, for the one who has to wait for the lock:
	// "user@host, pid 123".
	Owner string `json:"owner"`

	// LockWait is how long to wait for the lock. Zero or less does not wait.
	LockWait time.Duration `json:"lock_wait"`

	// Settings are stored on the machine before the steps are done; nil leaves
	// them as they are.
	Settings *Settings `json:"settings,omitempty"`

	// Steps are done in order. A step that fails does not keep workers'
	// steps after it from being tried; a failed ActionInstallSelf does.
	Steps []Step `json:"steps"`
}

// Action is what a step does.
type Action string

// The actions.
const (
	// ActionInstallSelf puts the running binary, uploaded under a temporary
	// name, in the place of bin/rbee; the one before stays as bin/rbee.prev.
	ActionInstallSelf Action = "install_self"

	ActionInstallWorker Action = "install_worker" // also replaces and repairs
	ActionRemoveWorker  Action = "remove_worker"
	ActionStart         Action = "start"  // starts the daemon; one that runs with the right binary and settings is left alone
	ActionStop          Action = "stop"   // stops the daemon
	ActionRemoveSelf    Action = "remove" // stops the daemon and removes everything of rbee
)

// Step is one thing to do.
type Step struct {
	Action Action `json:"action"`

	// Install is set for ActionInstallSelf: what the binary must turn out to be.
	Install *Installed `json:"install,omitempty"`

	// Worker is set for ActionInstallWorker and ActionRemoveWorker; for the
	// latter only its Type counts.
	Worker *WorkerInstall `json:"worker,omitempty"`
}

// WorkerInstall says how a worker is installed.
type WorkerInstall struct {
	Type      string `json:"type"`
	Version   string `json:"version"`
	Requested string `json:"requested"`

	// Force installs again even if the same source is installed and whole.
	Force bool `json:"force,omitempty"`

	Source Source `json:"source"`

	// Launch says how the worker is run; nil leaves it to the recipe of that
	// type that is built into the machine's rbee.
	Launch *Launch `json:"launch,omitempty"`
}

// Launch is how an installed worker is started, probed and stopped: the part of
// a recipe that the machine keeps.
type Launch struct {
	// Args follow the entry point, and Env is added to its environment. In both,
	// words in braces are replaced: {entry}, {host}, {port}, {model}, {model_path},
	// {devices}, {device_count} and {context}.
	Args []string          `json:"args,omitempty"`
	Env  map[string]string `json:"env,omitempty"`

	// ReadyPath is asked for with GET until it answers ReadyStatus. Without a
	// path a worker is ready as soon as it listens on its port.
	ReadyPath   string `json:"ready_path,omitempty"`
	ReadyStatus int    `json:"ready_status,omitempty"`

	// StallSeconds is how long a worker may load without writing to its log and
	// without its memory changing; 0 is the machine's own.
	StallSeconds float64 `json:"stall_seconds,omitempty"`

	// GraceSeconds is how long it may take to end after SIGTERM; 0 is the
	// machine's own.
	GraceSeconds float64 `json:"grace_seconds,omitempty"`

	// GPU is the vendor of the accelerator that it cannot run without, "any" for
	// one of whatever vendor, or empty.
	GPU string `json:"gpu,omitempty"`

	// Memory says what it takes on accelerators; nil for a worker that uses none.
	Memory *Memory `json:"memory,omitempty"`
}

// Memory is how the device memory of a worker is estimated.
type Memory struct {
	// Fixed is what it takes whatever the model, in bytes; 0 means that the
	// model's files and its context say it.
	Fixed int64 `json:"fixed,omitempty"`

	// Overhead is taken on each device besides, in bytes.
	Overhead int64 `json:"overhead,omitempty"`

	// Share is the part of each device's whole memory that it reserves, above 0
	// to 1; 0 if it takes what it needs.
	Share float64 `json:"share,omitempty"`

	// Context is the length of context, in tokens, that is counted with when
	// none is asked for; 0 means the model's own, at most 8192.
	Context int `json:"context,omitempty"`
}

// Equal reports whether two launches are the same on the wire; nil equals nil alone.
func (l *Launch) Equal(other *Launch) bool {
	a, errA := json.Marshal(l)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// SourceKind says where the bytes of a worker come from.
type SourceKind string

// The kinds of sources.
const (
	SourceBuiltin SourceKind = "builtin" // the machine's own rbee
	SourceURL     SourceKind = "url"     // the machine downloads
	SourcePush    SourceKind = "push"    // the queen's side sends
)

// Format is how an artefact is packed.
type Format string

// The formats.
const (
	FormatPlain  Format = "plain" // one file, the entry point itself
	FormatTarGz  Format = "tar.gz"
	FormatTarZst Format = "tar.zst"
	FormatZip    Format = "zip"
)

// Source is where a worker comes from.
type Source struct {
	Kind SourceKind `json:"kind"`

	// Builtin is the name of a server inside rbee, for SourceBuiltin.
	Builtin string `json:"builtin,omitempty"`

	// URL is for SourceURL.
	URL string `json:"url,omitempty"`

	// SHA256 (hex) and Size (bytes, 0 if not known) are those of the artefact
	// as it is sent or downloaded, before unpacking. Not set for SourceBuiltin.
	SHA256 string `json:"sha256,omitempty"`
	Size   int64  `json:"size,omitempty"`

	Format Format `json:"format,omitempty"`

	// Entry is the path of the program inside an archive, slash-separated.
	Entry string `json:"entry,omitempty"`
}

// Message is one record from the machine while it applies a request. Exactly
// one of its parts is set.
type Message struct {
	Waiting  *Waiting  `json:"waiting,omitempty"`
	Step     *StepNote `json:"step,omitempty"`
	Need     *Need     `json:"need,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Result   *Result   `json:"result,omitempty"`
}

// Waiting says that another run holds the machine's lock.
type Waiting struct {
	Holder string    `json:"holder"` // its Request.Owner
	Since  time.Time `json:"since"`
}

// StepNote tells that the step with this index begins (Done false) or has
// ended; Error is set if it failed.
type StepNote struct {
	Index int    `json:"index"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
	Note  string `json:"note,omitempty"` // what was found or done, for a person
}

// Need asks for the artefact of the step with this index.
type Need struct {
	Index int `json:"index"`
}

// Progress tells how many bytes of a step's artefact have arrived by download.
type Progress struct {
	Index int   `json:"index"`
	Bytes int64 `json:"bytes"`
	Total int64 `json:"total,omitempty"` // 0 if not known
}

// Result is the last message.
type Result struct {
	// Errors has one entry a step, empty for those that are done. A step that
	// was not begun says so.
	Errors []string `json:"errors"`

	// Locked is set when the lock was not had in time; no step was begun then.
	Locked *Waiting `json:"locked,omitempty"`

	// Error says why the request as a whole could not be done.
	Error string `json:"error,omitempty"`

	// State is the machine afterwards; nil after ActionRemoveSelf.
	State *State `json:"state,omitempty"`
}
