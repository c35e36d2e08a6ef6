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
// # Artifacts
//
// A step may have artifacts without an address, which come from the queen's side.
// The machine asks for one with a [Message] that has Need set, when it is ready
// to take it; [SendBlob] answers on the machine's stdin and [BlobReader] reads it
// there. A machine that has the bytes already never asks.
//
// # Ends
//
// End of stdin tells the machine that nobody waits any more: it stops, cleans up
// what it was doing and leaves what was done.
package wire

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// Schema is the version of this protocol. A machine whose rbee speaks another
// one is treated as outdated and gets a new rbee before anything else.
const Schema = 2

// MinReader is the oldest schema whose rbee understands what this one sends, and the
// oldest one that this rbee understands.
const MinReader = 2

// Places below rbee's directory on a machine.
const (
	BinDir      = "bin"
	Binary      = "bin/rbee"
	PrevBinary  = "bin/rbee.prev"
	BinaryInfo  = "bin/rbee.json"      // an [Installed]
	PrevInfo    = "bin/rbee.prev.json" // the [Installed] of PrevBinary
	UploadGlob  = "bin/.*rbee-*"       // uploaded binaries that are not in place yet, whole or not
	WorkersDir  = "workers"
	EntryPrefix = "rbee-worker-" // workers/rbee-worker-<type> is a worker's entry point
	RunDir      = "run"
	LogsDir     = "logs"
	ToolsDir    = "tools"    // what installs need, once for all workers
	DownloadDir = "download" // artifacts of an install that did not end well, whole or not
	CacheDir    = "cache"    // unpacked wheels, which environments are linked from
	LockFile    = "lock"
)

// ProbedCommands are the programs that an engine may need besides its own files,
// such as a compiler for what it compiles when it starts.
var ProbedCommands = []string{"cc", "c++", "nvcc", "hipcc", "git", "ffmpeg", "ninja"}

// State is what a machine says of itself.
type State struct {
	Schema    int `json:"schema"`
	MinReader int `json:"min_reader,omitempty"`

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

	// Noexec is the mount point that Home lies on, if programs may not be run
	// there; else empty.
	Noexec string `json:"noexec,omitempty"`

	// Commands are those of [ProbedCommands] that are on the machine's PATH: empty
	// for a machine that has none of them, nil where nobody looked.
	Commands []string `json:"commands"`

	// Libraries are those of [ProbedLibraries] that the machine's dynamic loader
	// finds: empty for a machine that has none of them, nil where nobody looked.
	Libraries []string `json:"libraries"`

	// ROCm is the version of the ROCm installation, such as "7.2.1"; empty if none
	// was found, or if Libraries is nil and so nobody looked.
	ROCm string `json:"rocm,omitempty"`

	// Devices are the accelerators; nil if they were not asked for.
	Devices Devices `json:"devices,omitempty"`

	// DevicesKnown tells whether Devices was asked for and answered.
	DevicesKnown bool `json:"devices_known,omitempty"`

	// Rbee is the rbee installed there; nil if there is none.
	Rbee *Installed `json:"rbee,omitempty"`

	// PreviousRbee is the rbee that was installed before, which [ActionRollbackSelf]
	// restores; nil if the machine has none.
	PreviousRbee *Installed `json:"previous_rbee,omitempty"`

	// Broken says why the installed rbee does not work; empty if it does or
	// there is none.
	Broken string `json:"broken,omitempty"`

	// Settings are what the hive was last told; nil if never.
	Settings *Settings `json:"settings,omitempty"`

	// Daemon is the hive daemon.
	Daemon Daemon `json:"daemon"`

	// Wheels are the wheels that the machine has unpacked in its cache, each as its
	// [WheelKey]. An install needs no download of them.
	Wheels []string `json:"wheels,omitempty"`

	// Workers are the worker types installed, sorted by type.
	Workers []Worker `json:"workers,omitempty"`
}

// wheelKeyLen is the length of a [WheelKey].
const wheelKeyLen = 16

// WheelKey returns the part of a wheel's SHA-256 (hex) by which a [State] names it.
func WheelKey(sum string) string { return strings.ToLower(sum[:min(len(sum), wheelKeyLen)]) }

// Platform is what a binary must fit.
type Platform struct {
	OS   string `json:"os"`   // as GOOS
	Arch string `json:"arch"` // as GOARCH

	// Libc is "glibc", "musl" or empty (not Linux, or not known), and
	// LibcVersion its version, such as "2.36".
	Libc        string `json:"libc,omitempty"`
	LibcVersion string `json:"libc_version,omitempty"`
}

// Key returns "os/arch", such as "linux/amd64".
func (p Platform) Key() string { return p.OS + "/" + p.Arch }

// Name returns the platform for messages: "linux/amd64 (glibc)", with "any" for what is
// not known, and without the C library if that is not known.
func (p Platform) Name() string {
	name := cmp.Or(p.OS, "any") + "/" + cmp.Or(p.Arch, "any")
	if p.Libc != "" {
		name += " (" + p.Libc + ")"
	}
	return name
}

// ValidSHA256 reports whether s is a SHA-256 in hexadecimal, in lower or upper case.
func ValidSHA256(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == hex.EncodedLen(sha256.Size)
}

// StatePath is where a daemon tells the machine's [State], with GET; "deep" and
// "devices" in the query are as for `rbee hive inspect`.
const StatePath = "/v1/state"

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

// Detail returns the state of the daemon as reports contain it.
func (d Daemon) Detail() *operations.DaemonDetail {
	return &operations.DaemonDetail{
		Running: d.Running, PID: d.PID, Port: d.Port, Version: d.Version,
		Since: d.Since, Supervisor: d.Supervisor, Problem: d.Problem,
	}
}

// Worker is a worker type that is installed.
type Worker struct {
	Type string `json:"type"`

	// Version is what is installed and Requested what the config asked for
	// then, such as "latest". Both are empty for a worker that rbee did not
	// install.
	Version   string `json:"version,omitempty"`
	Requested string `json:"requested,omitempty"`

	// Variant is the name of the recipe's source that was chosen; may be empty.
	Variant string `json:"variant,omitempty"`

	// SHA256 tells what was installed: see [WorkerInstall]. Empty for a worker
	// that rbee did not install.
	SHA256 string `json:"sha256,omitempty"`

	// Previous is the version before, which is still there; empty if none is.
	Previous string `json:"previous,omitempty"`

	Bytes       int64     `json:"bytes,omitempty"`
	InstalledAt time.Time `json:"installed_at,omitzero"`

	// Foreign means that the entry point is there and rbee did not install it.
	Foreign bool `json:"foreign,omitempty"`

	// Launch is how it is run, as it was installed; nil where nothing was said.
	Launch *Launch `json:"launch,omitempty"`

	// LaunchDigest is the [Launch.Digest] of the recipe; empty in the record of an
	// earlier rbee.
	LaunchDigest string `json:"launch_digest,omitempty"`

	// Verify is the command that proves that it works; nil for none.
	Verify *Verify `json:"verify,omitempty"`

	// Corrupt says what is wrong with the installed files; empty if nothing is
	// known to be. Files are only read again when a deep inspection is asked for.
	Corrupt string `json:"corrupt,omitempty"`
}

// Request is what `rbee hive apply` is to do, one JSON line on stdin.
type Request struct {
	Schema    int `json:"schema"`
	MinReader int `json:"min_reader,omitempty"`

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
	ActionRollback      Action = "rollback_worker" // back to the version before; only the Type of the worker counts
	ActionRollbackSelf  Action = "rollback_self"   // exchanges bin/rbee and bin/rbee.prev
	ActionStart         Action = "start"           // starts the daemon; one that runs with the right binary and settings is left alone
	ActionStop          Action = "stop"            // stops the daemon
	ActionRemoveSelf    Action = "remove"          // stops the daemon and removes everything of rbee
)

// Step is one thing to do.
type Step struct {
	Action Action `json:"action"`

	// Install is set for ActionInstallSelf: what the binary must turn out to be.
	Install *Installed `json:"install,omitempty"`

	// Worker is set for the actions on workers; only its Type counts but for
	// ActionInstallWorker.
	Worker *WorkerInstall `json:"worker,omitempty"`

	// Expect is the SHA-256 of what is installed when the step was planned: of rbee for
	// ActionInstallSelf, otherwise of the worker type; empty if nothing was. The machine
	// refuses the step if it finds something else, unless that is what the step installs.
	// Nil expects nothing.
	Expect *string `json:"expect,omitempty"`
}

// CheckExpected returns a [*StateChangedError] if have, the SHA-256 of what is installed
// (empty for nothing), is neither what the step expects nor target, what it results in.
func (s *Step) CheckExpected(have, target string) error {
	if s.Expect == nil || have == *s.Expect || have == target {
		return nil
	}
	subject := operations.Subject{}
	if s.Worker != nil {
		subject = operations.SubjectWorker.Named(s.Worker.Type)
	}
	return &StateChangedError{Subject: subject}
}

// StateChangedError reports a step that was planned for another state of the machine.
type StateChangedError struct{ Subject operations.Subject }

func (e *StateChangedError) Error() string {
	what := "rbee"
	if e.Subject.Name != "" {
		what = e.Subject.Name
	}
	return "another run has changed " + what + " since the plan was made; make a new plan"
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *StateChangedError) ErrorCode() string { return string(operations.ReasonStateChanged) }

// ErrorSubject returns the worker type, for [operations.SubjectOf]; nothing for rbee.
func (e *StateChangedError) ErrorSubject() operations.Subject { return e.Subject }

// WorkerInstall says how a worker is installed.
type WorkerInstall struct {
	Type      string `json:"type"`
	Version   string `json:"version"`
	Requested string `json:"requested"`

	// Variant is the name of the recipe's source that was chosen; may be empty.
	Variant string `json:"variant,omitempty"`

	// Force installs again even if the same is installed and whole.
	Force bool `json:"force,omitempty"`

	// SHA256 tells what is installed from anything else: [Digest] of the steps.
	// Empty for a server inside rbee, which the machine's own rbee stands for.
	SHA256 string `json:"sha256,omitempty"`

	// Steps make the payload, in order.
	Steps []InstallStep `json:"steps,omitempty"`

	// Entry is the slash-separated path of the program in the payload. Empty for
	// a server inside rbee, and for a single file, which is the program itself.
	Entry string `json:"entry,omitempty"`

	// Launch says how the worker is run; nil leaves it to the recipe of that
	// type that is built into the machine's rbee.
	Launch *Launch `json:"launch,omitempty"`

	// LaunchDigest is the [Launch.Digest] that the machine stores.
	LaunchDigest string `json:"launch_digest,omitempty"`

	// Verify must pass before the worker is put in place; nil for none.
	Verify *Verify `json:"verify,omitempty"`
}

// StepKind is what an install step does.
type StepKind string

// The kinds of install steps.
const (
	StepBuiltin StepKind = "builtin" // the machine's own rbee is the program
	StepFile    StepKind = "file"    // one file as it is
	StepArchive StepKind = "archive" // unpacked
	StepPython  StepKind = "python"  // a virtual environment with packages
)

// InstallStep makes a part of a worker's payload.
type InstallStep struct {
	Kind StepKind `json:"kind"`

	// At is the place in the recipe, for errors: "catalog/x.yaml:12". May be empty.
	At string `json:"at,omitempty"`

	// Builtin is the name of a server inside rbee, for StepBuiltin.
	Builtin string `json:"builtin,omitempty"`

	// Artifact is the file or the archive.
	Artifact *Artifact `json:"artefact,omitempty"`

	// Format is how an archive is packed, and Strip how many directories at the
	// beginning of each name in it are left out, if it has so many.
	Format Format `json:"format,omitempty"`
	Strip  int    `json:"strip,omitempty"`

	// Into is a slash-separated path in the payload: of the file itself, or of
	// the directory that an archive or an environment fills. Empty is the
	// payload itself, and for a file a name of the machine's choice.
	Into string `json:"into,omitempty"`

	Python *Python `json:"python,omitempty"`
}

// Artifact is a file that an install needs.
type Artifact struct {
	// Name is what it is called where it comes from.
	Name string `json:"name"`

	// URL is where the machine downloads it; empty if the queen's side sends it.
	URL string `json:"url,omitempty"`

	// SHA256 (hex) and Size (bytes, 0 if not known) are those of the file as it
	// is sent or downloaded, before unpacking.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size,omitempty"`
}

// Python is a virtual environment: an interpreter and packages, all from wheels,
// so that nothing is resolved and nothing is built on the machine.
type Python struct {
	// UV makes the environment, Interpreter runs it. They lie beside the workers,
	// once for all that need them.
	UV          Tool `json:"uv"`
	Interpreter Tool `json:"interpreter"`

	// Wheels are the packages, with all that they depend on.
	Wheels []Artifact `json:"wheels"`
}

// Tool is a program that an install needs, and maybe the worker too.
type Tool struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Artifact Artifact `json:"artefact"`
	Format   Format   `json:"format"`
	Strip    int      `json:"strip,omitempty"`
	Entry    string   `json:"entry"` // path of the program once it is unpacked
}

// Artifacts lists all files that a step needs.
func (s *InstallStep) Artifacts() []*Artifact {
	var all []*Artifact
	if s.Artifact != nil {
		all = append(all, s.Artifact)
	}
	if p := s.Python; p != nil {
		all = append(all, &p.UV.Artifact, &p.Interpreter.Artifact)
		for i := range p.Wheels {
			all = append(all, &p.Wheels[i])
		}
	}
	return all
}

// Digest is what tells one install from another, in hex: the SHA-256 of a single
// file, that of a description of anything else, and empty for a server inside
// rbee. It does not depend on where artifacts come from, nor on the uv that
// installs them.
func Digest(steps []InstallStep, entry string) string {
	if len(steps) == 1 && steps[0].Kind == StepBuiltin {
		return ""
	}
	if sum, ok := single(steps, StepFile); ok {
		return sum
	}
	h := sha256.New()
	for _, s := range steps {
		fmt.Fprintf(h, "%s %q %s %d %q\n", s.Kind, s.Builtin, s.Format, s.Strip, s.Into)
		if s.Artifact != nil {
			fmt.Fprintln(h, strings.ToLower(s.Artifact.SHA256))
		}
		if s.Python != nil {
			fmt.Fprintln(h, strings.ToLower(s.Python.Interpreter.Artifact.SHA256))
			for _, w := range s.Python.Wheels {
				fmt.Fprintln(h, strings.ToLower(w.SHA256))
			}
		}
	}
	fmt.Fprintf(h, "%q\n", entry)
	return hex.EncodeToString(h.Sum(nil))
}

// single is the SHA-256 of the one artifact that an install of one step of a kind
// puts into the payload itself.
func single(steps []InstallStep, kind StepKind) (sum string, ok bool) {
	if len(steps) != 1 || steps[0].Kind != kind || steps[0].Artifact == nil || steps[0].Into != "" {
		return "", false
	}
	return strings.ToLower(steps[0].Artifact.SHA256), true
}

// Bytes is how much an install transfers at most, as far as sizes are known.
func Bytes(steps []InstallStep) (n int64) {
	for i := range steps {
		for _, a := range steps[i].Artifacts() {
			n += a.Size
		}
	}
	return n
}

// Format is how an archive is packed.
type Format string

// The formats.
const (
	FormatTarGz  Format = "tar.gz"
	FormatTarZst Format = "tar.zst"
	FormatZip    Format = "zip"
)

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
	Cause *Cause `json:"cause,omitempty"` // of Error
	Note  string `json:"note,omitempty"`  // what was found or done, for a person
}

// Need asks for an artifact of the step with this index.
type Need struct {
	Index  int    `json:"index"`
	SHA256 string `json:"sha256"`
}

// Result is the last message.
type Result struct {
	// Errors has one entry a step, empty for those that are done. A step that
	// was not begun says so.
	Errors []string `json:"errors"`

	// Details has the complete output of the program that a step failed with, by the
	// index of the step; nil if no step has one.
	Details map[int]string `json:"details,omitempty"`

	// Causes classifies Errors, by the index of the step; nil if no step failed.
	Causes map[int]Cause `json:"causes,omitempty"`

	// Locked is set when the lock was not had in time; no step was begun then.
	Locked *Waiting `json:"locked,omitempty"`

	// Error says why the request as a whole could not be done.
	Error string `json:"error,omitempty"`

	// Cause classifies Error.
	Cause *Cause `json:"cause,omitempty"`

	// State is the machine afterwards; nil after ActionRemoveSelf.
	State *State `json:"state,omitempty"`
}
