package ui

import (
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

func TestStepProgress(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]operations.Event{
		"vllm: unpacking 120/199 packages":                {StepPhase: operations.StepPhaseUnpack, Count: 120, CountTotal: 199, Unit: "packages"},
		"vllm: checking 31,000/62,000 files":              {StepPhase: operations.StepPhaseCheck, Count: 31_000, CountTotal: 62_000, Unit: "files"},
		"vllm: removing 1,234,567 files":                  {StepPhase: operations.StepPhaseRemove, Count: 1_234_567, Unit: "files"},
		"vllm: removing":                                  {StepPhase: operations.StepPhaseRemove, Unit: "files"},
		"vllm: downloading 1.0 GiB/3.0 GiB":               {StepPhase: operations.StepPhaseDownload, Bytes: 1 << 30, Total: 3 << 30},
		"vllm: creating the environment: 12/199 packages": {StepPhase: operations.StepPhaseEnvironment, Count: 12, CountTotal: 199, Unit: "packages"},
		"vllm: creating the environment":                  {StepPhase: operations.StepPhaseEnvironment},
		"vllm: writing to disk":                           {StepPhase: operations.StepPhaseSync},
		"vllm: polishing 5 B/9 B":                         {StepPhase: "polishing", Bytes: 5, Total: 9},
		"vllm: compiling 999/1,000 files":                 {StepPhase: operations.StepPhaseCompile, Count: 999, CountTotal: 1000, Unit: "files"},
	} {
		e.Step = &operations.Step{Worker: "vllm"}
		if got := stepProgress(e); got != want {
			t.Errorf("stepProgress(%+v) = %q, want %q", e, got, want)
		}
	}
	if got := stepProgress(operations.Event{Step: &operations.Step{}, StepPhase: operations.StepPhaseSend, Bytes: 1024}); got != "rbee: sending 1.0 KiB" {
		t.Errorf("stepProgress of a step without a worker = %q, want %q", got, "rbee: sending 1.0 KiB")
	}
}

// TestPlainLimitsStepLines checks that a line is written for each phase of a step
// and for each tenth of it, at least 2s and at most 30s apart.
func TestPlainLimitsStepLines(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	p := &Plain{W: &out}
	start := time.Unix(1000, 0)
	worker := operations.Step{Hive: "gpu-1", Action: operations.ActionInstallWorker, Worker: "vllm"}
	at := func(seconds float64, phase operations.StepPhase, count, total int64) {
		p.Handle(operations.Event{
			Time: start.Add(time.Duration(seconds * float64(time.Second))), Type: operations.EventProgress, Hive: "gpu-1", Step: &worker,
			StepPhase: phase, Count: count, CountTotal: total, Unit: "files",
		})
	}
	at(0, operations.StepPhaseUnpack, 0, 100)
	at(1, operations.StepPhaseUnpack, 50, 100)
	at(2, operations.StepPhaseUnpack, 51, 100)
	at(3, operations.StepPhaseCheck, 0, 100)   // too soon
	at(4, operations.StepPhaseCheck, 1, 100)   // another phase
	at(7, operations.StepPhaseCheck, 9, 100)   // the same tenth
	at(8, operations.StepPhaseCheck, 10, 100)  // the next tenth
	at(38, operations.StepPhaseCheck, 11, 100) // after 30s
	p.Handle(operations.Event{Type: operations.EventStep, Hive: "gpu-1", Step: &worker, StepStatus: operations.StepStarted})
	at(50, operations.StepPhaseUnpack, 0, 100)
	want := "gpu-1: vllm: unpacking 51/100 files\ngpu-1: vllm: checking 1/100 files\n" +
		"gpu-1: vllm: checking 10/100 files\ngpu-1: vllm: checking 11/100 files\n"
	if out.String() != want {
		t.Errorf("Plain wrote\n%s\nwant\n%s", out.String(), want)
	}
}

func TestLiveShowsSteps(t *testing.T) {
	t.Parallel()
	l, s, _ := newTestLive(t, 70, 24)
	worker := step("gpu-1", operations.ActionInstallWorker, "vllm")
	l.Handle(operations.Event{Type: operations.EventProgress, Hive: "gpu-1", Step: &worker, Bytes: 3, Total: 4})
	l.Handle(operations.Event{Type: operations.EventProgress, Hive: "gpu-1", Step: &worker, StepPhase: operations.StepPhaseUnpack, Count: 120, CountTotal: 199, Unit: "packages"})
	if got := redrawn(l, s); !strings.Contains(got, "vllm: unpacking 120/199 packages\n") || strings.Contains(got, "3 B/4 B") {
		t.Errorf("draw wrote %q, want the phase of the step without bytes", got)
	}
}
