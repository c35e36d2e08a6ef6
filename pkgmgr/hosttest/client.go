package hosttest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// lockWait is the LockWait of most requests, because a killed process may hold the lock for a moment.
const lockWait = 30 * time.Second

// stopTimeout limits the time that a machine takes to stop a canceled run.
const stopTimeout = 20 * time.Second

// client sends requests to a machine in a test.
type client struct {
	t       *testing.T
	suite   *suite
	machine *Machine
	host    pkgmgr.Host
}

// state reads the state of the machine with pkgmgr.
func (c *client) state() wire.State {
	c.t.Helper()
	f, err := pkgmgr.Open(&config.Config{Hives: []config.Hive{{Alias: "m", Hostname: "m", HivePort: c.machine.Port}}}, pkgmgr.Options{
		Connect:  func(ctx context.Context, _ config.Hive) (pkgmgr.Host, error) { return c.machine.Connect(ctx) },
		Binaries: c.machine.Binaries, Version: "0", CacheDir: c.t.TempDir(),
	})
	if err != nil {
		c.t.Fatalf("Open() = %v, want no error", err)
	}
	defer f.Close()
	f.Read(c.t.Context(), pkgmgr.ReadOptions{})
	states := f.States()
	if len(states) != 1 {
		c.t.Fatalf("States() has %d hives, want 1", len(states))
	}
	if err := states[0].Err; err != nil {
		c.t.Fatalf("States()[0].Err = %v, want no error", err)
	}
	return *states[0].State
}

// rbee returns the rbee binary for the machine.
func (c *client) rbee() *artifact.Binary {
	c.t.Helper()
	b, err := c.machine.Binaries.Binary(c.t.Context(), c.state().Platform, true)
	if err != nil {
		c.t.Fatalf("Binary() = %v, want no error", err)
	}
	return b
}

// upload uploads rbee and returns its path on the machine and its record for an install.
func (c *client) upload() (exe string, install *wire.BinaryRecord) {
	c.t.Helper()
	s, b := c.state(), c.rbee()
	compressed, err := c.suite.binaries.Get(b)
	if err != nil {
		c.t.Fatal(err)
	}
	exe = path.Join(s.Home, wire.BinDir, ".rbee-"+b.SHA256[:12]+"-"+rand.Text()[:8])
	if err := c.host.Put(c.t.Context(), exe, 0o755, bytes.NewReader(compressed.Gz), compressed.Sum); err != nil {
		c.t.Fatalf("Put(rbee) = %v, want no error", err)
	}
	return exe, &wire.BinaryRecord{Version: b.Version, SHA256: b.SHA256, Size: b.Size, MadeDirs: s.MissingDirs}
}

// installRbee installs rbee and returns its path.
func (c *client) installRbee() (exe string) {
	c.t.Helper()
	upload, install := c.upload()
	settings := &wire.Settings{Alias: "m", HivePort: c.machine.Port}
	c.mustApply(upload, &wire.Request{Settings: settings, Steps: []wire.Step{{Action: wire.ActionInstallSelf, Install: install}}}, nil)
	return path.Join(c.state().Home, wire.Binary)
}

// exchange contains the output of a run of `rbee hive apply`.
type exchange struct {
	messages []wire.Message // except the result
	result   *wire.Result   // nil if the machine sent none
	err      error          // of Host.Run
}

// needs returns the checksums of the artifacts that the machine requested.
func (e *exchange) needs() []string {
	var sums []string
	for _, m := range e.messages {
		if m.Need != nil {
			sums = append(sums, m.Need.SHA256)
		}
	}
	return sums
}

// failures returns the errors of the request and of all steps as one string; empty if nothing failed.
func (e *exchange) failures() string {
	switch {
	case e.result == nil:
		return fmt.Sprintf("no result: %v", e.err)
	case e.result.Locked != nil:
		return "locked by " + e.result.Locked.Holder
	}
	return e.result.Error + strings.Join(e.result.Errors, "")
}

// call contains the parameters of a run of `rbee hive apply`.
type call struct {
	ctx       context.Context
	exe       string
	body      []byte                                     // sent instead of the request; nil for none
	onMessage func(m wire.Message, stdin *io.PipeWriter) // called with each message except the result; may be nil
}

// start starts `rbee hive apply` and keeps stdin open until the machine sends the result.
func (c *client) start(k call, req *wire.Request) <-chan *exchange {
	host, done := c.host, make(chan *exchange, 1)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	runErr := make(chan error, 1)
	go func() {
		err := host.Run(k.ctx, []string{k.exe, "hive", "apply"}, inR, outW, nil)
		_ = inR.CloseWithError(io.ErrClosedPipe)
		_ = outW.Close()
		runErr <- err
	}()
	go func() {
		body := k.body
		if body == nil {
			var b bytes.Buffer
			_ = wire.WriteRequest(&b, req) // cannot fail: the writer is in memory
			body = b.Bytes()
		}
		_, _ = inW.Write(body) // if the machine stops reading, its result contains the reason
	}()
	messages := make(chan wire.Message, 1000) // buffered, because the machine can write while it receives a blob
	go func() {
		defer close(messages)
		for out := wire.NewReader(outR); ; {
			var m wire.Message
			if err := out.Read(&m); err != nil {
				return
			}
			if messages <- m; m.Result != nil {
				return
			}
		}
	}()
	go func() {
		e := &exchange{}
		for m := range messages {
			if e.result = m.Result; m.Result != nil {
				break
			}
			e.messages = append(e.messages, m)
			if k.onMessage != nil {
				k.onMessage(m, inW)
			}
		}
		_ = inW.Close()
		go func() { _, _ = io.Copy(io.Discard, outR) }()
		e.err = <-runErr
		done <- e
	}()
	return done
}

// apply runs a request and serves the machine's requests for artifacts from blobs, which maps checksums to contents. It
// aborts the transfer of other artifacts.
func (c *client) apply(exe string, req *wire.Request, blobs map[string][]byte) *exchange {
	c.t.Helper()
	req.Schema, req.Owner = cmp.Or(req.Schema, wire.Schema), "hosttest"
	if req.LockWait == 0 {
		req.LockWait = lockWait
	}
	k := call{ctx: c.t.Context(), exe: exe, onMessage: func(m wire.Message, stdin *io.PipeWriter) {
		if m.Need == nil {
			return
		}
		blob, ok := blobs[m.Need.SHA256]
		var body io.Reader = bytes.NewReader(blob)
		if !ok {
			body = errorReader{errors.New("hosttest: no such blob")}
		}
		_ = wire.SendBlob(stdin, body, false) // the machine's result reports the outcome
	}}
	return c.wait(c.start(k, req))
}

// wait waits for the end of a run and returns its output.
func (c *client) wait(done <-chan *exchange) *exchange {
	c.t.Helper()
	select {
	case e := <-done:
		c.checkCauses(e)
		return e
	case <-time.After(2 * time.Minute):
		c.t.Fatal("`rbee hive apply` does not exit within 2 minutes")
		return nil
	}
}

// checkCauses checks that a result has a cause for each error and no other causes.
func (c *client) checkCauses(e *exchange) {
	c.t.Helper()
	if e.result == nil {
		return
	}
	if (e.result.Error != "") != (e.result.Cause != nil) {
		c.t.Errorf("result has error %q with cause %+v, want both or neither", e.result.Error, e.result.Cause)
	}
	for i, text := range e.result.Errors {
		if cause := e.result.CauseOf(i); (text != "") != (cause != nil) {
			c.t.Errorf("step %d has error %q with cause %+v, want both or neither", i, text, cause)
		}
	}
}

// notStarted reports whether the error of a step is that the step was not started.
func notStarted(r *wire.Result, index int) bool {
	cause := r.CauseOf(index)
	return cause != nil && cause.Reason == operations.ReasonNotStarted
}

// mustApply applies a request that must succeed.
func (c *client) mustApply(exe string, req *wire.Request, blobs map[string][]byte) *exchange {
	c.t.Helper()
	e := c.apply(exe, req, blobs)
	if e.err != nil || e.result == nil || e.failures() != "" || len(e.result.Errors) != len(req.Steps) {
		c.t.Fatalf("apply(%+v) = errors %q, %v, want none", req.Steps, e.failures(), e.err)
	}
	return e
}

// worker returns the worker with the given type, or nil if it is not installed.
func worker(s *wire.State, typ string) *wire.Worker {
	for i := range s.Workers {
		if s.Workers[i].Type == typ {
			return &s.Workers[i]
		}
	}
	return nil
}

// checksum returns the SHA-256 of data in hex.
func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// program returns the content of a worker with a single file, and the step that installs it.
func program(typ, version string) (content []byte, step wire.Step) {
	content = []byte("#!/bin/sh\necho " + typ + " " + version + "\n")
	steps := []wire.InstallStep{{Kind: wire.StepFile, Artifact: &wire.Artifact{Name: typ, SHA256: checksum(content), Size: int64(len(content))}}}
	return content, wire.Step{Action: wire.ActionInstallWorker, Worker: &wire.WorkerInstall{
		Type: typ, Version: version, Requested: version, SHA256: wire.Digest(steps, ""), Steps: steps,
	}}
}

// blobs returns a map from the checksums of contents to the contents.
func blobs(contents ...[]byte) map[string][]byte {
	all := map[string][]byte{}
	for _, b := range contents {
		all[checksum(b)] = b
	}
	return all
}
