package gpu

import (
	"context"
	_ "embed" // the probe
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

//go:embed probe.sh
var probeScript string

// ProbeScript returns a POSIX shell script that prints what [Parse] reads. It is for
// machines on which no program can be started that has a [Detector]. It finds tools
// where a detector finds them, runs each for at most 10 seconds where the machine has
// timeout(1), and always exits with 0.
func ProbeScript() string {
	return fmt.Sprintf("tool_dirs='%s'\nnvidia_fields='%s'\ntool_limit=%d\n",
		strings.Join(toolDirs(), " "), strings.Join(nvidiaFields(), ","), int(probeTimeout/time.Second)) + probeScript
}

// ErrNoProbe is the error of [Parse] for text without the complete output of the
// script of [ProbeScript].
var ErrNoProbe = errors.New("the output of the GPU probe is incomplete")

// probeTimeout is the limit that the script sets to each tool.
const probeTimeout = 10 * time.Second

// timedOut reports whether an exit status is that of a tool which timeout(1) killed:
// 124, or 143 with BusyBox; 137 if SIGTERM was not enough.
func timedOut(status int) bool { return status == 124 || status == 137 || status == 143 }

// Parse returns the devices that [Detector.Devices] would find on the machine on
// which the script of [ProbeScript] printed out. It runs nothing: the code that
// interprets the tools' output is that of the detector. Text before the output of
// the script is skipped.
func Parse(out []byte) ([]Device, error) {
	rec, err := parseRecording(string(out))
	if err != nil {
		return nil, err
	}
	d := &Detector{Timeout: probeTimeout, Run: rec.run, recorded: rec.sysfs, goos: strings.ToLower(rec.os), Proc: noProc}
	return d.Devices(context.Background())
}

// noProc is the procfs of a recording, which has none.
const noProc = "/nonexistent"

// recording is what the script printed.
type recording struct {
	os    string // as uname(1) writes it
	sysfs recordedSysfs
	runs  map[string]Result // by command line
}

// sectionMark begins a section of the script's output: a line with its kind and its
// arguments, then the text that belongs to it.
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
				return nil, fmt.Errorf("%w: %q is no exit status", ErrNoProbe, status)
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

// run is a [Runner] that returns what was recorded.
func (rec *recording) run(_ context.Context, name string, args ...string) (Result, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	r, ok := rec.runs[line]
	switch {
	case ok && timedOut(r.ExitCode):
		return Result{}, context.DeadlineExceeded
	case ok:
		return r, nil
	}
	for ran := range rec.runs {
		if ran == name || strings.HasPrefix(ran, name+" ") {
			return Result{}, fmt.Errorf("%s was not recorded", line)
		}
	}
	return Result{}, fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
