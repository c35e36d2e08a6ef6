package format

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// WorkerProblem returns the problem of a worker, with its exit status.
func WorkerProblem(w operations.WorkerProcess) string {
	text := w.Problem
	if w.ExitStatus != nil && !strings.Contains(text, fmt.Sprintf("exit status %d", *w.ExitStatus)) {
		text = fmt.Sprintf("exit status %d", *w.ExitStatus) + Prefixed(": ", text)
	}
	return text
}

// DeviceIndices formats the indices of devices: 0,1.
func DeviceIndices(devices []operations.WorkerDevice) string {
	list := make([]string, len(devices))
	for i, d := range devices {
		list[i] = fmt.Sprint(d.Index)
	}
	return strings.Join(list, ",")
}

// WorkerUptime formats the time since a worker's process was started, or returns
// "" if the process is not running.
func WorkerUptime(w operations.WorkerProcess, now time.Time) string {
	switch w.State {
	case operations.WorkerStopped, operations.WorkerFailed:
		return ""
	}
	since := cmp.Or(w.StartedAt, w.CreatedAt)
	if since.IsZero() {
		return ""
	}
	return Age(now.Sub(since))
}

// Restart formats the time until a worker is restarted.
func Restart(at, now time.Time) string {
	if left := at.Sub(now); left > 0 {
		return "restart in " + Age(left)
	}
	return "restart now"
}
