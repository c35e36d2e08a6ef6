package ui

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// Hint says what a person can do about an error, in one line. It is empty where
// the error's own words say it already, and for nil.
func Hint(e *operations.Error) string {
	if e == nil {
		return ""
	}
	switch e.Code {
	case operations.CodeUnreachable:
		return unreachableHint(e.Reason)
	case operations.CodeLocked:
		return "wait until the other run is done, or wait longer with --lock-wait 5m"
	case operations.CodeConfigInvalid, operations.CodeNotFound:
		return configHint(e)
	case operations.CodeBadOperation:
		if strings.Contains(e.Message, "exists already") {
			return "--force overwrites it"
		}
	case operations.CodeFailed:
		return failedHint(e.Message)
	case operations.CodeCanceled:
		return "run the same command again to go on: what is done stays done"
	}
	return ""
}

func unreachableHint(reason string) string {
	switch reason {
	case "resolve":
		return "check hostname in the config, or add the host to ~/.ssh/config or the DNS"
	case "refused":
		return "nothing listens there: check ssh_port, and that sshd runs on the machine"
	case "timeout", "unreachable":
		return "check that the machine is on and that its address and network are right; --timeout gives it longer"
	case "auth":
		return "check ssh_user and ssh_key; `ssh-copy-id` puts your key on the machine, and `ssh -v` shows what it refuses"
	case "host_key_unknown":
		return "log in once with `ssh` and compare the fingerprint, or trust new hosts with --accept-new-host-keys"
	case "host_key_changed":
		return "if the machine was set up anew, remove its old key with `ssh-keygen -R HOST`; if not, somebody may be listening in"
	case "protocol":
		return "check ssh_port: what answers there is no SSH server that rbee can speak with"
	case "lost":
		return "run the command again: nothing is left half-done"
	case "config":
		return "check ~/.ssh/config, the known_hosts files and ssh_key"
	}
	return ""
}

func configHint(e *operations.Error) string {
	switch {
	case errors.Is(e, fs.ErrNotExist):
		return "write a first config with `rbee init`, or name yours with --config"
	case e.Code == operations.CodeNotFound:
		return "`rbee list-hives` shows the hives that are known"
	}
	return ""
}

// failedHint knows the failures that only a machine's own words tell apart.
func failedHint(message string) string {
	text := strings.ToLower(message)
	switch {
	case strings.Contains(text, "no space left"), strings.Contains(text, "disk quota"), strings.Contains(text, "disk is full"):
		return "free some space on the machine's disk, then run the command again"
	case strings.Contains(text, "permission denied"), strings.Contains(text, "read-only file system"):
		return "rbee needs a home directory that its user may write to; RBEE_HOME on the machine moves it"
	case strings.Contains(text, "address already in use"), strings.Contains(text, "port is taken"):
		return "another program uses the port: choose another hive_port in the config"
	}
	return ""
}
