package ui

import (
	"cmp"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Hint returns a line that states what to do about an error, or "" if e is nil or
// its message already states this. The hint depends on the reason, code, hive and
// subject of the error, but not on its message.
func Hint(e *operations.Error) string {
	if e == nil {
		return ""
	}
	hive := onHive(e.Hive)
	switch e.Reason {
	case operations.ReasonResolve, operations.ReasonRefused, operations.ReasonTimeout, operations.ReasonUnreachable, operations.ReasonAuth,
		operations.ReasonHostKeyUnknown, operations.ReasonHostKeyChanged, operations.ReasonProtocol, operations.ReasonSSHConfig, operations.ReasonProhibited:
		return connectionHint(e)
	case operations.ReasonDaemon:
		return "run `rbee start-hive " + cmp.Or(e.Hive, "HIVE") + "` to start it"
	case operations.ReasonConnecting:
		return "wait until the queen has connected to the hive; run `rbee top` to see its state"
	case operations.ReasonLost:
		return "run the command again; it is safe to repeat"
	case operations.ReasonNotRbee:
		if e.Subject.Kind == operations.SubjectQueen {
			return "check the address in --queen or $RBEE_QUEEN; `rbee serve` prints it"
		}
	case operations.ReasonVersionMismatch:
		if e.Subject.Kind == operations.SubjectQueen {
			return "use a queen of the same version as this rbee; run `rbee version` to print it"
		}
		return "run `rbee sync" + hive + "` to install this version of rbee"
	case operations.ReasonStopping, operations.ReasonBusy, operations.ReasonRestarting, operations.ReasonWorkerNotReady:
		return "run the command again in a moment"
	case operations.ReasonCanceled:
		return "run the same command again to continue; finished parts are kept"
	case operations.ReasonLocked:
		return "wait for the other run, or use --lock-wait 5m"
	case operations.ReasonStateChanged:
		return "run the command again; `rbee sync --dry-run` prints the new plan"
	case operations.ReasonNewerHive:
		return "upgrade this rbee, or run `rbee sync" + hive + " --downgrade` to replace the newer one"
	case operations.ReasonNewerFile:
		return "upgrade this rbee; a newer version can read the file"
	case operations.ReasonExists:
		return "use --force to overwrite it"

	case operations.ReasonConfigMissing:
		return "run `rbee init` to create one, or pass --config FILE"
	case operations.ReasonNoHives:
		return "add a hive to the config, or run `rbee init` to create a config"
	case operations.ReasonUnknownHive:
		return "run `rbee list-hives` to list the hives"
	case operations.ReasonUnknownWorker:
		return "add " + cmp.Or(e.Subject.Name, "it") + " to the workers of a hive in the config; run `rbee status --verbose` to list installed workers"
	case operations.ReasonUnknownRecipe:
		return "run `rbee catalog list` to list the worker types"
	case operations.ReasonLockfileInvalid:
		return "restore " + cmp.Or(e.Subject.Name, "it") + " from version control, or remove it and run `rbee sync` to create a new one"
	case operations.ReasonRecordInvalid:
		return "restore " + cmp.Or(e.Subject.Name, "it") + " from a backup, or remove it and run `rbee sync`; the new record lacks the hives that are not in the config"
	case operations.ReasonNoHome:
		return "set HOME to your home directory"

	case operations.ReasonNotInstalled:
		return "run `rbee sync" + hive + "` to install it"
	case operations.ReasonDiskFull, operations.ReasonPermissionDenied, operations.ReasonReadOnly:
		return fileHint(e)
	case operations.ReasonPortInUse:
		switch e.Subject.Kind {
		case operations.SubjectQueen:
			return "choose another port with --addr"
		case operations.SubjectWorker:
			return "choose another port with --port"
		default:
			return "choose another hive_port in the config"
		}

	case operations.ReasonLookup, operations.ReasonDownload:
		return "check that the server is reachable, then run the command again; downloaded parts are kept"
	case operations.ReasonBuildMismatch:
		return "create the plan again with this rbee, or apply it with the rbee that created it"
	case operations.ReasonNotLocked:
		return "run `rbee sync` to resolve the version"
	case operations.ReasonChecksum:
		return "run the command again; if it fails again, do not trust the source"
	case operations.ReasonVerifyFailed:
		return "check the output of the worker: a driver or a library of the machine may be missing or too old"

	case operations.ReasonWorkerNotInstalled:
		return "add it to the workers of the hive in the config, then run `rbee sync" + hive + "`"
	case operations.ReasonWorkerDamaged:
		return "run `rbee sync" + hive + "` to reinstall it"
	case operations.ReasonWorkerNotFound:
		return "run `rbee list-workers --all` to list all workers"
	case operations.ReasonWorkerAmbiguous, operations.ReasonModelAmbiguous:
		if e.Subject.Kind == operations.SubjectModel && e.Hive != "" {
			return "" // the message lists the files to choose from
		}
		return "pass more of the ID, or the hive with --hive"
	case operations.ReasonWorkerFailed:
		return "run `rbee worker-logs " + cmp.Or(e.Subject.Name, "WORKER") + hive + "` to see its log"
	case operations.ReasonNoWorker:
		return "run `rbee spawn-worker" + hive + " --worker TYPE --model " + cmp.Or(e.Subject.Name, "MODEL") + "` to start one"
	case operations.ReasonNoWorkflowWorker:
		return "run `rbee spawn-worker" + hive + " --worker comfyui --model " + cmp.Or(e.Subject.Name, "MODEL") + "` to start one"

	case operations.ReasonInsufficientMemory, operations.ReasonTooLarge:
		return "stop a worker, or use more GPUs or a smaller --context; run `rbee hive-capabilities" + format.Prefixed(" ", e.Hive) + "` to see what uses the memory"
	case operations.ReasonDeviceNotFound, operations.ReasonDeviceAmbiguous, operations.ReasonDeviceUnusable:
		return "run `rbee hive-capabilities" + format.Prefixed(" ", e.Hive) + "` to list the devices"

	case operations.ReasonModelNotFound:
		return "run `rbee download-model " + cmp.Or(e.Subject.Name, "MODEL") + hive + "` to download it"
	case operations.ReasonModelIncomplete:
		return "run `rbee download-model " + cmp.Or(e.Subject.Name, "MODEL") + hive + "` to continue the download"
	case operations.ReasonModelGated:
		return "accept the terms on the page of the model, and set HF_TOKEN to a token that can read it"
	case operations.ReasonModelInUse:
		return "run `rbee list-workers" + hive + "` to see which workers use it"

	case operations.ReasonKeysRequired, operations.ReasonMissingAPIKey, operations.ReasonInvalidAPIKey, operations.ReasonInsufficientScope:
		return keyHint
	case operations.ReasonKeysUnreadable:
		return "check the log of the queen for the cause"
	case operations.ReasonHostRefused:
		return "run `rbee serve --host NAME` to allow the host name"
	case operations.ReasonOriginRefused:
		return "run `rbee serve --origin URL` to allow the web page"

	case operations.ReasonFailed, operations.ReasonNotStarted, operations.ReasonUsage, operations.ReasonInvalidOperation, operations.ReasonRemovedOperation, operations.ReasonUnsupported,
		operations.ReasonNotFound, operations.ReasonConfigInvalid, operations.ReasonInvalidRecipe, operations.ReasonUnknownSSHHosts,
		operations.ReasonUnknownVersion, operations.ReasonIncompatibleMachine, operations.ReasonNoSolution, operations.ReasonNoBinary, operations.ReasonNoPreviousVersion,
		operations.ReasonIncompatibleModel, operations.ReasonModelUnknown, operations.ReasonModelInvalid,
		operations.ReasonUnsupportedMediaType, operations.ReasonBodyTooLarge:
		return "" // the message states the problem and the solution
	default:
		return codeHint(e)
	}
	return ""
}

const keyHint = "run `rbee key add NAME --scope admin` on the machine of the queen and set $RBEE_API_KEY to the key; `rbee key list` lists the valid keys"

// codeHint returns the hint of an error whose reason this rbee does not know.
func codeHint(e *operations.Error) string {
	known := *e
	switch e.Code {
	case operations.CodeLocked:
		known.Reason = operations.ReasonLocked
	case operations.CodeCanceled:
		known.Reason = operations.ReasonCanceled
	case operations.CodeUnreachable:
		known.Reason = operations.ReasonUnreachable
	default:
		return ""
	}
	return Hint(&known)
}

// fileHint returns the hint of a file that cannot be read or written. The file
// is on this machine if the error has a file and no hive, and on the machine of
// a hive otherwise.
func fileHint(e *operations.Error) string {
	file := e.Subject.Kind == operations.SubjectFile
	local := file && e.Hive == ""
	switch {
	case e.Reason == operations.ReasonDiskFull && local:
		return "free disk space on this machine, then run the command again"
	case e.Reason == operations.ReasonDiskFull:
		return "free disk space on the hive, then run the command again"
	case local && e.Reason == operations.ReasonReadOnly:
		return "mount the file system of " + e.Subject.Name + " read-write, or use a file in another directory"
	case local:
		return "check the owner and the permissions of " + e.Subject.Name + " and its directory"
	case file:
		return "" // the message names the file
	default:
		return "rbee needs a writable home directory on the hive; set RBEE_HOME there to use another directory"
	}
}

// connectionHint returns the hint of a failed connection to a queen, or over SSH
// to the machine of a hive.
func connectionHint(e *operations.Error) string {
	if e.Subject.Kind == operations.SubjectQueen {
		if e.Reason == operations.ReasonAuth {
			return keyHint
		}
		return "run `rbee serve` to start a queen, or set --queen or $RBEE_QUEEN to the address of a running one"
	}
	if e.Code != operations.CodeUnreachable {
		return "" // another connection of the hive, such as a download
	}
	switch e.Reason {
	case operations.ReasonResolve:
		return "check hostname in the config, or add the host to ~/.ssh/config or DNS"
	case operations.ReasonRefused:
		return "check ssh_port and that sshd is running on the machine"
	case operations.ReasonAuth:
		return "check ssh_user and ssh_key; run `ssh-copy-id` to install your key, or `ssh -v` to see which keys are rejected"
	case operations.ReasonHostKeyUnknown:
		return "log in once with `ssh` and compare the fingerprint, or use --accept-new-host-keys"
	case operations.ReasonHostKeyChanged:
		return "if the machine was reinstalled, run `ssh-keygen -R HOST`; if not, someone may be intercepting the connection"
	case operations.ReasonProtocol:
		return "check ssh_port; the server at this port does not support SSH"
	case operations.ReasonSSHConfig:
		return "check ~/.ssh/config, the known_hosts files and ssh_key"
	case operations.ReasonProhibited:
		return "set AllowTcpForwarding in the sshd_config of the server that rejects forwarding"
	default:
		return "check that the machine is on and that its address is right; use --timeout to wait longer"
	}
}
