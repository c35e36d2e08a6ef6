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

// Schema is the version of the protocol that this package implements.
const Schema = 2

// MinReader is the oldest version of the protocol that is compatible with this one, in both
// directions.
const MinReader = 2

// Paths in rbee's directory on a machine, relative to [State.Home].
const (
	BinDir      = "bin"
	Binary      = "bin/rbee"
	PrevBinary  = "bin/rbee.prev"
	BinaryInfo  = "bin/rbee.json"      // [BinaryRecord] of Binary
	PrevInfo    = "bin/rbee.prev.json" // [BinaryRecord] of PrevBinary
	UploadGlob  = "bin/.*rbee-*"       // uploaded binaries before they are installed, complete or partial
	WorkersDir  = "workers"
	EntryPrefix = "rbee-worker-" // workers/rbee-worker-<type> is the entry point of a worker
	RunDir      = "run"
	LogsDir     = "logs"
	ToolsDir    = "tools"    // install tools, shared by all workers
	DownloadDir = "download" // artifacts of failed installs, complete or partial
	CacheDir    = "cache"    // unpacked wheels that Python environments link to
	LockFile    = "lock"
)

// ProbedCommands are the names of programs that engines may need, such as a compiler for the
// kernels that an engine compiles when it starts.
var ProbedCommands = []string{"cc", "c++", "nvcc", "hipcc", "git", "ffmpeg", "ninja"}

// State describes a machine and everything that rbee has installed on it.
type State struct {
	Schema    int `json:"schema"`
	MinReader int `json:"min_reader,omitempty"`

	Platform
	Hostname string `json:"hostname"`
	User     string `json:"user"`

	// Home is the absolute path of rbee's directory, which may not exist yet.
	Home string `json:"home"`

	// MissingDirs are the parent directories of Home that do not exist, outermost
	// first. An install creates them.
	MissingDirs []string `json:"missing_dirs,omitempty"`

	// DiskFree is the free space for Home in bytes; 0 if unknown.
	DiskFree uint64 `json:"disk_free"`

	// Noexec is the mount point of the file system of Home if it is mounted with
	// noexec; otherwise empty.
	Noexec string `json:"noexec,omitempty"`

	// Commands are the [ProbedCommands] on the machine's PATH: empty if the machine
	// has none of them, nil if it was not probed for them.
	Commands []string `json:"commands"`

	// Libraries are the [ProbedLibraries] that the machine's dynamic loader finds:
	// empty if the machine has none of them, nil if it was not probed for them.
	Libraries []string `json:"libraries"`

	// ROCm is the version of the ROCm installation, such as "7.2.1"; empty if none
	// was found or Libraries is nil.
	ROCm string `json:"rocm,omitempty"`

	// Devices are the accelerators; nil if they were not requested.
	Devices Devices `json:"devices,omitempty"`

	// DevicesKnown reports whether Devices was requested and could be read.
	DevicesKnown bool `json:"devices_known,omitempty"`

	// Rbee is the installed rbee; nil if rbee is not installed.
	Rbee *BinaryRecord `json:"rbee,omitempty"`

	// PreviousRbee is the previously installed rbee, which [ActionRollbackSelf]
	// restores; nil if the machine has none.
	PreviousRbee *BinaryRecord `json:"previous_rbee,omitempty"`

	// Broken is the reason why the installed rbee does not work; empty if it works
	// or rbee is not installed.
	Broken string `json:"broken,omitempty"`

	// Settings are the hive's current settings; nil if it has none yet.
	Settings *Settings `json:"settings,omitempty"`

	// Daemon is the state of the hive daemon.
	Daemon Daemon `json:"daemon"`

	// Wheels are the [WheelKey] values of the wheels in the machine's cache, which
	// an install does not download.
	Wheels []string `json:"wheels,omitempty"`

	// Workers are the installed workers, sorted by type.
	Workers []Worker `json:"workers,omitempty"`
}

// wheelKeyLen is the length of a [WheelKey].
const wheelKeyLen = 16

// WheelKey returns the prefix of a wheel's SHA-256 (hex) that identifies it in a [State].
func WheelKey(sum string) string { return strings.ToLower(sum[:min(len(sum), wheelKeyLen)]) }

// Platform describes the operating system, architecture and C library of a machine.
type Platform struct {
	OS   string `json:"os"`   // as GOOS
	Arch string `json:"arch"` // as GOARCH

	// Libc is "glibc", "musl" or empty (not Linux, or unknown). LibcVersion is its
	// version, such as "2.36".
	Libc        string `json:"libc,omitempty"`
	LibcVersion string `json:"libc_version,omitempty"`
}

// Key returns "os/arch", such as "linux/amd64".
func (p Platform) Key() string { return p.OS + "/" + p.Arch }

// Name returns the name of the platform for messages, such as "linux/amd64 (glibc)". It uses
// "any" for an unknown OS or architecture and omits an unknown C library.
func (p Platform) Name() string {
	name := cmp.Or(p.OS, "any") + "/" + cmp.Or(p.Arch, "any")
	if p.Libc != "" {
		name += " (" + p.Libc + ")"
	}
	return name
}

// ValidSHA256 reports whether s is a SHA-256 in hex, in lower or upper case.
func ValidSHA256(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == hex.EncodedLen(sha256.Size)
}

// StatePath is the path at which a hive daemon serves the machine's [State], with GET. The
// query parameters "deep" and "devices" correspond to the flags of `rbee hive inspect`.
const StatePath = "/v1/state"

// BinaryRecord is the record of an installed rbee binary.
type BinaryRecord struct {
	Version     string    `json:"version"`
	SHA256      string    `json:"sha256"` // of the binary, in hex
	Size        int64     `json:"size"`
	InstalledAt time.Time `json:"installed_at,omitzero"`

	// MadeDirs are the parent directories of rbee's directory that the install
	// created. An uninstall removes the empty directories.
	MadeDirs []string `json:"made_dirs,omitempty"`
}

// Settings is the part of a hive's configuration that is stored on the hive.
type Settings struct {
	Alias     string   `json:"alias"`
	HivePort  int      `json:"hive_port"`
	AutoStart bool     `json:"auto_start"`
	Labels    []string `json:"labels,omitempty"`
}

// Daemon is the state of the hive daemon.
type Daemon struct {
	// Running reports whether the daemon responds on its port.
	Running bool `json:"running"`

	PID     int       `json:"pid,omitempty"`
	Port    int       `json:"port,omitempty"`
	Version string    `json:"version,omitempty"`
	SHA256  string    `json:"sha256,omitempty"` // of the running binary, in hex
	Since   time.Time `json:"since,omitzero"`   // start time

	// Supervisor is the service manager that restarts the daemon: "systemd",
	// "launchd" or "none".
	Supervisor string `json:"supervisor,omitempty"`

	// Problem is the reason why a daemon whose process exists does not respond.
	Problem string `json:"problem,omitempty"`
}

// Detail converts d to the form that is used in reports.
func (d Daemon) Detail() *operations.DaemonDetail {
	return &operations.DaemonDetail{
		Running: d.Running, PID: d.PID, Port: d.Port, Version: d.Version,
		Since: d.Since, Supervisor: d.Supervisor, Problem: d.Problem,
	}
}

// Worker describes an installed worker type.
type Worker struct {
	Type string `json:"type"`

	// Version is the installed version. Requested is the version constraint of the
	// config at the time of the install, such as "latest". Both are empty for a
	// worker that rbee did not install.
	Version   string `json:"version,omitempty"`
	Requested string `json:"requested,omitempty"`

	// Variant is the name of the selected source of the recipe; may be empty.
	Variant string `json:"variant,omitempty"`

	// SHA256 is [WorkerInstall.SHA256] of the install. It is empty for a worker that
	// rbee did not install.
	SHA256 string `json:"sha256,omitempty"`

	// Previous is the previous version if the machine still has it; otherwise empty.
	Previous string `json:"previous,omitempty"`

	Bytes       int64     `json:"bytes,omitempty"`
	InstalledAt time.Time `json:"installed_at,omitzero"`

	// Unmanaged reports whether the worker has an entry point that rbee did not install.
	Unmanaged bool `json:"foreign,omitempty"`

	// Launch is [WorkerInstall.Launch] of the install.
	Launch *Launch `json:"launch,omitempty"`

	// LaunchDigest is the [Launch.Digest] of the recipe; empty if an earlier version
	// of rbee installed the worker.
	LaunchDigest string `json:"launch_digest,omitempty"`

	// Verify is the command that checks that the worker works; nil for none.
	Verify *Verify `json:"verify,omitempty"`

	// Corrupt describes a problem with the installed files; empty if none is known.
	// Only a deep inspection reads the files.
	Corrupt string `json:"corrupt,omitempty"`
}

// Request is the input of `rbee hive apply`, one line of JSON on stdin.
type Request struct {
	Schema    int `json:"schema"`
	MinReader int `json:"min_reader,omitempty"`

	// Owner identifies the client to other clients that wait for the lock, such as
	// "user@host, PID 123".
	Owner string `json:"owner"`

	// LockWait is the longest time to wait for the lock, in nanoseconds in JSON. If it
	// is zero or negative, the request fails when another run holds the lock.
	LockWait time.Duration `json:"lock_wait"`

	// Settings are stored on the machine before the first step; nil leaves the
	// current settings unchanged.
	Settings *Settings `json:"settings,omitempty"`

	// Steps run in order. If a step fails, the following steps still run, except after
	// a failed ActionInstallSelf.
	Steps []Step `json:"steps"`
}

// Action is the operation of a step.
type Action string

// The actions.
const (
	// ActionInstallSelf moves the running binary, which was uploaded under a temporary
	// name, to bin/rbee. The previous binary becomes bin/rbee.prev.
	ActionInstallSelf Action = "install_self"

	ActionInstallWorker Action = "install_worker" // installs, replaces or repairs a worker
	ActionRemoveWorker  Action = "remove_worker"
	ActionRollback      Action = "rollback_worker" // restores the previous version of a worker
	ActionRollbackSelf  Action = "rollback_self"   // swaps bin/rbee and bin/rbee.prev
	ActionStart         Action = "start"           // starts the daemon unless it already runs with the current binary and settings
	ActionStop          Action = "stop"            // stops the daemon
	ActionRemoveSelf    Action = "remove"          // stops the daemon and removes all files of rbee
)

// Step is one change to a machine.
type Step struct {
	Action Action `json:"action"`

	// Install describes the expected binary of ActionInstallSelf; nil for other
	// actions.
	Install *BinaryRecord `json:"install,omitempty"`

	// Worker is set for the actions on workers. Actions other than
	// ActionInstallWorker use only its Type.
	Worker *WorkerInstall `json:"worker,omitempty"`

	// Expect is the SHA-256 that the binary (for ActionInstallSelf) or the worker had
	// when the step was planned; empty if it was not installed. The machine rejects
	// the step if the current SHA-256 is neither Expect nor the result of the step.
	// Nil disables the check.
	Expect *string `json:"expect,omitempty"`
}

// CheckExpected returns a [*StateChangedError] if current is neither s.Expect nor target.
// current is the SHA-256 of the installed binary or worker, or empty if it is not installed.
// target is the SHA-256 of the binary or worker that the step installs.
func (s *Step) CheckExpected(current, target string) error {
	if s.Expect == nil || current == *s.Expect || current == target {
		return nil
	}
	subject := operations.Subject{}
	if s.Worker != nil {
		subject = operations.SubjectWorker.WithName(s.Worker.Type)
	}
	return &StateChangedError{Subject: subject}
}

// StateChangedError reports that a machine changed after a step was planned. Subject is the
// worker type, or empty for rbee itself.
type StateChangedError struct{ Subject operations.Subject }

func (e *StateChangedError) Error() string {
	name := "rbee"
	if e.Subject.Name != "" {
		name = e.Subject.Name
	}
	return "another run has changed " + name + " since the plan was made; make a new plan"
}

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *StateChangedError) ErrorCode() string { return string(operations.ReasonStateChanged) }

// ErrorSubject returns e.Subject, for [operations.SubjectOf].
func (e *StateChangedError) ErrorSubject() operations.Subject { return e.Subject }

// WorkerInstall describes the installation of a worker.
type WorkerInstall struct {
	Type      string `json:"type"`
	Version   string `json:"version"`
	Requested string `json:"requested"` // version constraint

	// Variant is the name of the selected source of the recipe; may be empty.
	Variant string `json:"variant,omitempty"`

	// Force reinstalls the worker even if the same version is installed and intact.
	Force bool `json:"force,omitempty"`

	// SHA256 identifies the payload: it is the [Digest] of the steps. It is empty for a
	// server that is built into rbee.
	SHA256 string `json:"sha256,omitempty"`

	// Steps create the payload, in order.
	Steps []InstallStep `json:"steps,omitempty"`

	// Entry is the slash-separated path of the program in the payload. It is empty for
	// a server that is built into rbee, and for a payload of a single file, which is
	// the program itself.
	Entry string `json:"entry,omitempty"`

	// Launch describes how to run the worker; nil selects the recipe of this worker
	// type that is built into the machine's rbee.
	Launch *Launch `json:"launch,omitempty"`

	// LaunchDigest is the [Launch.Digest] that the machine stores.
	LaunchDigest string `json:"launch_digest,omitempty"`

	// Verify must succeed before the install completes; nil for no check.
	Verify *Verify `json:"verify,omitempty"`
}

// StepKind is the kind of an install step.
type StepKind string

// The kinds of install steps.
const (
	StepBuiltin StepKind = "builtin" // runs a server that is built into the machine's rbee
	StepFile    StepKind = "file"    // copies one file
	StepArchive StepKind = "archive" // unpacks an archive
	StepPython  StepKind = "python"  // creates a virtual environment with packages
)

// InstallStep creates a part of a worker's payload.
type InstallStep struct {
	Kind StepKind `json:"kind"`

	// Position is the file and line of the step in the recipe, for errors, such as
	// "catalog/x.yaml:12". May be empty.
	Position string `json:"at,omitempty"`

	// Builtin is the name of the server of a StepBuiltin.
	Builtin string `json:"builtin,omitempty"`

	// Artifact is the file or archive of a StepFile or StepArchive.
	Artifact *Artifact `json:"artefact,omitempty"`

	// Format is the format of the archive. Strip is the number of leading directories
	// to remove from each path in it; the last element of a path always remains.
	Format Format `json:"format,omitempty"`
	Strip  int    `json:"strip,omitempty"`

	// Into is the slash-separated target path in the payload: of the file, or of the
	// directory for the archive or environment. If it is empty, the target is the
	// payload directory, and the machine chooses the name of a file.
	Into string `json:"into,omitempty"`

	// Python is the environment of a StepPython.
	Python *Python `json:"python,omitempty"`
}

// Artifact is a file that an install needs.
type Artifact struct {
	// Name is the base name of the file at its origin.
	Name string `json:"name"`

	// URL is the download URL; empty if the client sends the file.
	URL string `json:"url,omitempty"`

	// SHA256 (hex) and Size (bytes, 0 if unknown) describe the file as it is sent or
	// downloaded, before it is unpacked.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size,omitempty"`
}

// Python is a virtual environment. All its packages are installed from wheels: the machine
// does not resolve dependencies and does not build packages.
type Python struct {
	// UV creates the environment, Interpreter runs it. All workers share them.
	UV          Tool `json:"uv"`
	Interpreter Tool `json:"interpreter"`

	// Wheels are the packages and all their dependencies.
	Wheels []Artifact `json:"wheels"`
}

// Tool is a program that an install needs. The worker may need it too.
type Tool struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Artifact Artifact `json:"artefact"`
	Format   Format   `json:"format"`
	Strip    int      `json:"strip,omitempty"`
	Entry    string   `json:"entry"` // path of the program in the unpacked archive
}

// Artifacts returns all files that the step needs.
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

// Digest returns a SHA-256 in hex that identifies the payload that steps create. For a
// single file it is the checksum of the file; otherwise it is the checksum of a description
// of the steps. It is empty for a server that is built into rbee. It does not depend on the
// URLs of the artifacts or on the version of uv.
func Digest(steps []InstallStep, entry string) string {
	if len(steps) == 1 && steps[0].Kind == StepBuiltin {
		return ""
	}
	if sum, ok := singleArtifact(steps, StepFile); ok {
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

// singleArtifact returns the SHA-256 of the artifact of a payload with a single step. It
// returns false if there are several steps, if the step is of another kind, or if the step has
// a target inside the payload.
func singleArtifact(steps []InstallStep, kind StepKind) (sum string, ok bool) {
	if len(steps) != 1 || steps[0].Kind != kind || steps[0].Artifact == nil || steps[0].Into != "" {
		return "", false
	}
	return strings.ToLower(steps[0].Artifact.SHA256), true
}

// TotalSize returns the total size of the artifacts of steps, in bytes. Artifacts of unknown
// size count as 0.
func TotalSize(steps []InstallStep) (n int64) {
	for i := range steps {
		for _, a := range steps[i].Artifacts() {
			n += a.Size
		}
	}
	return n
}

// Format is the format of an archive.
type Format string

// The archive formats.
const (
	FormatTarGz  Format = "tar.gz"
	FormatTarZst Format = "tar.zst"
	FormatZip    Format = "zip"
)

// Message is a record that the machine sends while it applies a request. Exactly one field
// is set.
type Message struct {
	Waiting  *LockInfo   `json:"waiting,omitempty"`
	Step     *StepStatus `json:"step,omitempty"`
	Need     *Need       `json:"need,omitempty"`
	Progress *Progress   `json:"progress,omitempty"`
	Result   *Result     `json:"result,omitempty"`
}

// LockInfo describes the run that holds the machine's lock.
type LockInfo struct {
	Holder string    `json:"holder"` // Request.Owner of the run
	Since  time.Time `json:"since"`
}

// StepStatus reports that the step with this index has started (Done is false) or finished
// (Done is true). Error is set if the step failed.
type StepStatus struct {
	Index int    `json:"index"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
	Cause *Cause `json:"cause,omitempty"` // of Error
	Note  string `json:"note,omitempty"`  // result of the step, for the user
}

// Need requests an artifact of the step with this index.
type Need struct {
	Index  int    `json:"index"`
	SHA256 string `json:"sha256"`
}

// Result is the content of the last message.
type Result struct {
	// Errors has one entry per step: empty if the step succeeded, otherwise its error.
	// A step that was not started also has an error.
	Errors []string `json:"errors"`

	// Details contains the complete output of the program that caused a step to fail,
	// by the index of the step; nil if no program failed.
	Details map[int]string `json:"details,omitempty"`

	// Causes classifies Errors, by the index of the step; nil if no step failed.
	Causes map[int]Cause `json:"causes,omitempty"`

	// Locked is set if the machine could not acquire its lock within
	// [Request.LockWait]. In this case no step was started.
	Locked *LockInfo `json:"locked,omitempty"`

	// Error is the reason why the machine could not apply the request at all.
	Error string `json:"error,omitempty"`

	// Cause classifies Error.
	Cause *Cause `json:"cause,omitempty"`

	// State is the machine's state after the last step; nil after ActionRemoveSelf and
	// if Locked or Error is set.
	State *State `json:"state,omitempty"`
}
