package gpu

import (
	"context"
	_ "embed" // for probe.sh
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

//go:embed probe.sh
var probeScript string

// ProbeScript returns a POSIX shell script that prints the input for [Parse]. Use it on
// machines without a program that has a [Detector]. The script searches for tools in the same
// directories as a Detector. If the machine has timeout(1), the script runs each tool for at
// most 10 seconds. The script always exits with status 0.
func ProbeScript() string {
	return fmt.Sprintf("tool_dirs='%s'\nnvidia_fields='%s'\ntool_limit=%d\n",
		strings.Join(toolDirs(), " "), strings.Join(nvidiaFields(), ","), int(probeTimeout/time.Second)) + probeScript
}

// ErrNoProbe is the error that [Parse] returns for text that does not contain the complete
// output of the script from [ProbeScript].
var ErrNoProbe = errors.New("incomplete output of the GPU probe")

// probeTimeout is the time limit of the script for each tool.
const probeTimeout = 10 * time.Second

// isTimeout reports whether an exit status means that timeout(1) killed a tool: 124, or 143
// with BusyBox, or 137 after SIGKILL.
func isTimeout(status int) bool { return status == 124 || status == 137 || status == 143 }

// Parse parses the output of the script from [ProbeScript]. It returns the devices that
// [Detector.Devices] would return on the machine that ran the script. Parse does not run
// programs. It ignores text before the output of the script.
func Parse(out []byte) ([]Device, error) {
	rec, err := parseRecording(string(out))
	if err != nil {
		return nil, err
	}
	d := &Detector{Timeout: probeTimeout, Run: rec.run, recorded: rec.sysfs, goos: strings.ToLower(rec.os), Proc: noProc}
	return d.Devices(context.Background())
}

// noProc is the mount point of procfs for a recording, which contains no files of procfs.
const noProc = "/nonexistent"

// recording is the parsed output of the script.
type recording struct {
	os    string // the output of uname -s
	sysfs recordedSysfs
	runs  map[string]Result // by command line
}

// sectionMark starts a section of the script's output: a line with its kind and arguments,
// and then its text.
const sectionMark = "\x1c"

func parseRecording(out string) (*recording, error) {
	rec := &recording{sysfs: recordedSysfs{files: map[string]string{}, links: map[string]string{}}, runs: map[string]Result{}}
	var last string // command line
	_, out, _ = strings.Cut(out, sectionMark)
	for part := range strings.SplitSeq(out, sectionMark) {
		head, body, _ := strings.Cut(part, "\n")
		kind, args, _ := strings.Cut(head, " ")
		switch kind {
		case "os":
			rec.os = args
		case "file":
			rec.sysfs.files[args] = body
		case "link":
			rec.sysfs.links[args] = strings.TrimSpace(body)
		case "run":
			status, line, _ := strings.Cut(args, " ")
			code, err := strconv.Atoi(status)
			if err != nil {
				return nil, fmt.Errorf("%w: invalid exit status %q", ErrNoProbe, status)
			}
			last = line
			rec.runs[line] = Result{Stdout: []byte(body), ExitCode: code}
		case "err":
			if r, ok := rec.runs[last]; ok {
				r.Stderr = []byte(body)
				rec.runs[last] = r
			}
		case "end":
			return rec, nil
		}
	}
	return nil, ErrNoProbe
}

// run implements [Runner] with recorded results.
func (rec *recording) run(_ context.Context, name string, args ...string) (Result, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	r, ok := rec.runs[line]
	switch {
	case ok && isTimeout(r.ExitCode):
		return Result{}, context.DeadlineExceeded
	case ok:
		return r, nil
	}
	for recorded := range rec.runs {
		if recorded == name || strings.HasPrefix(recorded, name+" ") {
			return Result{}, fmt.Errorf("%s was not recorded", line)
		}
	}
	return Result{}, fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
