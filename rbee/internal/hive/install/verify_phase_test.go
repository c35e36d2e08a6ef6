package install

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestVerifyPhase checks that an install reports the verify phase.
func TestVerifyPhase(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	program := []byte("#!/bin/sh\n")
	step := worker("1", "", program)
	step.Worker.Verify = &wire.Verify{Command: []string{"{entry}"}}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- h.Apply(t.Context(), inR, outW) }()
	if err := wire.WriteRequest(inW, &wire.Request{Schema: wire.Schema, Owner: "tester", LockWait: time.Minute, Steps: []wire.Step{step}}); err != nil {
		t.Fatal(err)
	}
	reported := false
	for r := wire.NewReader(outR); ; {
		var m wire.Message
		if err := r.Read(&m); err != nil {
			t.Fatal(err)
		}
		switch {
		case m.Need != nil:
			if err := wire.SendBlob(inW, bytes.NewReader(program), false); err != nil {
				t.Fatal(err)
			}
		case m.Progress != nil:
			reported = reported || m.Progress.Phase == wire.PhaseVerify
		case m.Result != nil:
			if err := <-done; err != nil || m.Result.Errors[0] != "" || !reported {
				t.Errorf("Apply() = %v, errors %q, verify phase reported: %t; want no error and true", err, m.Result.Errors, reported)
			}
			return
		}
	}
}
