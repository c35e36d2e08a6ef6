package operations

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"syscall"
)

// Reason is the specific cause of an error, within its [Code]. Every error of rbee has
// one. An error from a custom connection may have another reason than these constants. Treat
// an unknown reason as [ReasonFailed].
type Reason string

// General reasons.
const (
	ReasonFailed           Reason = "failed"            // no specific reason is known
	ReasonCanceled         Reason = "canceled"          // the caller canceled the operation
	ReasonUsage            Reason = "usage"             // the command line is invalid
	ReasonInvalidOperation Reason = "invalid_operation" // a field of the operation is invalid
	ReasonRemovedOperation Reason = "removed_operation" // the operation was removed from rbee
	ReasonUnsupported      Reason = "unsupported"       // this rbee does not support the operation
	ReasonLocked           Reason = "locked"            // another run holds the lock of the hive
	ReasonStateChanged     Reason = "state_changed"     // the hive has changed since the plan was computed
	ReasonNewerHive        Reason = "newer_hive"        // the rbee of the hive is too new for this rbee
	ReasonNewerFile        Reason = "newer_file"        // a newer rbee wrote the file in an unknown format
	ReasonExists           Reason = "exists"            // the output file already exists
	ReasonNotStarted       Reason = "not_begun"         // the run stopped before this step because of another failure
	ReasonNotFound         Reason = "not_found"         // the file, URL path or job does not exist
	ReasonNoHome           Reason = "no_home"           // the current user has no home directory
)

// Reasons why a connection to the machine of a hive, a hive daemon or a queen fails. The
// reasons of package sshx have the same values.
const (
	ReasonResolve         Reason = "resolve"          // the host name has no address
	ReasonRefused         Reason = "refused"          // the host refused the connection
	ReasonTimeout         Reason = "timeout"          // the host or the server did not respond in time
	ReasonUnreachable     Reason = "unreachable"      // no route to the host
	ReasonAuth            Reason = "auth"             // the server rejected the credentials
	ReasonHostKeyUnknown  Reason = "host_key_unknown" // known_hosts has no key for the host
	ReasonHostKeyChanged  Reason = "host_key_changed" // known_hosts has a different key for the host, or the key is revoked
	ReasonProtocol        Reason = "protocol"         // the server is not an SSH server, or supports no common algorithm
	ReasonLost            Reason = "lost"             // the connection broke
	ReasonSSHConfig       Reason = "config"           // ssh_config, known_hosts or a key file is invalid or cannot be read
	ReasonProhibited      Reason = "prohibited"       // the SSH server does not allow forwarding
	ReasonDaemon          Reason = "daemon"           // the machine is reachable but its hive daemon does not respond
	ReasonConnecting      Reason = "connecting"       // the queen has not connected to the hive yet
	ReasonNotRbee         Reason = "other_program"    // the server is not rbee
	ReasonVersionMismatch Reason = "other_version"    // the server is an incompatible version of rbee
	ReasonStopping        Reason = "stopping"         // the queen or the hive daemon is shutting down
	ReasonBusy            Reason = "busy"             // the queen or the hive daemon is running too many jobs
)

// Reasons that concern local files, such as the config.
const (
	ReasonConfigMissing   Reason = "config_missing"    // the config file does not exist
	ReasonConfigInvalid   Reason = "config_invalid"    // the config file is invalid; Error.Problems lists the problems
	ReasonLockfileInvalid Reason = "lockfile_invalid"  // hives.lock is invalid
	ReasonRecordInvalid   Reason = "record_invalid"    // the record of installed hives is invalid
	ReasonNoHives         Reason = "no_hives"          // the config has no hives
	ReasonUnknownHive     Reason = "unknown_hive"      // the config has no hive with this alias
	ReasonUnknownWorker   Reason = "unknown_worker"    // the config has no hive with this worker type
	ReasonUnknownRecipe   Reason = "unknown_recipe"    // the catalog has no recipe for the worker type
	ReasonInvalidRecipe   Reason = "invalid_recipe"    // the recipe is invalid or cannot be read
	ReasonUnknownSSHHosts Reason = "unknown_ssh_hosts" // ssh_config has no host that matches the pattern
)

// Reasons that concern the machine of a hive.
const (
	ReasonNotInstalled     Reason = "not_installed"     // rbee is not installed on the hive
	ReasonDiskFull         Reason = "disk_full"         // the disk or the quota is full
	ReasonPermissionDenied Reason = "permission_denied" // the user has no permission to read or write the file
	ReasonReadOnly         Reason = "read_only"         // the file system is read-only
	ReasonPortInUse        Reason = "port_in_use"       // another program listens on the port
)

// Reasons why an installation fails.
const (
	ReasonLookup              Reason = "lookup"              // the release server or package index did not respond
	ReasonNotLocked           Reason = "not_locked"          // hives.lock has no entry for this version and recipe
	ReasonUnknownVersion      Reason = "unknown_version"     // the recipe has no such version
	ReasonIncompatibleMachine Reason = "unfit_machine"       // the worker does not support the hardware or platform of the hive
	ReasonNoSolution          Reason = "no_solution"         // the package requirements have no solution
	ReasonNoBinary            Reason = "no_binary"           // no rbee binary is available for the platform of the hive
	ReasonBuildMismatch       Reason = "other_build"         // the plan requires a different build of rbee
	ReasonChecksum            Reason = "checksum"            // the checksum or size of a file does not match
	ReasonVerifyFailed        Reason = "verify_failed"       // the verify command of the worker failed
	ReasonNoPreviousVersion   Reason = "no_previous_version" // the hive has no previous version to roll back to
)

// Reasons that concern workers.
const (
	ReasonWorkerNotInstalled Reason = "worker_not_installed" // the worker type is not installed on the hive
	ReasonWorkerDamaged      Reason = "worker_damaged"       // the installed files of the worker type were modified
	ReasonWorkerNotFound     Reason = "worker_not_found"     // the hive has no such worker process
	ReasonWorkerAmbiguous    Reason = "worker_ambiguous"     // the worker ID matches several worker processes
	ReasonWorkerNotReady     Reason = "worker_not_ready"     // the worker process is loading, draining or failed
	ReasonWorkerFailed       Reason = "worker_failed"        // the worker process did not respond, or responded with an error
	ReasonNoWorker           Reason = "no_worker"            // no ready worker serves the model
	ReasonNoWorkflowWorker   Reason = "no_workflow_worker"   // no ready worker supports workflows
	ReasonRestarting         Reason = "restarting"           // the worker that served the model is about to restart
	ReasonIncompatibleModel  Reason = "unfit_model"          // the worker does not support the format of the model
)

// Reasons that concern accelerators.
const (
	ReasonInsufficientMemory Reason = "no_room"          // the free memory is insufficient until idle on-demand workers are stopped
	ReasonTooLarge           Reason = "too_large"        // the memory is insufficient even without idle on-demand workers
	ReasonDeviceNotFound     Reason = "device_not_found" // the hive has no such device
	ReasonDeviceAmbiguous    Reason = "device_ambiguous" // the index matches devices of several vendors
	ReasonDeviceUnusable     Reason = "device_unusable"  // the worker cannot use the devices of the hive
)

// Reasons that concern models.
const (
	ReasonModelNotFound   Reason = "model_not_found"  // the model is not on the hive
	ReasonModelUnknown    Reason = "model_unknown"    // the model hub has no such repository, revision or file
	ReasonModelAmbiguous  Reason = "model_ambiguous"  // the name matches several models or files
	ReasonModelGated      Reason = "model_gated"      // the model hub requires a token, or a token with more permissions
	ReasonModelIncomplete Reason = "model_incomplete" // the download of the model is incomplete
	ReasonModelInUse      Reason = "model_in_use"     // a worker serves the model
	ReasonModelInvalid    Reason = "model_invalid"    // the repository contains files that rbee cannot store
	ReasonDownload        Reason = "download"         // the server did not send the file
)

// Reasons why the HTTP server of the queen rejects a request.
const (
	ReasonHostRefused          Reason = "host_refused"           // the Host header is not a name of the server
	ReasonOriginRefused        Reason = "origin_refused"         // the Origin header is not allowed
	ReasonUnsupportedMediaType Reason = "unsupported_media_type" // the Content-Type is not application/json
	ReasonBodyTooLarge         Reason = "body_too_large"         // the request body exceeds the limit
	ReasonKeysRequired         Reason = "keys_required"          // the server has no API keys and accepts non-loopback connections
	ReasonMissingAPIKey        Reason = "missing_api_key"        // the request has no API key
	ReasonKeysUnreadable       Reason = "keys_unreadable"        // the server cannot read its API keys
	ReasonInvalidAPIKey        Reason = "invalid_api_key"        // the API key is unknown
	ReasonInsufficientScope    Reason = "insufficient_scope"     // the scope of the API key does not include the request
)

// Reasons returns all Reason constants.
func Reasons() []Reason { return slices.Clone(allReasons[:]) }

var allReasons = [...]Reason{
	ReasonFailed, ReasonCanceled, ReasonUsage, ReasonInvalidOperation, ReasonRemovedOperation, ReasonUnsupported, ReasonLocked, ReasonStateChanged, ReasonNewerHive, ReasonNewerFile, ReasonExists, ReasonNotStarted, ReasonNotFound, ReasonNoHome,
	ReasonResolve, ReasonRefused, ReasonTimeout, ReasonUnreachable, ReasonAuth, ReasonHostKeyUnknown, ReasonHostKeyChanged, ReasonProtocol, ReasonLost,
	ReasonSSHConfig, ReasonProhibited, ReasonDaemon, ReasonConnecting, ReasonNotRbee, ReasonVersionMismatch, ReasonStopping, ReasonBusy,
	ReasonConfigMissing, ReasonConfigInvalid, ReasonLockfileInvalid, ReasonRecordInvalid, ReasonNoHives, ReasonUnknownHive, ReasonUnknownWorker, ReasonUnknownRecipe,
	ReasonInvalidRecipe, ReasonUnknownSSHHosts,
	ReasonNotInstalled, ReasonDiskFull, ReasonPermissionDenied, ReasonReadOnly, ReasonPortInUse,
	ReasonLookup, ReasonNotLocked, ReasonUnknownVersion, ReasonIncompatibleMachine, ReasonNoSolution, ReasonNoBinary, ReasonBuildMismatch, ReasonChecksum, ReasonVerifyFailed, ReasonNoPreviousVersion,
	ReasonWorkerNotInstalled, ReasonWorkerDamaged, ReasonWorkerNotFound, ReasonWorkerAmbiguous, ReasonWorkerNotReady, ReasonWorkerFailed,
	ReasonNoWorker, ReasonNoWorkflowWorker, ReasonRestarting, ReasonIncompatibleModel,
	ReasonInsufficientMemory, ReasonTooLarge, ReasonDeviceNotFound, ReasonDeviceAmbiguous, ReasonDeviceUnusable,
	ReasonModelNotFound, ReasonModelUnknown, ReasonModelAmbiguous, ReasonModelGated, ReasonModelIncomplete, ReasonModelInUse, ReasonModelInvalid, ReasonDownload,
	ReasonHostRefused, ReasonOriginRefused, ReasonUnsupportedMediaType, ReasonBodyTooLarge, ReasonKeysRequired, ReasonMissingAPIKey, ReasonKeysUnreadable,
	ReasonInvalidAPIKey, ReasonInsufficientScope,
}

// ReasonOf returns the reason of err, or "" if err is nil. It returns the first of the
// following that the chain of err has:
//
//   - the Reason of the first [*Error], unless empty
//   - the result of the first ErrorCode() string method, unless empty or [ReasonFailed];
//     the errors of connections have this method
//   - the reason that corresponds to an error of the operating system
//   - [ReasonFailed]
func ReasonOf(err error) Reason {
	var opErr *Error
	var coded interface{ ErrorCode() string }
	switch {
	case err == nil:
		return ""
	case errors.As(err, &opErr) && opErr.Reason != "":
		return opErr.Reason
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

// ConnectionReason works like [ReasonOf] but also classifies network errors. Use it only for
// errors of a connection to a hive or a queen. For other connections, such as downloads,
// use ReasonOf: the user hints for connection reasons refer to the address of the hive.
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

// SubjectKind is the kind of a [Subject].
type SubjectKind string

// The kinds of subjects. The comments describe the Name of the [Subject].
const (
	SubjectHive    SubjectKind = "hive"    // alias of the hive
	SubjectWorker  SubjectKind = "worker"  // worker type, or ID of the worker process
	SubjectModel   SubjectKind = "model"   // model ID
	SubjectDevice  SubjectKind = "device"  // index of the accelerator
	SubjectFile    SubjectKind = "file"    // path of the file
	SubjectQueen   SubjectKind = "queen"   // URL of the queen
	SubjectAddress SubjectKind = "address" // URL, or path of a URL
	SubjectJob     SubjectKind = "job"     // job ID
	SubjectPort    SubjectKind = "port"    // port number
)

// WithName returns a subject of kind k with the given name.
func (k SubjectKind) WithName(name string) Subject { return Subject{Kind: k, Name: name} }

// Subject identifies the object that an error concerns.
type Subject struct {
	Kind SubjectKind `json:"kind"`
	Name string      `json:"name,omitempty"`
}

// SubjectOf returns the Subject of the first [*Error] in the chain of err, or the result
// of the first ErrorSubject() Subject method. It returns the zero value if there is
// neither.
func SubjectOf(err error) Subject {
	var opErr *Error
	var subjecter interface{ ErrorSubject() Subject }
	switch {
	case errors.As(err, &opErr):
		return opErr.Subject
	case errors.As(err, &subjecter):
		return subjecter.ErrorSubject()
	default:
		return Subject{}
	}
}
