package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
)

// TestReasons shows, for every reason, the error as the program prints it, its hint
// and its exit code. Numbers and words of other reasons in names and messages
// change none of them.
func TestReasons(t *testing.T) {
	t.Parallel()
	seen := map[operations.Reason]bool{}
	for _, c := range []struct {
		err  operations.Error
		hint string
		exit int
	}{
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonFailed, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "cannot compress the rbee binary: short write"},
			"", 1},
		{operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "canceled"},
			"run the same command again to go on: what is done stays done", 130},
		{operations.Error{Code: codeUsage, Reason: operations.ReasonUsage, Message: "missing flags: --model=MODEL"},
			"", 64},
		{operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Message: `package_sync: field "parallel" is -1, want 0 (rbee chooses) or more`},
			"", 64},
		{operations.Error{Code: operations.CodeRemovedOperation, Reason: operations.ReasonRemovedOperation, Message: `operation "hive_install" was removed: use "package_sync"`},
			"", 64},
		{operations.Error{Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: "this rbee does not know moon_landing"},
			"", 1},
		{operations.Error{Code: operations.CodeLocked, Reason: operations.ReasonLocked, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "another run is in progress: locked by me@laptop, pid 7"},
			"wait until the other run is done, or wait longer with --lock-wait 5m", 5},
		{operations.Error{Code: operations.CodeUnsupported, Reason: operations.ReasonNewerHive, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "rbee v2.0.0 on the hive is newer than this one, v1.0.0"},
			"update this rbee, or replace the one of the hive with `rbee sync --hive gpu-1 --downgrade`", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonStateChanged, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "the hive changed since the plan was made"},
			"make the plan again: `rbee sync --dry-run` shows what it is now", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNewerFile, Subject: operations.SubjectFile.Named("/h/run/settings.json"), Hive: "gpu-1", Message: "/h/run/settings.json was written by a newer rbee"},
			"update this rbee; a newer one can read the file", 1},
		{operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonExists, Subject: operations.SubjectFile.Named("hives.conf"), Message: "hives.conf exists already, and is only overwritten with force"},
			"--force overwrites it", 64},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotBegun, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "not started"},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectJob.Named("4f"), Message: `there is no job "4f"`},
			"", 1},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonResolve, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "dial gpu-1:22: no such host"},
			"check hostname in the config, or add the host to ~/.ssh/config or the DNS", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonRefused, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "dial gpu-1:22: connection refused"},
			"nothing listens there: check ssh_port, and that sshd runs on the machine", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonRefused, Subject: operations.SubjectQueen.Named("http://127.0.0.1:8500"), Message: "http://127.0.0.1:8500 cannot be reached: connection refused"},
			"`rbee serve` starts a queen; --queen or $RBEE_QUEEN says where one is", 4},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonRefused, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "downloading https://example.org/engine: connection refused"},
			"", 1},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonTimeout, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "dial gpu-1:22: no answer within 15s"},
			"check that the machine is on and that its address and network are right; --timeout gives it longer", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonUnreachable, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "dial gpu-1:22: no route to host"},
			"check that the machine is on and that its address and network are right; --timeout gives it longer", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonAuth, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "dial gpu-1:22: permission denied"},
			"check ssh_user and ssh_key; `ssh-copy-id` puts your key on the machine, and `ssh -v` shows what it refuses", 4},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonAuth, Subject: operations.SubjectQueen.Named("http://127.0.0.1:8500"), Message: "the token was refused by http://127.0.0.1:8500"},
			"`rbee key add NAME --scope admin` on the queen's machine makes a key, and `rbee key list` shows those that are good; put one into $RBEE_API_KEY", 1},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonHostKeyUnknown, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "host key of gpu-1 is unknown"},
			"log in once with `ssh` and compare the fingerprint, or trust new hosts with --accept-new-host-keys", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonHostKeyChanged, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "host key of gpu-1 has changed"},
			"if the machine was set up anew, remove its old key with `ssh-keygen -R HOST`; if not, somebody may be listening in", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonProtocol, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "this is no SSH server"},
			"check ssh_port: what answers there is no SSH server that rbee can speak with", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonLost, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "connection to gpu-1:22: EOF"},
			"run the command again: nothing is left half-done", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonSSHConfig, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "key file: id_x: no such file"},
			"check ~/.ssh/config, the known_hosts files and ssh_key", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonProhibited, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "through its jump host: administratively prohibited"},
			"the SSH server on the way does not allow forwarding: set AllowTcpForwarding in its sshd_config", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonDaemon, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "the hive daemon does not run"},
			"`rbee start-hive gpu-1` starts it", 4},
		{operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonConnecting, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "the hive has not been heard yet"},
			"the queen is still connecting: `rbee top` shows how far it is", 4},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherProgram, Subject: operations.SubjectQueen.Named("http://127.0.0.1:80"), Message: `http://127.0.0.1:80 answered "200 OK" with text/html, which is no rbee`},
			"check the address in --queen or $RBEE_QUEEN: `rbee serve` prints it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherProgram, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "the machine's shell answered nothing that rbee understands"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherVersion, Subject: operations.SubjectQueen.Named("http://127.0.0.1:8500"), Message: `http://127.0.0.1:8500 tells nothing of its fleet: it answered "404 Not Found"`},
			"a queen of this version does; `rbee version` tells it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherVersion, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "the daemon runs another rbee"},
			"`rbee sync --hive gpu-1` brings it this version", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonStopping, Message: "rbee there is ending and takes no new jobs"},
			"run the command again in a moment", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonBusy, Message: "64 jobs run there already, which is the most"},
			"run the command again in a moment", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonConfigMissing, Subject: operations.SubjectFile.Named("/c/hives.conf"), Message: "there is no config file /c/hives.conf"},
			"write a first config with `rbee init`, or name yours with --config", 1},
		{operations.Error{Code: operations.CodeConfigInvalid, Reason: operations.ReasonConfigInvalid, Message: "hives.conf is not a valid config: 1 problem"},
			"", 3},
		{operations.Error{Code: operations.CodeConfigInvalid, Reason: operations.ReasonLockfileInvalid, Subject: operations.SubjectFile.Named("/c/hives.lock"), Message: "cannot read the lock /c/hives.lock: unexpected end of JSON input"},
			"restore /c/hives.lock from version control, or remove it: `rbee sync` writes a new one", 3},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonRecordInvalid, Subject: operations.SubjectFile.Named("/s/fleet.json"), Message: "cannot read the record of hives: /s/fleet.json: unexpected end of JSON input"},
			"restore /s/fleet.json from a backup, or remove it: `rbee sync` writes a new one, which lacks the hives that are not in the config", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoHome, Message: "cannot determine the home directory: HOME is not set"},
			"set HOME to your home directory", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNoHives, Message: "the config has no hive"},
			"add one to the config; `rbee init` writes a first one", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownHive, Subject: operations.SubjectHive.Named("gpu-9"), Hive: "gpu-9", Message: "the config has no such hive"},
			"`rbee list-hives` shows the hives that are known", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownWorker, Subject: operations.SubjectWorker.Named("nosuch"), Message: "the config wants no nosuch on any hive"},
			"add nosuch to a hive's workers in the config; `rbee status --verbose` shows what hives have", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownRecipe, Subject: operations.SubjectWorker.Named("vlm"), Message: "there is no recipe for a worker type 'vlm', did you mean 'vllm'?"},
			"`rbee catalog list` shows the worker types that there are", 1},
		{operations.Error{Code: operations.CodeConfigInvalid, Reason: operations.ReasonInvalidRecipe, Message: "x.yaml is not a valid recipe: 2 problems"},
			"", 3},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownSSHHosts, Message: `no host in ssh_config is named like "gpu-*"`},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotInstalled, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "rbee is not installed there"},
			"`rbee sync --hive gpu-1` installs it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDiskFull, Subject: operations.SubjectModel.Named("org/401-403"), Hive: "gpu-1", Message: `model "org/401-403" needs 3 GiB more, and 2 GiB are free`},
			"free some space on the machine's disk, then run the command again", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPermissionDenied, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "mkdir /opt/rbee: permission denied"},
			"rbee needs a home directory that its user may write to; RBEE_HOME on the machine moves it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPermissionDenied, Subject: operations.SubjectFile.Named("/c/hives.conf"), Message: "cannot read the config file: open /c/hives.conf: permission denied"},
			"check the owner and the permissions of /c/hives.conf and of its directory", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonReadOnly, Subject: operations.SubjectFile.Named("/c/hives.lock"), Message: "writing the lock: read-only file system"},
			"mount the file system of /c/hives.lock read-write, or use a file in another directory", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDiskFull, Subject: operations.SubjectFile.Named("/c/fleet.rbee"), Message: "cannot write the bundle: no space left on device"},
			"free some space on the disk of this machine, then run the command again", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPermissionDenied, Subject: operations.SubjectFile.Named("/h/run/lock"), Hive: "gpu-1", Message: "open /h/run/lock: permission denied"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonReadOnly, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "mkdir /opt/rbee: read-only file system"},
			"rbee needs a home directory that its user may write to; RBEE_HOME on the machine moves it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPortInUse, Subject: operations.SubjectPort.Named("8600"), Hive: "gpu-1", Message: "port 8600 is held by another process"},
			"another program uses the port: choose another hive_port in the config", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPortInUse, Subject: operations.SubjectWorker.Named("vllm-3c4d"), Hive: "gpu-1", Message: "port 9000 cannot be had: address already in use"},
			"another program uses the port: choose another --port", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonPortInUse, Subject: operations.SubjectQueen.Named("127.0.0.1:8500"), Message: "queen: listen tcp 127.0.0.1:8500: bind: address already in use"},
			"another program uses the port: choose another --addr", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonLookup, Hive: "gpu-1", Message: "asking https://pypi.org/simple/vllm: the server answers 503"},
			"check that the server can be reached from there, then run the command again: what has arrived is kept", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotLocked, Hive: "gpu-1", Message: "the version is not locked yet; run `rbee sync` to lock it"},
			"`rbee sync` looks it up", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonUnknownVersion, Subject: operations.SubjectWorker.Named("vllm"), Hive: "gpu-1", Message: `worker vllm has no version "9"; known: 1, 2`},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonUnfitMachine, Subject: operations.SubjectWorker.Named("vllm"), Hive: "gpu-1", Message: "worker vllm 0.9 does not run there: no NVIDIA GPU is found"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoSolution, Subject: operations.SubjectWorker.Named("vllm"), Hive: "gpu-1", Message: "cannot resolve the packages of vllm 0.9 for linux/amd64"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoBinary, Hive: "gpu-1", Message: "no rbee for freebsd/amd64"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherBuild, Subject: operations.SubjectHive.Named("gpu-1"), Hive: "gpu-1", Message: "the plan requires rbee 1.0.0 with SHA-256 401, but this build has SHA-256 402"},
			"make the plan again with this rbee, or apply it with the rbee that made it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonChecksum, Subject: operations.SubjectWorker.Named("engine"), Hive: "gpu-1", Message: "it is not what was promised: SHA-256 4010401, want 0401"},
			"run the command again; if the content stays wrong, do not trust its source", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonVerifyFailed, Subject: operations.SubjectWorker.Named("vllm"), Hive: "gpu-1", Message: "cannot verify vllm 0.9: exit status 1"},
			"the worker's own output says why: it cannot use this machine; its driver or a library may be missing or too old", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoPreviousVersion, Subject: operations.SubjectWorker.Named("vllm"), Hive: "gpu-1", Message: "no earlier version of vllm is there, only 0.9"},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonWorkerNotInstalled, Subject: operations.SubjectWorker.Named("vllm"), Hive: "gpu-1", Message: "worker type vllm is not installed there"},
			"name it in the config's workers, then `rbee sync --hive gpu-1` installs it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonWorkerDamaged, Subject: operations.SubjectWorker.Named("vllm"), Hive: "gpu-1", Message: "worker type vllm is damaged: bin/x has changed"},
			"`rbee sync --hive gpu-1` installs it again", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonWorkerNotFound, Subject: operations.SubjectWorker.Named("vllm-9"), Hive: "gpu-1", Message: `no worker "vllm-9" runs here; there are none`},
			"`rbee list-workers --all` shows the workers there are", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonWorkerAmbiguous, Subject: operations.SubjectWorker.Named("vllm"), Message: `"vllm" may be vllm-1 on gpu-1 or vllm-2 on gpu-2`},
			"say which one: more of the id, or its hive with --hive", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonWorkerNotReady, Subject: operations.SubjectWorker.Named("vllm-1"), Hive: "gpu-1", Message: "worker vllm-1 is loading, not ready"},
			"run the command again in a moment", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonWorkerFailed, Subject: operations.SubjectWorker.Named("vllm-1"), Hive: "gpu-1", Message: "worker vllm-1 answered 500 Internal Server Error"},
			"`rbee worker-logs vllm-1 --hive gpu-1` shows what it wrote", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNoWorker, Subject: operations.SubjectModel.Named("model-401"), Message: "no ready worker serves model-401"},
			"`rbee spawn-worker --worker TYPE --model model-401` starts one", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNoWorkflowWorker, Subject: operations.SubjectModel.Named("sdxl"), Hive: "gpu-1", Message: "no ready worker runs workflows with sdxl"},
			"`rbee spawn-worker --hive gpu-1 --worker comfyui --model sdxl` starts one", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonRestarting, Subject: operations.SubjectModel.Named("m"), Message: "no ready worker serves m"},
			"run the command again in a moment", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonUnfitModel, Subject: operations.SubjectWorker.Named("llama-cpp"), Hive: "gpu-1", Message: "llama-cpp wants one file of a model, and org/repo is several"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoRoom, Subject: operations.SubjectModel.Named("org/big"), Hive: "gpu-1", Message: "vllm with org/big does not fit"},
			"`rbee hive-capabilities gpu-1` shows what holds the memory: stop a worker, or use more devices or a smaller --context", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonTooLarge, Subject: operations.SubjectModel.Named("org/big"), Hive: "gpu-1", Message: "vllm with org/big does not fit"},
			"`rbee hive-capabilities gpu-1` shows what holds the memory: stop a worker, or use more devices or a smaller --context", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonDeviceNotFound, Subject: operations.SubjectDevice.Named("7"), Hive: "gpu-1", Message: "unknown device 7: this machine has no accelerator"},
			"`rbee hive-capabilities gpu-1` shows the devices there are", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDeviceAmbiguous, Hive: "gpu-1", Message: `device "0" is ambiguous`},
			"`rbee hive-capabilities gpu-1` shows the devices there are", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDeviceUnusable, Hive: "gpu-1", Message: "vllm requires an nvidia accelerator, but this machine has no accelerator"},
			"`rbee hive-capabilities gpu-1` shows the devices there are", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonModelNotFound, Subject: operations.SubjectModel.Named("org/model-401"), Hive: "gpu-1", Message: `model "org/model-401" is not on this hive`},
			"`rbee download-model org/model-401 --hive gpu-1` fetches it", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonModelUnknown, Subject: operations.SubjectModel.Named("org/model-401"), Hive: "gpu-1", Message: `there is no model "org/model-401" at https://huggingface.co`},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonModelAmbiguous, Subject: operations.SubjectModel.Named("org/repo:x"), Hive: "gpu-1", Message: `model "org/repo:x" has several files of that name`},
			"", 1},
		{operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonModelAmbiguous, Subject: operations.SubjectModel.Named("org/repo"), Message: `"org/repo" may be org/repo:Q4 on gpu-1 or org/repo:Q8 on gpu-2`},
			"say which one: more of the id, or its hive with --hive", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonModelGated, Subject: operations.SubjectModel.Named("org/repo"), Hive: "gpu-1", Message: `model "org/repo" is gated`},
			"accept the model's terms on its page, and set HF_TOKEN to a token that may read it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonModelIncomplete, Subject: operations.SubjectModel.Named("org/repo"), Hive: "gpu-1", Message: `model "org/repo" is not whole here`},
			"`rbee download-model org/repo --hive gpu-1` goes on with it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonModelInUse, Subject: operations.SubjectModel.Named("org/repo"), Hive: "gpu-1", Message: "model org/repo is used by worker vllm-1: stop it first"},
			"`rbee list-workers --hive gpu-1` shows who uses it", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonModelInvalid, Subject: operations.SubjectModel.Named("org/repo"), Hive: "gpu-1", Message: `the hub lists a file of org/repo that cannot be: "../x"`},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDownload, Subject: operations.SubjectModel.Named("org/model-401"), Hive: "gpu-1", Message: "fetching model-401.gguf: 503 Service Unavailable; what has arrived is kept"},
			"check that the server can be reached from there, then run the command again: what has arrived is kept", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonHostRefused, Message: `the Host header is "evil.example", which is no name of this server`},
			"`rbee serve --host NAME` names what else the server is called", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOriginRefused, Message: "a page of another site may not ask this server"},
			"`rbee serve --origin URL` lets the pages of that address ask", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonUnsupportedMediaType, Message: `the content type is "text/plain", want application/json`},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonBodyTooLarge, Message: "the body has 99 bytes, at most 9 are taken"},
			"", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonKeysRequired, Message: "this server can be reached by others than its own machine and has no keys"},
			"`rbee key add NAME --scope admin` on the queen's machine makes a key, and `rbee key list` shows those that are good; put one into $RBEE_API_KEY", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonMissingAPIKey, Message: "a key is needed here"},
			"`rbee key add NAME --scope admin` on the queen's machine makes a key, and `rbee key list` shows those that are good; put one into $RBEE_API_KEY", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonKeysUnreadable, Message: "this server cannot read its keys, its log says why"},
			"the queen's log says why it cannot read its keys", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonInvalidAPIKey, Message: "this server does not know the key"},
			"`rbee key add NAME --scope admin` on the queen's machine makes a key, and `rbee key list` shows those that are good; put one into $RBEE_API_KEY", 1},
		{operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonInsufficientScope, Message: `the key ci has the scope "infer", this takes "admin"`},
			"`rbee key add NAME --scope admin` on the queen's machine makes a key, and `rbee key list` shows those that are good; put one into $RBEE_API_KEY", 1},
	} {
		seen[c.err.Reason] = true
		name := fmt.Sprintf("%s of %s", c.err.Reason, c.err.Subject.Kind)
		var stdout, stderr bytes.Buffer
		a := newApp(Process{Stdout: &stdout, Stderr: &stderr, Env: []string{"LC_ALL=C.UTF-8"}})
		exit := a.finish(t.Context(), &c.err)
		if c.err.Code == codeUsage {
			exit = exitCode(&usageError{message: c.err.Message}) // a usage error has no other form
		}
		want := "❌ "
		if c.err.Hive != "" {
			want += c.err.Hive + ": "
		}
		want += c.err.Message + "\n"
		if c.hint != "" {
			want += "   → " + c.hint + "\n"
		}
		if stderr.String() != want || stdout.Len() > 0 {
			t.Errorf("%s: printed %q and %q, want %q", name, stdout.String(), stderr.String(), want)
		}
		if exit != c.exit {
			t.Errorf("%s: exit code %d, want %d", name, exit, c.exit)
		}
		a.json = true
		stderr.Reset()
		a.finish(t.Context(), &c.err)
		var doc struct{ Error struct{ Reason, Hint string } }
		if err := json.Unmarshal(stdout.Bytes(), &doc); err != nil || doc.Error.Reason != string(c.err.Reason) || doc.Error.Hint != c.hint || stderr.Len() > 0 {
			t.Errorf("%s: JSON %s and %q (%v), want the same reason and hint", name, stdout.String(), stderr.String(), err)
		}
	}
	for _, reason := range operations.Reasons() {
		if !seen[reason] {
			t.Errorf("no case for reason %s", reason)
		}
	}
}
