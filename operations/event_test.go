package operations

import "testing"

func TestEventString(t *testing.T) {
	t.Parallel()
	step := &Step{Hive: "gpu-1", Action: ActionInstallWorker, Worker: "vllm", Version: "0.33.0"}
	for want, e := range map[string]Event{
		"gpu-1: connecting":                           {Type: EventPhase, Hive: "gpu-1", Phase: PhaseConnecting},
		"gpu-1: waiting: locked by me":                {Type: EventPhase, Hive: "gpu-1", Phase: PhaseWaiting, Message: "locked by me"},
		"gpu-1: unreachable: no route":                {Type: EventPhase, Hive: "gpu-1", Phase: PhaseUnreachable, Error: &Error{Hive: "gpu-1", Message: "no route"}},
		"plan: 1 step, 0 differences":                 {Type: EventPlan, Plan: &Plan{Steps: []Step{*step}}},
		"gpu-1: install_worker vllm 0.33.0: done":     {Type: EventStep, Hive: "gpu-1", Step: step, StepStatus: StepDone},
		"gpu-1: install_worker vllm 0.33.0: send 50%": {Type: EventProgress, Hive: "gpu-1", Step: step, StepPhase: StepPhaseSend, Bytes: 5, Total: 10},
		"gpu-1: install_worker vllm 0.33.0: fetch":    {Type: EventProgress, Hive: "gpu-1", Step: step, StepPhase: StepPhaseFetch},
		"gpu-1: install_worker vllm 0.33.0: download": {Type: EventProgress, Hive: "gpu-1", Step: step, StepPhase: StepPhaseDownload, Bytes: 3 << 30},
		"gpu-1: remove_worker vllm 0.32.0: done": {
			Type: EventStep, Hive: "gpu-1", Step: &Step{Hive: "gpu-1", Action: ActionRemoveWorker, Worker: "vllm", From: "0.32.0"}, StepStatus: StepDone,
		},
		"gpu-1: install_worker vllm 0.33.0: unpack 7 of 9 packages": {
			Type: EventProgress, Hive: "gpu-1", Step: step, StepPhase: StepPhaseUnpack, Count: 7, CountTotal: 9, Unit: "packages",
		},
		"looking for the newest vllm": {Type: EventNote, Message: "looking for the newest vllm"},
		"gpu-1: worker w1: ready":     {Type: EventWorker, Hive: "gpu-1", Worker: &WorkerProcess{ID: "w1", State: "ready"}},
		"  a log line\n":              {Type: EventLog, Hive: "gpu-1", Text: "  a log line\n"},
	} {
		if got := e.String(); got != want {
			t.Errorf("String() of the %s event = %q, want %q", e.Type, got, want)
		}
	}
}
