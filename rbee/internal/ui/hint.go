package ui

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Hint says what a person can do about an error, in one line. It is empty where
// the error's own words say it already, and for nil.
func Hint(e *operations.Error) string {
	if e == nil {
		return ""
	}
	switch e.Code {
	case operations.CodeUnreachable:
		return unreachableHint(e.Reason, e.Hive)
	case operations.CodeLocked:
		return "wait until the other run is done, or wait longer with --lock-wait 5m"
	case operations.CodeConfigInvalid:
		return configHint(e)
	case operations.CodeNotFound:
		if noConfig(e) || strings.Contains(e.Message, "no such hive") {
			return configHint(e)
		}
		if strings.HasPrefix(e.Message, "model ") || strings.HasPrefix(e.Message, "there is no model") || strings.HasPrefix(e.Message, "there is nothing at") {
			return runtimeHint(e)
		}
		return cmp.Or(runtimeHint(e), configHint(e))
	case operations.CodeBadOperation:
		if strings.Contains(e.Message, "exists already") {
			return "--force overwrites it"
		}
	case operations.CodeFailed:
		if strings.HasPrefix(e.Message, "cannot verify ") {
			return "the worker's own output says why: it cannot use this machine; its driver or a library may be missing or too old"
		}
		return cmp.Or(runtimeHint(e), failedHint(e.Message))
	case operations.CodeCanceled:
		return "run the same command again to go on: what is done stays done"
	}
	return ""
}

func unreachableHint(reason, hive string) string {
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
	case "daemon":
		return "`rbee start-hive " + cmp.Or(hive, "HIVE") + "` starts it"
	case "protocol":
		return "check ssh_port: what answers there is no SSH server that rbee can speak with"
	case "lost":
		return "run the command again: nothing is left half-done"
	case "config":
		return "check ~/.ssh/config, the known_hosts files and ssh_key"
	}
	return ""
}

// noConfig also knows the error when it has come over HTTP, which leaves its words.
func noConfig(e *operations.Error) bool {
	return errors.Is(e, fs.ErrNotExist) || strings.HasPrefix(e.Message, "there is no config file")
}

func configHint(e *operations.Error) string {
	switch {
	case noConfig(e):
		return "write a first config with `rbee init`, or name yours with --config"
	case e.Code == operations.CodeNotFound:
		return "`rbee list-hives` shows the hives that are known"
	}
	return ""
}

// runtimeHint knows what goes wrong with workers and models, by the words in
// which hives and queen tell it.
func runtimeHint(e *operations.Error) string {
	text := strings.ToLower(e.Message)
	has := func(words ...string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	}
	switch {
	case has("does not fit"):
		return "`rbee hive-capabilities" + format.Prefixed(" ", e.Hive) + "` shows what holds the memory: stop a worker, or use more devices or a smaller --context"
	case has(" gated"), has("hf_token"), has("model", "401"), has("model", "403"):
		return "accept the model's terms on its page, and set HF_TOKEN to a token that may read it"
	case has("worker", "not installed"):
		return "name it in the config's workers, then `rbee sync" + onHive(e.Hive) + "` installs it"
	case has("worker", "damaged"):
		return "`rbee sync" + onHive(e.Hive) + "` installs it again"
	case has("no ready worker runs workflows"):
		return "`rbee spawn-worker" + onHive(e.Hive) + " --worker comfyui --model MODEL` starts one"
	case has("no ready worker"), has("no worker", "serves"):
		return "`rbee spawn-worker" + onHive(e.Hive) + " --worker TYPE --model " + cmp.Or(served(e.Message), "MODEL") + "` starts one"
	case e.Code != operations.CodeNotFound:
		return ""
	case has("device"):
		return "`rbee hive-capabilities" + format.Prefixed(" ", e.Hive) + "` shows the devices there are"
	case has("rbee is not installed"):
		return "`rbee sync" + onHive(e.Hive) + "` installs it"
	case has("worker"), has("process"):
		return "`rbee list-workers --all` shows the workers there are"
	case has("model", "at http"), has("model", "the repository has"), has("model", "quantisation"):
		return "" // the hub was asked, and the words say what it has
	case has("model"):
		return "`rbee download-model " + quoted(e.Message, "MODEL") + onHive(e.Hive) + "` fetches it"
	}
	return ""
}

// served is the model in "no ready worker serves m", or "".
func served(message string) string {
	line, _, _ := strings.Cut(message, "\n")
	_, model, _ := strings.Cut(line, "serves ")
	return quoted(model, model)
}

// quoted is the first text in quotation marks, or fallback.
func quoted(message, fallback string) string {
	if _, rest, ok := strings.Cut(message, `"`); ok {
		if name, _, ok := strings.Cut(rest, `"`); ok && name != "" && !strings.ContainsAny(name, " \t\n\\") {
			return name
		}
	}
	return fallback
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
