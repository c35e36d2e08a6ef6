package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
)

// TestReasons checks, for every reason, the printed error, its hint and its exit
// code. Numbers and words of other reasons in names and messages have no effect.
func TestReasons(t *testing.T) {
	t.Parallel()
	seen := map[operations.Reason]bool{}
	for _, c := range []struct {
		err  operations.Error
		hint string
		exit int
	}{
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonFailed, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot compress the rbee binary: short write"},
			"", 1},
		{operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "canceled"},
			"run the same command again to continue; finished parts are kept", 130},
		{operations.Error{Code: codeUsage, Reason: operations.ReasonUsage, Message: "missing flag: --model MODEL"},
			"", 64},
		{operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Message: `package_sync: invalid field "parallel": got -1, want 0 (rbee chooses) or more`},
			"", 64},
		{operations.Error{Code: operations.CodeRemovedOperation, Reason: operations.ReasonRemovedOperation, Message: `operation "hive_install" was removed: use "package_sync"`},
			"", 64},
		{operations.Error{Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: "unsupported operation package_sync"},
			"", 1},
		{operations.Error{Code: operations.CodeLocked, Reason: operations.ReasonLocked, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "another run is in progress: locked by me@laptop, pid 7 since 2026-03-04 12:00:00"},
			"wait for the other run, or use --lock-wait 5m", 5},
		{operations.Error{Code: operations.CodeUnsupported, Reason: operations.ReasonNewerHive, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "rbee v2.0.0 on the hive is newer than this one, v1.0.0"},
			"upgrade this rbee, or run `rbee sync --hive gpu-1 --downgrade` to replace the newer one", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonStateChanged, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot apply the plan: the hive changed since the plan was made; make a new plan"},
			"run the command again; `rbee sync --dry-run` prints the new plan", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNewerFile, Subject: operations.SubjectFile.WithName("/h/run/settings.json"), Hive: "gpu-1", Message: "/h/run/settings.json was written by a newer rbee: reading it needs schema 401, this rbee supports 2; update this rbee"},
			"upgrade this rbee; a newer version can read the file", 1},
		{operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonExists, Subject: operations.SubjectFile.WithName("hives.conf"), Message: "hives.conf already exists"},
			"use --force to overwrite it", 64},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotStarted, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "not started"},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectJob.WithName("4f"), Message: `unknown job "4f"`},
			"", 1},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonResolve, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot reach bee@gpu-1:22: lookup gpu-1: no such host"},
			"check hostname in the config, or add the host to ~/.ssh/config or DNS", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonRefused, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot reach bee@gpu-1:22: connection refused"},
			"check ssh_port and that sshd is running on the machine", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonRefused, Subject: operations.SubjectQueen.WithName("http://127.0.0.1:8500"), Message: "cannot reach the queen at http://127.0.0.1:8500: dial tcp 127.0.0.1:8500: connect: connection refused"},
			"run `rbee serve` to start a queen, or set --queen or $RBEE_QUEEN to the address of a running one", 4},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonRefused, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot download https://example.org/engine: connection refused"},
			"", 1},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonTimeout, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot reach bee@gpu-1:22: no response within 15s"},
			"check that the machine is on and that its address is right; use --timeout to wait longer", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonUnreachable, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot reach bee@gpu-1:22: no route to host"},
			"check that the machine is on and that its address is right; use --timeout to wait longer", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonAuth, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot connect to bee@gpu-1:22: logging in: permission denied (the host accepts publickey): no key to offer"},
			"check ssh_user and ssh_key; run `ssh-copy-id` to install your key, or `ssh -v` to see which keys are rejected", 4},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonAuth, Subject: operations.SubjectQueen.WithName("http://127.0.0.1:8500"), Message: "http://127.0.0.1:8500 rejected the API key"},
			"run `rbee key add NAME --scope admin` on the machine of the queen and set $RBEE_API_KEY to the key; `rbee key list` lists the valid keys", 1},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonHostKeyUnknown, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot connect to bee@gpu-1:22: host key of gpu-1 is unknown: ssh-ed25519 SHA256:abc"},
			"log in once with `ssh` and compare the fingerprint, or use --accept-new-host-keys", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonHostKeyChanged, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot connect to bee@gpu-1:22: host key of gpu-1 has changed: it presents ssh-ed25519 SHA256:abc, but /h/.ssh/known_hosts:5 has a different key"},
			"if the machine was reinstalled, run `ssh-keygen -R HOST`; if not, someone may be intercepting the connection", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonProtocol, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: `cannot connect to bee@gpu-1:22: not an SSH server: host sent "HTTP/1.1 400 Bad Request"`},
			"check ssh_port; the server at this port does not support SSH", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonLost, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "lost connection to bee@gpu-1:22: EOF"},
			"run the command again; it is safe to repeat", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonSSHConfig, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot connect to bee@gpu-1:22: cannot use key file: open /h/.ssh/id_x: no such file or directory"},
			"check ~/.ssh/config, the known_hosts files and ssh_key", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonProhibited, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot connect to bee@gpu-1:22: connecting: ssh: rejected: administratively prohibited (open failed)"},
			"set AllowTcpForwarding in the sshd_config of the server that rejects forwarding", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonDaemon, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "the hive daemon is not running"},
			"run `rbee start-hive gpu-1` to start it", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonConnecting, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "the hive has not connected yet"},
			"wait until the queen has connected to the hive; run `rbee top` to see its state", 4},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectQueen.WithName("http://127.0.0.1:80"), Message: `http://127.0.0.1:80 is not a queen: it answered "200 OK" with text/html`},
			"check the address in --queen or $RBEE_QUEEN; `rbee serve` prints it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "cannot parse the output of the hive's shell"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonVersionMismatch, Subject: operations.SubjectQueen.WithName("http://127.0.0.1:8500"), Message: `http://127.0.0.1:8500 does not support fleet snapshots: it answered "404 Not Found"`},
			"use a queen of the same version as this rbee; run `rbee version` to print it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonVersionMismatch, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "the daemon runs another version of rbee: run `rbee sync` to update it"},
			"run `rbee sync --hive gpu-1` to install this version of rbee", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonStopping, Message: "rbee is shutting down and accepts no new jobs"},
			"run the command again in a moment", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonBusy, Message: "64 jobs are already running, which is the limit"},
			"run the command again in a moment", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonConfigMissing, Subject: operations.SubjectFile.WithName("/c/hives.conf"), Message: "config file /c/hives.conf does not exist"},
			"run `rbee init` to create one, or pass --config FILE", 1},
		{operations.Error{Code: operations.CodeConfigInvalid, Reason: operations.ReasonConfigInvalid, Message: "invalid config hives.conf: 1 problem"},
			"", 3},
		{operations.Error{Code: operations.CodeConfigInvalid, Reason: operations.ReasonLockfileInvalid, Subject: operations.SubjectFile.WithName("/c/hives.lock"), Message: "cannot read the lock /c/hives.lock: unexpected end of JSON input"},
			"restore /c/hives.lock from version control, or remove it and run `rbee sync` to create a new one", 3},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonRecordInvalid, Subject: operations.SubjectFile.WithName("/s/fleet.json"), Message: "cannot read the record of hives: /s/fleet.json: unexpected end of JSON input"},
			"restore /s/fleet.json from a backup, or remove it and run `rbee sync`; the new record lacks the hives that are not in the config", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoHome, Message: "cannot determine the home directory: HOME is not set"},
			"set HOME to your home directory", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNoHives, Message: "the config has no hives"},
			"add a hive to the config, or run `rbee init` to create a config", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownHive, Subject: operations.SubjectHive.WithName("gpu-9"), Hive: "gpu-9", Message: "unknown hive"},
			"run `rbee list-hives` to list the hives", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownWorker, Subject: operations.SubjectWorker.WithName("nosuch"), Message: `worker type "nosuch" is not in the config`},
			"add nosuch to the workers of a hive in the config; run `rbee status --verbose` to list installed workers", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownRecipe, Subject: operations.SubjectWorker.WithName("vlm"), Message: "unknown worker type 'vlm', did you mean 'vllm'?"},
			"run `rbee catalog list` to list the worker types", 1},
		{operations.Error{Code: operations.CodeConfigInvalid, Reason: operations.ReasonInvalidRecipe, Message: "invalid recipe x.yaml: 2 problems"},
			"", 3},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownSSHHosts, Message: `no host in ssh_config matches "gpu-*"`},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotInstalled, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "rbee is not installed on the hive"},
			"run `rbee sync --hive gpu-1` to install it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDiskFull, Subject: operations.SubjectModel.WithName("org/401-403"), Hive: "gpu-1", Message: `cannot download model "org/401-403": it needs 3.0 GiB more, but only 2.0 GiB is free at /h/models`},
			"free disk space on the hive, then run the command again", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPermissionDenied, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "mkdir /opt/rbee: permission denied"},
			"rbee needs a writable home directory on the hive; set RBEE_HOME there to use another directory", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPermissionDenied, Subject: operations.SubjectFile.WithName("/c/hives.conf"), Message: "cannot read config file: open /c/hives.conf: permission denied"},
			"check the owner and the permissions of /c/hives.conf and its directory", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonReadOnly, Subject: operations.SubjectFile.WithName("/c/hives.lock"), Message: "cannot write the lock /c/hives.lock: open /c/.hives.lock1: read-only file system"},
			"mount the file system of /c/hives.lock read-write, or use a file in another directory", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDiskFull, Subject: operations.SubjectFile.WithName("/c/fleet.rbee"), Message: "cannot write the bundle: write /c/.fleet.rbee1: no space left on device"},
			"free disk space on this machine, then run the command again", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPermissionDenied, Subject: operations.SubjectFile.WithName("/h/run/lock"), Hive: "gpu-1", Message: "open /h/run/lock: permission denied"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonReadOnly, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "mkdir /opt/rbee: read-only file system"},
			"rbee needs a writable home directory on the hive; set RBEE_HOME there to use another directory", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPortInUse, Subject: operations.SubjectPort.WithName("8600"), Hive: "gpu-1", Message: "port 8600 is used by another process: stop it, or set another hive_port"},
			"choose another hive_port in the config", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPortInUse, Subject: operations.SubjectWorker.WithName("vllm-3c4d"), Hive: "gpu-1", Message: "cannot use port 9000: listen tcp 127.0.0.1:9000: bind: address already in use"},
			"choose another port with --port", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPortInUse, Subject: operations.SubjectQueen.WithName("127.0.0.1:8500"), Message: "cannot listen on 127.0.0.1:8500: address already in use"},
			"choose another port with --addr", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonLookup, Hive: "gpu-1", Message: "cannot request https://pypi.org/simple/vllm: the server answered 503 Service Unavailable"},
			"check that the server is reachable, then run the command again; downloaded parts are kept", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotLocked, Hive: "gpu-1", Message: "the version is not locked yet; run `rbee sync` to lock it"},
			"run `rbee sync` to resolve the version", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonUnknownVersion, Subject: operations.SubjectWorker.WithName("vllm"), Hive: "gpu-1", Message: `worker vllm has no version "9"; known: 1, 2`},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonIncompatibleMachine, Subject: operations.SubjectWorker.WithName("vllm"), Hive: "gpu-1", Message: "worker vllm 0.9 cannot run on this machine: no NVIDIA GPU"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoSolution, Subject: operations.SubjectWorker.WithName("vllm"), Hive: "gpu-1", Message: "cannot resolve the packages of vllm 0.9 for linux/amd64: no version of torch matches"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoBinary, Hive: "gpu-1", Message: "cannot find an rbee binary for freebsd/amd64"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonBuildMismatch, Subject: operations.SubjectHive.WithName("gpu-1"), Hive: "gpu-1", Message: "the plan requires rbee 1.0.0 with SHA-256 401, but this build has SHA-256 402"},
			"create the plan again with this rbee, or apply it with the rbee that created it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonChecksum, Subject: operations.SubjectWorker.WithName("engine"), Hive: "gpu-1", Message: "unexpected content: its SHA-256 is 4010401, want 0401"},
			"run the command again; if it fails again, do not trust the source", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonVerifyFailed, Subject: operations.SubjectWorker.WithName("vllm"), Hive: "gpu-1", Message: "cannot verify vllm 0.9: exit status 1"},
			"check the output of the worker: a driver or a library of the machine may be missing or too old", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoPreviousVersion, Subject: operations.SubjectWorker.WithName("vllm"), Hive: "gpu-1", Message: "cannot roll back vllm: the hive has no previous version, only 0.9"},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonWorkerNotInstalled, Subject: operations.SubjectWorker.WithName("vllm"), Hive: "gpu-1", Message: "worker type vllm is not installed"},
			"add it to the workers of the hive in the config, then run `rbee sync --hive gpu-1`", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonWorkerDamaged, Subject: operations.SubjectWorker.WithName("vllm"), Hive: "gpu-1", Message: "worker type vllm is damaged: bin/x has changed"},
			"run `rbee sync --hive gpu-1` to reinstall it", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonWorkerNotFound, Subject: operations.SubjectWorker.WithName("vllm-9"), Hive: "gpu-1", Message: `unknown worker "vllm-9": this hive has vllm-1`},
			"run `rbee list-workers --all` to list all workers", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonWorkerAmbiguous, Subject: operations.SubjectWorker.WithName("vllm"), Message: `2 workers match "vllm": vllm-1 on gpu-1, vllm-2 on gpu-2`},
			"pass more of the ID, or the hive with --hive", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonWorkerNotReady, Subject: operations.SubjectWorker.WithName("vllm-1"), Hive: "gpu-1", Message: "worker vllm-1 is loading, not ready"},
			"run the command again in a moment", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonWorkerFailed, Subject: operations.SubjectWorker.WithName("vllm-1"), Hive: "gpu-1", Message: "worker vllm-1 did not answer: EOF"},
			"run `rbee worker-logs vllm-1 --hive gpu-1` to see its log", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNoWorker, Subject: operations.SubjectModel.WithName("model-401"), Message: "no ready worker serves model-401: the config has no hives"},
			"run `rbee spawn-worker --worker TYPE --model model-401` to start one", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNoWorkflowWorker, Subject: operations.SubjectModel.WithName("sdxl"), Hive: "gpu-1", Message: "no ready worker runs workflows with sdxl"},
			"run `rbee spawn-worker --hive gpu-1 --worker comfyui --model sdxl` to start one", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonRestarting, Subject: operations.SubjectModel.WithName("m"), Message: "no ready worker serves m"},
			"run the command again in a moment", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonIncompatibleModel, Subject: operations.SubjectWorker.WithName("llama-cpp"), Hive: "gpu-1", Message: "llama-cpp needs one file of a model, but org/repo has several; name one as in org/repo:file"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonInsufficientMemory, Subject: operations.SubjectModel.WithName("org/big"), Hive: "gpu-1", Message: "vllm with org/big does not fit on this machine"},
			"stop a worker, or use more GPUs or a smaller --context; run `rbee hive-capabilities gpu-1` to see what uses the memory", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonTooLarge, Subject: operations.SubjectModel.WithName("org/big"), Hive: "gpu-1", Message: "vllm with org/big does not fit on this machine"},
			"stop a worker, or use more GPUs or a smaller --context; run `rbee hive-capabilities gpu-1` to see what uses the memory", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonDeviceNotFound, Subject: operations.SubjectDevice.WithName("7"), Hive: "gpu-1", Message: "unknown device 7: this machine has no accelerator"},
			"run `rbee hive-capabilities gpu-1` to list the devices", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDeviceAmbiguous, Hive: "gpu-1", Message: `device "0" is ambiguous: this machine has amd and nvidia devices, each numbered from 0, and llama-cpp supports all of them`},
			"run `rbee hive-capabilities gpu-1` to list the devices", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDeviceUnusable, Hive: "gpu-1", Message: "vllm requires an nvidia accelerator, but this machine has no accelerator"},
			"run `rbee hive-capabilities gpu-1` to list the devices", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonModelNotFound, Subject: operations.SubjectModel.WithName("org/model-401"), Hive: "gpu-1", Message: `model "org/model-401" is not on this hive`},
			"run `rbee download-model org/model-401 --hive gpu-1` to download it", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonModelUnknown, Subject: operations.SubjectModel.WithName("org/model-401"), Hive: "gpu-1", Message: `model "org/model-401" not found at https://huggingface.co`},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonModelAmbiguous, Subject: operations.SubjectModel.WithName("org/repo:x"), Hive: "gpu-1", Message: `model "org/repo:x" matches several files; specify a file: x-1.gguf, x-2.gguf`},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonModelAmbiguous, Subject: operations.SubjectModel.WithName("org/repo"), Message: `2 models match "org/repo": org/repo:Q4 on gpu-1, org/repo:Q8 on gpu-2`},
			"pass more of the ID, or the hive with --hive", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonModelGated, Subject: operations.SubjectModel.WithName("org/repo"), Hive: "gpu-1", Message: `model "org/repo" is gated: accept its terms at https://huggingface.co/org/repo and set HF_TOKEN to a token of that account: the server answered 403 Forbidden`},
			"accept the terms on the page of the model, and set HF_TOKEN to a token that can read it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonModelIncomplete, Subject: operations.SubjectModel.WithName("org/repo"), Hive: "gpu-1", Message: `model "org/repo" is incomplete: its download was not finished`},
			"run `rbee download-model org/repo --hive gpu-1` to continue the download", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonModelInUse, Subject: operations.SubjectModel.WithName("org/repo"), Hive: "gpu-1", Message: "model org/repo is used by worker vllm-1: stop it first"},
			"run `rbee list-workers --hive gpu-1` to see which workers use it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonModelInvalid, Subject: operations.SubjectModel.WithName("org/repo"), Hive: "gpu-1", Message: `the hub lists an invalid file of org/repo: "../x"`},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDownload, Subject: operations.SubjectModel.WithName("org/model-401"), Hive: "gpu-1", Message: "cannot download model-401.gguf: the server answered 503 Service Unavailable; the partial download is kept"},
			"check that the server is reachable, then run the command again; downloaded parts are kept", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonHostRefused, Message: `invalid Host header "evil.example": want a name of this server`},
			"run `rbee serve --host NAME` to allow the host name", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOriginRefused, Message: `the origin "https://evil.example" is not allowed`},
			"run `rbee serve --origin URL` to allow the web page", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonUnsupportedMediaType, Message: `invalid content type "text/plain": want application/json`},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonBodyTooLarge, Message: "the request body has 99 bytes, more than the limit of 9"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonKeysRequired, Message: "API keys are required, because other machines can reach this server, but it has none"},
			"run `rbee key add NAME --scope admin` on the machine of the queen and set $RBEE_API_KEY to the key; `rbee key list` lists the valid keys", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonMissingAPIKey, Message: "missing API key: send the header Authorization: Bearer rbee_…"},
			"run `rbee key add NAME --scope admin` on the machine of the queen and set $RBEE_API_KEY to the key; `rbee key list` lists the valid keys", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonKeysUnreadable, Message: "the server cannot read its API keys; see its log"},
			"check the log of the queen for the cause", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonInvalidAPIKey, Message: "invalid API key: it is unknown or was revoked"},
			"run `rbee key add NAME --scope admin` on the machine of the queen and set $RBEE_API_KEY to the key; `rbee key list` lists the valid keys", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonInsufficientScope, Message: `API key ci has the scope "infer", but the request needs "admin"`},
			"run `rbee key add NAME --scope admin` on the machine of the queen and set $RBEE_API_KEY to the key; `rbee key list` lists the valid keys", 1},
	} {
		seen[c.err.Reason] = true
		name := fmt.Sprintf("%s of %s", c.err.Reason, c.err.Subject.Kind)
		var stdout, stderr bytes.Buffer
		a := newApp(Process{Stdout: &stdout, Stderr: &stderr, Env: []string{"LC_ALL=C.UTF-8"}})
		exit := a.finish(t.Context(), &c.err)
		if c.err.Code == codeUsage {
			exit = exitCode(&usageError{message: c.err.Message}) // the code of a usage error
		}
		want := "❌ "
		if c.err.Hive != "" {
			want += c.err.Hive + ": "
		}
		want += c.err.Message + "\n"
		if c.hint != "" {
			want += "   hint: " + c.hint + "\n"
		}
		if stderr.String() != want || stdout.Len() > 0 {
			t.Errorf("%s: printed %q to stdout and %q to stderr, want %q on stderr", name, stdout.String(), stderr.String(), want)
		}
		if exit != c.exit {
			t.Errorf("%s: exit code %d, want %d", name, exit, c.exit)
		}
		a.json = true
		stderr.Reset()
		a.finish(t.Context(), &c.err)
		var doc struct{ Error struct{ Reason, Hint string } }
		if err := json.Unmarshal(stdout.Bytes(), &doc); err != nil || doc.Error.Reason != string(c.err.Reason) || doc.Error.Hint != c.hint || stderr.Len() > 0 {
			t.Errorf("%s: printed the JSON %s and stderr %q (%v), want reason and hint in the JSON", name, stdout.String(), stderr.String(), err)
		}
	}
	for _, reason := range operations.Reasons() {
		if !seen[reason] {
			t.Errorf("no case for reason %s", reason)
		}
	}
}
