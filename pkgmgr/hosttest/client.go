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

// lockWait is how long requests wait for the lock, unless a test is about that. A killed process may keep it a moment.
const lockWait = 30 * time.Second

// answerLimit bounds how long a machine may take to end a run that nobody waits for.
const answerLimit = 20 * time.Second

// client uses one machine.
type client struct {
	t       *testing.T
	suite   *suite
	machine *Machine
	host    pkgmgr.Host
}

// state reads the machine as pkgmgr does.
func (c *client) state() wire.State {
	c.t.Helper()
	f, err := pkgmgr.Open(&config.Config{Hives: []config.Hive{{Alias: "m", Hostname: "m", HivePort: c.machine.Port}}}, pkgmgr.Options{
		Connect:  func(ctx context.Context, _ config.Hive) (pkgmgr.Host, error) { return c.machine.Connect(ctx) },
		Binaries: c.machine.Binaries, Version: "0", CacheDir: c.t.TempDir(),
	})
	if err != nil {
		c.t.Fatalf("Open() = %v", err)
	}
	defer f.Close()
	f.Read(c.t.Context(), pkgmgr.ReadOptions{})
	states := f.States()
	if len(states) != 1 {
		c.t.Fatalf("States() has %d hives, want 1", len(states))
	}
	if err := states[0].Err; err != nil {
		c.t.Fatalf("reading the machine: %v", err)
	}
	return *states[0].State
}

// rbee returns the rbee for the machine.
func (c *client) rbee() *artifact.Binary {
	c.t.Helper()
	b, err := c.machine.Binaries.Binary(c.t.Context(), c.state().Platform, true)
	if err != nil {
		c.t.Fatalf("Binary() = %v", err)
	}
	return b
}

// upload puts rbee where an upload belongs.
func (c *client) upload() (exe string, install *wire.Installed) {
	c.t.Helper()
	s, b := c.state(), c.rbee()
	packed, err := c.suite.packed.Get(b)
	if err != nil {
		c.t.Fatal(err)
	}
	exe = path.Join(s.Home, wire.BinDir, ".rbee-"+b.SHA256[:12]+"-"+rand.Text()[:8])
	if err := c.host.Put(c.t.Context(), exe, 0o755, bytes.NewReader(packed.Gz), packed.Sum); err != nil {
		c.t.Fatalf("Put(rbee) = %v", err)
	}
	return exe, &wire.Installed{Version: b.Version, SHA256: b.SHA256, Size: b.Size, MadeDirs: s.MissingDirs}
}

// installRbee installs rbee, and returns its path.
func (c *client) installRbee() (exe string) {
	c.t.Helper()
	upload, install := c.upload()
	settings := &wire.Settings{Alias: "m", HivePort: c.machine.Port}
	c.mustApply(upload, &wire.Request{Settings: settings, Steps: []wire.Step{{Action: wire.ActionInstallSelf, Install: install}}}, nil)
	return path.Join(c.state().Home, wire.Binary)
}

// exchange is one run of `rbee hive apply` that has ended.
type exchange struct {
	messages []wire.Message // without the result
	result   *wire.Result   // nil if none came
	err      error          // of Host.Run
}

// needs lists the checksums that the machine asked for.
func (e *exchange) needs() []string {
	var sums []string
	for _, m := range e.messages {
		if m.Need != nil {
			sums = append(sums, m.Need.SHA256)
		}
	}
	return sums
}

// failures are the errors of the steps, and of the request, in one line.
func (e *exchange) failures() string {
	switch {
	case e.result == nil:
		return fmt.Sprintf("no result: %v", e.err)
	case e.result.Locked != nil:
		return "locked by " + e.result.Locked.Holder
	}
	return e.result.Error + strings.Join(e.result.Errors, "")
}

// call is a request that is on its way.
type call struct {
	ctx  context.Context
	exe  string
	body []byte                                     // instead of a request
	on   func(m wire.Message, stdin *io.PipeWriter) // called with each message; nil: blobs are sent
}

// start runs `rbee hive apply`. stdin stays open until the result is there.
func (c *client) start(k call, req *wire.Request) <-chan *exchange {
	host, done := c.host, make(chan *exchange, 1)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	ran := make(chan error, 1)
	go func() {
		err := host.Run(k.ctx, []string{k.exe, "hive", "apply"}, inR, outW, nil)
		_ = inR.CloseWithError(io.ErrClosedPipe)
		_ = outW.Close()
		ran <- err
	}()
	go func() {
		body := k.body
		if body == nil {
			var b bytes.Buffer
			_ = wire.WriteRequest(&b, req) // what is written into memory cannot fail
			body = b.Bytes()
		}
		_, _ = inW.Write(body) // a machine that reads no more says why
	}()
	read := make(chan wire.Message, 1000) // a machine can write while a blob is sent to it
	go func() {
		defer close(read)
		for out := wire.NewReader(outR); ; {
			var m wire.Message
			if err := out.Read(&m); err != nil {
				return
			}
			if read <- m; m.Result != nil {
				return
			}
		}
	}()
	go func() {
		e := &exchange{}
		for m := range read {
			if e.result = m.Result; m.Result != nil {
				break
			}
			e.messages = append(e.messages, m)
			if k.on != nil {
				k.on(m, inW)
			}
		}
		_ = inW.Close()
		go func() { _, _ = io.Copy(io.Discard, outR) }()
		e.err = <-ran
		done <- e
	}()
	return done
}

// apply runs a request, and sends those of blobs that the machine asks for, by their checksums. What it asks for and
// does not get is aborted.
func (c *client) apply(exe string, req *wire.Request, blobs map[string][]byte) *exchange {
	c.t.Helper()
	req.Schema, req.Owner = cmp.Or(req.Schema, wire.Schema), "hosttest"
	if req.LockWait == 0 {
		req.LockWait = lockWait
	}
	k := call{ctx: c.t.Context(), exe: exe, on: func(m wire.Message, stdin *io.PipeWriter) {
		if m.Need == nil {
			return
		}
		blob, ok := blobs[m.Need.SHA256]
		var body io.Reader = bytes.NewReader(blob)
		if !ok {
			body = failingReader{}
		}
		_ = wire.SendBlob(stdin, body, false) // the machine's result says what came of it
	}}
	return c.wait(c.start(k, req))
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("hosttest: no such blob") }

// wait waits for the end of a run.
func (c *client) wait(done <-chan *exchange) *exchange {
	c.t.Helper()
	select {
	case e := <-done:
		c.checkCauses(e)
		return e
	case <-time.After(2 * time.Minute):
		c.t.Fatal("`rbee hive apply` does not end")
		return nil
	}
}

// checkCauses checks that every error of a result is classified, and nothing else.
func (c *client) checkCauses(e *exchange) {
	c.t.Helper()
	if e.result == nil {
		return
	}
	if (e.result.Error != "") != (e.result.Cause != nil) {
		c.t.Errorf("error %q of the request has cause %+v", e.result.Error, e.result.Cause)
	}
	for i, text := range e.result.Errors {
		cause := e.result.CauseOf(i)
		if (text != "") != (cause != nil) || strings.HasPrefix(text, "not begun") != (cause != nil && cause.Reason == operations.ReasonNotBegun) {
			c.t.Errorf("error %q of step %d has cause %+v", text, i, cause)
		}
	}
}

// mustApply applies a request in which nothing may fail.
func (c *client) mustApply(exe string, req *wire.Request, blobs map[string][]byte) *exchange {
	c.t.Helper()
	e := c.apply(exe, req, blobs)
	if e.err != nil || e.result == nil || e.failures() != "" || len(e.result.Errors) != len(req.Steps) {
		c.t.Fatalf("apply(%+v): %s, %v", req.Steps, e.failures(), e.err)
	}
	return e
}

// worker returns what the state says of a worker type; nil if it is not installed.
func worker(s *wire.State, typ string) *wire.Worker {
	for i := range s.Workers {
		if s.Workers[i].Type == typ {
			return &s.Workers[i]
		}
	}
	return nil
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// program is a worker that is one file, and the step that installs it.
func program(typ, version string) (content []byte, step wire.Step) {
	content = []byte("#!/bin/sh\necho " + typ + " " + version + "\n")
	steps := []wire.InstallStep{{Kind: wire.StepFile, Artifact: &wire.Artifact{Name: typ, SHA256: checksum(content), Size: int64(len(content))}}}
	return content, wire.Step{Action: wire.ActionInstallWorker, Worker: &wire.WorkerInstall{
		Type: typ, Version: version, Requested: version, SHA256: wire.Digest(steps, ""), Steps: steps,
	}}
}

// blobs maps contents by their checksums.
func blobs(contents ...[]byte) map[string][]byte {
	all := map[string][]byte{}
	for _, b := range contents {
		all[checksum(b)] = b
	}
	return all
}
