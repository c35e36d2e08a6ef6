package operations

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"syscall"
)

// Reason states why an operation failed, more precisely than its [Code]. Every
// error of rbee has one. A connection of another program's own may add reasons to
// these; treat an unknown one as [ReasonFailed].
type Reason string

// General reasons.
const (
	ReasonFailed           Reason = "failed"            // no other reason is known; the message has the cause
	ReasonCanceled         Reason = "canceled"          // the caller canceled the operation
	ReasonUsage            Reason = "usage"             // the command line is invalid
	ReasonInvalidOperation Reason = "invalid_operation" // a field of the operation is invalid
	ReasonRemovedOperation Reason = "removed_operation" // the message names the replacement
	ReasonUnsupported      Reason = "unsupported"       // this rbee does not support the operation
	ReasonLocked           Reason = "locked"            // another run holds the lock of the hive
	ReasonStateChanged     Reason = "state_changed"     // the hive changed since the plan was made
	ReasonNewerHive        Reason = "newer_hive"        // the rbee of the hive is too new for this one
	ReasonNewerFile        Reason = "newer_file"        // a newer rbee wrote the file, and this one cannot read it
	ReasonExists           Reason = "exists"            // the file to write exists
	ReasonNotBegun         Reason = "not_begun"         // another failure ended the run before this step
	ReasonNotFound         Reason = "not_found"         // a file, URL path or job does not exist
	ReasonNoHome           Reason = "no_home"           // the user of this machine has no home directory
)

// Reasons of connections: to the machine of a hive, to a hive daemon, to a queen.
// Those that sshx reports have the same text there.
const (
	ReasonResolve        Reason = "resolve"          // the host name has no address
	ReasonRefused        Reason = "refused"          // nothing listens on the port
	ReasonTimeout        Reason = "timeout"          // no answer in time
	ReasonUnreachable    Reason = "unreachable"      // no route to the host
	ReasonAuth           Reason = "auth"             // the credentials were rejected
	ReasonHostKeyUnknown Reason = "host_key_unknown" // known_hosts has no key of the host
	ReasonHostKeyChanged Reason = "host_key_changed" // known_hosts has another key, or a revoked one
	ReasonProtocol       Reason = "protocol"         // the server does not speak SSH, or shares no algorithm
	ReasonLost           Reason = "lost"             // the connection broke
	ReasonSSHConfig      Reason = "config"           // ssh_config, known_hosts or a key file cannot be used
	ReasonProhibited     Reason = "prohibited"       // the SSH server does not allow forwarding
	ReasonDaemon         Reason = "daemon"           // the machine can be reached, its hive daemon does not answer
	ReasonConnecting     Reason = "connecting"       // the queen has not connected to the hive yet
	ReasonOtherProgram   Reason = "other_program"    // the response is not one of rbee
	ReasonOtherVersion   Reason = "other_version"    // the other side runs another version of rbee
	ReasonStopping       Reason = "stopping"         // the queen or the hive daemon is shutting down
	ReasonBusy           Reason = "busy"             // the queen or the hive daemon runs too many jobs
)

// Reasons of files on this machine.
const (
	ReasonConfigMissing   Reason = "config_missing"    // the config file does not exist
	ReasonConfigInvalid   Reason = "config_invalid"    // the config has errors; Problems lists them
	ReasonLockfileInvalid Reason = "lockfile_invalid"  // hives.lock is damaged
	ReasonRecordInvalid   Reason = "record_invalid"    // fleet.json, the record of installed hives, is damaged
	ReasonNoHives         Reason = "no_hives"          // the config has no hives
	ReasonUnknownHive     Reason = "unknown_hive"      // the config has no hive of that alias
	ReasonUnknownWorker   Reason = "unknown_worker"    // no hive of the config has that worker type
	ReasonUnknownRecipe   Reason = "unknown_recipe"    // the catalog has no recipe for that worker type
	ReasonInvalidRecipe   Reason = "invalid_recipe"    // a recipe has errors or cannot be read
	ReasonUnknownSSHHosts Reason = "unknown_ssh_hosts" // no host of ssh_config matches the pattern
)

// Reasons of the machine of a hive.
const (
	ReasonNotInstalled     Reason = "not_installed"     // rbee is not installed on the hive
	ReasonDiskFull         Reason = "disk_full"         // the disk or the quota is full
	ReasonPermissionDenied Reason = "permission_denied" // the user may not read or write a file
	ReasonReadOnly         Reason = "read_only"         // the file system is read-only
	ReasonPortInUse        Reason = "port_in_use"       // another program listens on the port
)

// Reasons of installs.
const (
	ReasonLookup            Reason = "lookup"              // a release server or package index did not answer
	ReasonNotLocked         Reason = "not_locked"          // hives.lock does not have the version, or has it for another recipe
	ReasonUnknownVersion    Reason = "unknown_version"     // the recipe has no such version
	ReasonUnfitMachine      Reason = "unfit_machine"       // the worker does not run on the hive's hardware or platform
	ReasonNoSolution        Reason = "no_solution"         // no set of packages meets the requirements
	ReasonNoBinary          Reason = "no_binary"           // there is no rbee for the platform of the hive
	ReasonOtherBuild        Reason = "other_build"         // the plan needs another build of rbee than this program has
	ReasonChecksum          Reason = "checksum"            // the content differs from its checksum or size
	ReasonVerifyFailed      Reason = "verify_failed"       // the verify command of the worker failed
	ReasonNoPreviousVersion Reason = "no_previous_version" // the hive has no earlier version to roll back to
)

// Reasons of workers.
const (
	ReasonWorkerNotInstalled Reason = "worker_not_installed" // the worker type is not installed on the hive
	ReasonWorkerDamaged      Reason = "worker_damaged"       // files of the installed worker type changed
	ReasonWorkerNotFound     Reason = "worker_not_found"     // the hive has no such worker process
	ReasonWorkerAmbiguous    Reason = "worker_ambiguous"     // several worker processes match
	ReasonWorkerNotReady     Reason = "worker_not_ready"     // the worker process is loading, stopping or failed
	ReasonWorkerFailed       Reason = "worker_failed"        // the worker process did not answer, or answered with an error
	ReasonNoWorker           Reason = "no_worker"            // no ready worker serves the model
	ReasonNoWorkflowWorker   Reason = "no_workflow_worker"   // no ready worker runs workflows
	ReasonRestarting         Reason = "restarting"           // the worker that served the model restarts soon
	ReasonUnfitModel         Reason = "unfit_model"          // the worker cannot serve a model of that form
)

// Reasons of accelerators.
const (
	ReasonNoRoom          Reason = "no_room"          // too little free memory, enough without idle workers that were started on demand
	ReasonTooLarge        Reason = "too_large"        // too little memory even without such workers
	ReasonDeviceNotFound  Reason = "device_not_found" // the hive has no such device
	ReasonDeviceAmbiguous Reason = "device_ambiguous" // devices of several vendors have that index
	ReasonDeviceUnusable  Reason = "device_unusable"  // the worker cannot use the devices of the hive
)

// Reasons of models.
const (
	ReasonModelNotFound   Reason = "model_not_found"  // the model is not on the hive
	ReasonModelUnknown    Reason = "model_unknown"    // the hub has no such repository, revision or file
	ReasonModelAmbiguous  Reason = "model_ambiguous"  // several files or models match
	ReasonModelGated      Reason = "model_gated"      // the hub requires a token, or a token with more rights
	ReasonModelIncomplete Reason = "model_incomplete" // a download of the model did not finish
	ReasonModelInUse      Reason = "model_in_use"     // a worker serves the model
	ReasonModelInvalid    Reason = "model_invalid"    // the hub lists files that rbee cannot store
	ReasonDownload        Reason = "download"         // the server did not send the file
)

// Reasons of requests that the queen's HTTP server rejects.
const (
	ReasonHostRefused          Reason = "host_refused"           // the Host header is not a name of the server
	ReasonOriginRefused        Reason = "origin_refused"         // the Origin header is not allowed
	ReasonUnsupportedMediaType Reason = "unsupported_media_type" // the Content-Type is not application/json
	ReasonBodyTooLarge         Reason = "body_too_large"         // the request body is larger than the limit
	ReasonKeysRequired         Reason = "keys_required"          // the server has no keys and is not limited to loopback
	ReasonMissingAPIKey        Reason = "missing_api_key"        // the request has no key
	ReasonKeysUnreadable       Reason = "keys_unreadable"        // the server cannot read its keys
	ReasonInvalidAPIKey        Reason = "invalid_api_key"        // the server does not know the key
	ReasonInsufficientScope    Reason = "insufficient_scope"     // the key does not allow the request
)

// Reasons returns every reason of this list.
func Reasons() []Reason { return slices.Clone(allReasons[:]) }

var allReasons = [...]Reason{
	ReasonFailed, ReasonCanceled, ReasonUsage, ReasonInvalidOperation, ReasonRemovedOperation, ReasonUnsupported, ReasonLocked, ReasonStateChanged, ReasonNewerHive, ReasonNewerFile, ReasonExists, ReasonNotBegun, ReasonNotFound, ReasonNoHome,
	ReasonResolve, ReasonRefused, ReasonTimeout, ReasonUnreachable, ReasonAuth, ReasonHostKeyUnknown, ReasonHostKeyChanged, ReasonProtocol, ReasonLost,
	ReasonSSHConfig, ReasonProhibited, ReasonDaemon, ReasonConnecting, ReasonOtherProgram, ReasonOtherVersion, ReasonStopping, ReasonBusy,
	ReasonConfigMissing, ReasonConfigInvalid, ReasonLockfileInvalid, ReasonRecordInvalid, ReasonNoHives, ReasonUnknownHive, ReasonUnknownWorker, ReasonUnknownRecipe,
	ReasonInvalidRecipe, ReasonUnknownSSHHosts,
	ReasonNotInstalled, ReasonDiskFull, ReasonPermissionDenied, ReasonReadOnly, ReasonPortInUse,
	ReasonLookup, ReasonNotLocked, ReasonUnknownVersion, ReasonUnfitMachine, ReasonNoSolution, ReasonNoBinary, ReasonOtherBuild, ReasonChecksum, ReasonVerifyFailed, ReasonNoPreviousVersion,
	ReasonWorkerNotInstalled, ReasonWorkerDamaged, ReasonWorkerNotFound, ReasonWorkerAmbiguous, ReasonWorkerNotReady, ReasonWorkerFailed,
	ReasonNoWorker, ReasonNoWorkflowWorker, ReasonRestarting, ReasonUnfitModel,
	ReasonNoRoom, ReasonTooLarge, ReasonDeviceNotFound, ReasonDeviceAmbiguous, ReasonDeviceUnusable,
	ReasonModelNotFound, ReasonModelUnknown, ReasonModelAmbiguous, ReasonModelGated, ReasonModelIncomplete, ReasonModelInUse, ReasonModelInvalid, ReasonDownload,
	ReasonHostRefused, ReasonOriginRefused, ReasonUnsupportedMediaType, ReasonBodyTooLarge, ReasonKeysRequired, ReasonMissingAPIKey, ReasonKeysUnreadable,
	ReasonInvalidAPIKey, ReasonInsufficientScope,
}

// ReasonOf returns the reason of the first [*Error] in err's chain that has one,
// else the ErrorCode of the first error that has such a method, as the errors of a
// connection do, else the reason of an error of the operating system. An ErrorCode that
// is [ReasonFailed] does not count. It returns [ReasonFailed] for any other error, and ""
// for nil.
func ReasonOf(err error) Reason {
	var own *Error
	var coded interface{ ErrorCode() string }
	switch {
	case err == nil:
		return ""
	case errors.As(err, &own) && own.Reason != "":
		return own.Reason
	case errors.As(err, &coded) && coded.ErrorCode() != "" && coded.ErrorCode() != string(ReasonFailed):
		return Reason(coded.ErrorCode())
	case errors.Is(err, context.Canceled):
		return ReasonCanceled
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ReasonDiskFull
	case errors.Is(err, syscall.EROFS):
		return ReasonReadOnly
	case errors.Is(err, fs.ErrPermission):
		return ReasonPermissionDenied
	case errors.Is(err, syscall.EADDRINUSE):
		return ReasonPortInUse
	case errors.Is(err, fs.ErrNotExist):
		return ReasonNotFound
	default:
		return ReasonFailed
	}
}

// ConnectionReason returns [ReasonOf] for an error of a connection to a hive or to
// a queen, and classifies errors of the network too. Errors of other connections,
// such as a download, are no reason to check the address of a hive.
func ConnectionReason(err error) Reason {
	var dns *net.DNSError
	var timeout net.Error
	switch reason := ReasonOf(err); {
	case reason != ReasonFailed:
		return reason
	case errors.Is(err, syscall.ECONNREFUSED):
		return ReasonRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return ReasonUnreachable
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return ReasonTimeout
	case errors.As(err, &dns):
		return ReasonResolve
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ReasonLost
	default:
		return reason
	}
}

// SubjectKind names what the subject of an error is.
type SubjectKind string

// The kinds of subjects.
const (
	SubjectHive    SubjectKind = "hive"    // named by its alias
	SubjectWorker  SubjectKind = "worker"  // a worker type, or the id of a worker process
	SubjectModel   SubjectKind = "model"   // named by its reference
	SubjectDevice  SubjectKind = "device"  // an accelerator
	SubjectFile    SubjectKind = "file"    // named by its path
	SubjectQueen   SubjectKind = "queen"   // named by its URL
	SubjectAddress SubjectKind = "address" // of an HTTP request: a URL or a path of one
	SubjectJob     SubjectKind = "job"     // named by its id
	SubjectPort    SubjectKind = "port"    // named by its number
)

// Named returns the subject of kind k with a name.
func (k SubjectKind) Named(name string) Subject { return Subject{Kind: k, Name: name} }

// Subject identifies what an error concerns.
type Subject struct {
	Kind SubjectKind `json:"kind"`
	Name string      `json:"name,omitempty"`
}

// SubjectOf returns the subject of the first [*Error] in err's chain, else the
// ErrorSubject of the first error that has such a method; the zero value for any other
// error.
func SubjectOf(err error) Subject {
	var own *Error
	var named interface{ ErrorSubject() Subject }
	switch {
	case errors.As(err, &own):
		return own.Subject
	case errors.As(err, &named):
		return named.ErrorSubject()
	default:
		return Subject{}
	}
}
