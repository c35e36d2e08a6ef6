package ui

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// stepVerbs are the descriptions of the phases of a step.
var stepVerbs = map[operations.StepPhase]string{
	operations.StepPhaseFetch:       "fetching",
	operations.StepPhaseSend:        "sending",
	operations.StepPhaseDownload:    "downloading",
	operations.StepPhaseUnpack:      "unpacking",
	operations.StepPhaseEnvironment: "creating the environment:",
	operations.StepPhaseCompile:     "compiling",
	operations.StepPhaseCheck:       "checking",
	operations.StepPhaseSync:        "writing to disk",
	operations.StepPhaseVerify:      "verifying",
	operations.StepPhaseRemove:      "removing",
}

// stepProgress describes the progress of a step: "vllm: unpacking 120/199 packages".
func stepProgress(e operations.Event) string {
	verb, ok := stepVerbs[e.StepPhase]
	if !ok {
		verb = oneLine(string(e.StepPhase))
	}
	text := cmp.Or(oneLine(e.Step.Worker), "rbee") + ": " + verb
	switch {
	case e.Unit != "" && e.CountTotal > 0:
		text += " " + formatThousands(e.Count) + "/" + formatThousands(e.CountTotal) + " " + oneLine(e.Unit)
	case e.Unit != "" && e.Count > 0:
		text += " " + formatThousands(e.Count) + " " + oneLine(e.Unit)
	case e.Bytes > 0 || e.Total > 0:
		text += " " + formatTransfer(e.Bytes, e.Total)
	}
	return strings.TrimSuffix(text, ":")
}

// formatThousands formats a number with thousands separators: 31,000.
func formatThousands(n int64) string {
	text := strconv.FormatInt(max(n, 0), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// plainStep is the state of the last line about the step of a hive.
type plainStep struct {
	at     time.Time // time of the line
	phase  operations.StepPhase
	tenths int64
}

// step returns a line about the progress of a step when a new phase starts, after each
// tenth of a phase, and after maxLineInterval, but at most one per minLineInterval.
// Otherwise it returns "".
func (p *Plain) step(e operations.Event) string {
	if e.StepPhase == "" {
		return ""
	}
	s := p.steps[e.Hive]
	if s == nil {
		if p.steps == nil {
			p.steps = map[string]*plainStep{}
		}
		p.steps[e.Hive] = &plainStep{at: e.Time}
		return ""
	}
	done, total := e.Bytes, e.Total
	if e.Unit != "" {
		done, total = e.Count, e.CountTotal
	}
	tenths := int64(0)
	if total > 0 {
		tenths = int64(float64(done) / float64(total) * 10)
	}
	since := e.Time.Sub(s.at)
	if since < minLineInterval || e.StepPhase == s.phase && tenths == s.tenths && since < maxLineInterval {
		return ""
	}
	*s = plainStep{at: e.Time, phase: e.StepPhase, tenths: tenths}
	return stepProgress(e)
}
