package ui

import (
	"cmp"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Hint says what a person can do about an error, in one line. It is empty where
// the error's own words say it already, and for nil. It depends on the error's
// fields alone, never on its message.
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
		return "`rbee start-hive " + cmp.Or(e.Hive, "HIVE") + "` starts it"
	case operations.ReasonConnecting:
		return "the queen is still connecting: `rbee top` shows how far it is"
	case operations.ReasonLost:
		return "run the command again: nothing is left half-done"
	case operations.ReasonOtherProgram:
		if e.Subject.Kind == operations.SubjectQueen {
			return "check the address in --queen or $RBEE_QUEEN: `rbee serve` prints it"
		}
	case operations.ReasonOtherVersion:
		if e.Subject.Kind == operations.SubjectQueen {
			return "a queen of this version does; `rbee version` tells it"
		}
		return "`rbee sync" + hive + "` brings it this version"
	case operations.ReasonStopping, operations.ReasonBusy, operations.ReasonRestarting, operations.ReasonWorkerNotReady:
		return "run the command again in a moment"
	case operations.ReasonCanceled:
		return "run the same command again to go on: what is done stays done"
	case operations.ReasonLocked:
		return "wait until the other run is done, or wait longer with --lock-wait 5m"
	case operations.ReasonStateChanged:
		return "make the plan again: `rbee sync --dry-run` shows what it is now"
	case operations.ReasonNewerHive:
		return "update this rbee, or replace the one of the hive with `rbee sync" + hive + " --downgrade`"
	case operations.ReasonNewerFile:
		return "update this rbee; a newer one can read the file"
	case operations.ReasonExists:
		return "--force overwrites it"

	case operations.ReasonConfigMissing:
		return "write a first config with `rbee init`, or name yours with --config"
	case operations.ReasonNoHives:
		return "add one to the config; `rbee init` writes a first one"
	case operations.ReasonUnknownHive:
		return "`rbee list-hives` shows the hives that are known"
	case operations.ReasonUnknownWorker:
		return "add " + cmp.Or(e.Subject.Name, "it") + " to a hive's workers in the config; `rbee status --verbose` shows what hives have"
	case operations.ReasonUnknownRecipe:
		return "`rbee catalog list` shows the worker types that there are"
	case operations.ReasonLockfileInvalid:
		return "restore " + cmp.Or(e.Subject.Name, "it") + " from version control, or remove it: `rbee sync` writes a new one"
	case operations.ReasonRecordInvalid:
		return "restore " + cmp.Or(e.Subject.Name, "it") + " from a backup, or remove it: `rbee sync` writes a new one, which lacks the hives that are not in the config"
	case operations.ReasonNoHome:
		return "set HOME to your home directory"

	case operations.ReasonNotInstalled:
		return "`rbee sync" + hive + "` installs it"
	case operations.ReasonDiskFull, operations.ReasonPermissionDenied, operations.ReasonReadOnly:
		return fileHint(e)
	case operations.ReasonPortInUse:
		if e.Subject.Kind == operations.SubjectQueen {
			return "another program uses the port: choose another --addr"
		}
		if e.Subject.Kind != operations.SubjectWorker {
			return "another program uses the port: choose another hive_port in the config"
		}
		return "another program uses the port: choose another --port"

	case operations.ReasonLookup, operations.ReasonDownload:
		return "check that the server can be reached from there, then run the command again: what has arrived is kept"
	case operations.ReasonOtherBuild:
		return "make the plan again with this rbee, or apply it with the rbee that made it"
	case operations.ReasonNotLocked:
		return "`rbee sync` looks it up"
	case operations.ReasonChecksum:
		return "run the command again; if the content stays wrong, do not trust its source"
	case operations.ReasonVerifyFailed:
		return "the worker's own output says why: it cannot use this machine; its driver or a library may be missing or too old"

	case operations.ReasonWorkerNotInstalled:
		return "name it in the config's workers, then `rbee sync" + hive + "` installs it"
	case operations.ReasonWorkerDamaged:
		return "`rbee sync" + hive + "` installs it again"
	case operations.ReasonWorkerNotFound:
		return "`rbee list-workers --all` shows the workers there are"
	case operations.ReasonWorkerAmbiguous, operations.ReasonModelAmbiguous:
		if e.Subject.Kind == operations.SubjectModel && e.Hive != "" {
			return "" // the message lists the files to choose from
		}
		return "say which one: more of the id, or its hive with --hive"
	case operations.ReasonWorkerFailed:
		return "`rbee worker-logs " + cmp.Or(e.Subject.Name, "WORKER") + hive + "` shows what it wrote"
	case operations.ReasonNoWorker:
		return "`rbee spawn-worker" + hive + " --worker TYPE --model " + cmp.Or(e.Subject.Name, "MODEL") + "` starts one"
	case operations.ReasonNoWorkflowWorker:
		return "`rbee spawn-worker" + hive + " --worker comfyui --model " + cmp.Or(e.Subject.Name, "MODEL") + "` starts one"

	case operations.ReasonNoRoom, operations.ReasonTooLarge:
		return "`rbee hive-capabilities" + format.Prefixed(" ", e.Hive) + "` shows what holds the memory: stop a worker, or use more devices or a smaller --context"
	case operations.ReasonDeviceNotFound, operations.ReasonDeviceAmbiguous, operations.ReasonDeviceUnusable:
		return "`rbee hive-capabilities" + format.Prefixed(" ", e.Hive) + "` shows the devices there are"

	case operations.ReasonModelNotFound:
		return "`rbee download-model " + cmp.Or(e.Subject.Name, "MODEL") + hive + "` fetches it"
	case operations.ReasonModelIncomplete:
		return "`rbee download-model " + cmp.Or(e.Subject.Name, "MODEL") + hive + "` goes on with it"
	case operations.ReasonModelGated:
		return "accept the model's terms on its page, and set HF_TOKEN to a token that may read it"
	case operations.ReasonModelInUse:
		return "`rbee list-workers" + hive + "` shows who uses it"

	case operations.ReasonKeysRequired, operations.ReasonMissingAPIKey, operations.ReasonInvalidAPIKey, operations.ReasonInsufficientScope:
		return keyHint
	case operations.ReasonKeysUnreadable:
		return "the queen's log says why it cannot read its keys"
	case operations.ReasonHostRefused:
		return "`rbee serve --host NAME` names what else the server is called"
	case operations.ReasonOriginRefused:
		return "`rbee serve --origin URL` lets the pages of that address ask"

	case operations.ReasonFailed, operations.ReasonNotBegun, operations.ReasonUsage, operations.ReasonInvalidOperation, operations.ReasonRemovedOperation, operations.ReasonUnsupported,
		operations.ReasonNotFound, operations.ReasonConfigInvalid, operations.ReasonInvalidRecipe, operations.ReasonUnknownSSHHosts,
		operations.ReasonUnknownVersion, operations.ReasonUnfitMachine, operations.ReasonNoSolution, operations.ReasonNoBinary, operations.ReasonNoPreviousVersion,
		operations.ReasonUnfitModel, operations.ReasonModelUnknown, operations.ReasonModelInvalid,
		operations.ReasonUnsupportedMediaType, operations.ReasonBodyTooLarge:
		return "" // the message names what is wrong and what would be right
	default:
		return codeHint(e)
	}
	return ""
}

const keyHint = "`rbee key add NAME --scope admin` on the queen's machine makes a key, and `rbee key list` shows those that are good; put one into $RBEE_API_KEY"

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

// fileHint returns the hint of a file that cannot be read or written: on this machine, if
// the error is about a file and no hive, else on the machine of a hive.
func fileHint(e *operations.Error) string {
	file := e.Subject.Kind == operations.SubjectFile
	local := file && e.Hive == ""
	switch {
	case e.Reason == operations.ReasonDiskFull && local:
		return "free some space on the disk of this machine, then run the command again"
	case e.Reason == operations.ReasonDiskFull:
		return "free some space on the machine's disk, then run the command again"
	case local && e.Reason == operations.ReasonReadOnly:
		return "mount the file system of " + e.Subject.Name + " read-write, or use a file in another directory"
	case local:
		return "check the owner and the permissions of " + e.Subject.Name + " and of its directory"
	case file:
		return "" // the message names the file
	default:
		return "rbee needs a home directory that its user may write to; RBEE_HOME on the machine moves it"
	}
}

// connectionHint returns the hint of a connection that failed: to a queen, or over
// SSH to the machine of a hive.
func connectionHint(e *operations.Error) string {
	if e.Subject.Kind == operations.SubjectQueen {
		if e.Reason == operations.ReasonAuth {
			return keyHint
		}
		return "`rbee serve` starts a queen; --queen or $RBEE_QUEEN says where one is"
	}
	if e.Code != operations.CodeUnreachable {
		return "" // another connection of the hive, such as a download
	}
	switch e.Reason {
	case operations.ReasonResolve:
		return "check hostname in the config, or add the host to ~/.ssh/config or the DNS"
	case operations.ReasonRefused:
		return "nothing listens there: check ssh_port, and that sshd runs on the machine"
	case operations.ReasonAuth:
		return "check ssh_user and ssh_key; `ssh-copy-id` puts your key on the machine, and `ssh -v` shows what it refuses"
	case operations.ReasonHostKeyUnknown:
		return "log in once with `ssh` and compare the fingerprint, or trust new hosts with --accept-new-host-keys"
	case operations.ReasonHostKeyChanged:
		return "if the machine was set up anew, remove its old key with `ssh-keygen -R HOST`; if not, somebody may be listening in"
	case operations.ReasonProtocol:
		return "check ssh_port: what answers there is no SSH server that rbee can speak with"
	case operations.ReasonSSHConfig:
		return "check ~/.ssh/config, the known_hosts files and ssh_key"
	case operations.ReasonProhibited:
		return "the SSH server on the way does not allow forwarding: set AllowTcpForwarding in its sshd_config"
	default:
		return "check that the machine is on and that its address and network are right; --timeout gives it longer"
	}
}
