package install

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// errDisconnected is the cause of the cancellation when the client closes stdin.
var errDisconnected = errors.New("canceled: the client closed the connection")

// errSelfNotInstalled is the error of the steps after a failed install of rbee.
var errSelfNotInstalled = errors.New("cannot install rbee")

// stepRunner runs the steps of one request.
type stepRunner struct {
	*Installer
	in  io.Reader // contains the blobs that follow the request
	out *wire.Writer

	heartbeat progress.Heartbeat

	// cancel cancels the run, for example when the client stops sending.
	cancel context.CancelCauseFunc
}

// Apply reads one request from stdin, runs its steps and writes messages to stdout; the
// last message is a Result. EOF on stdin cancels the run: the current step stops and cleans
// up. Failed steps are reported in the Result. Apply itself fails if it cannot read the
// request, if the run is canceled, or if it cannot write to stdout. A read from stdin may
// still be pending when Apply returns.
//
// If the running binary is an upload (bin/.rbee-*), Apply moves it to bin/rbee or removes
// it.
func (in *Installer) Apply(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer in.removeUpload()
	s := &stepRunner{Installer: in, in: bufio.NewReaderSize(cancelOnEOF(ctx, cancel, stdin), 64<<10), out: wire.NewWriter(stdout), cancel: cancel}
	req, err := wire.ReadRequest(s.in)
	if err == nil {
		err = in.checkRequest(req)
	}
	if err != nil {
		return errors.Join(err, s.out.Write(wire.Message{Result: &wire.Result{Error: err.Error(), Cause: wire.CauseOf(err)}}))
	}
	result := s.applyRequest(ctx, req)
	cause := context.Cause(ctx) // nil unless canceled
	return errors.Join(cause, s.out.Write(wire.Message{Result: result}))
}

// cancelOnEOF returns a reader of the content of stdin, and calls cancel at EOF. Unlike a
// read from stdin, a read from the returned reader fails as soon as ctx ends.
func cancelOnEOF(ctx context.Context, cancel context.CancelCauseFunc, stdin io.Reader) io.Reader {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.CopyBuffer(w, struct{ io.Reader }{stdin}, make([]byte, 64<<10))
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		_ = w.CloseWithError(err)
		cancel(errDisconnected)
	}()
	return r
}

func (in *Installer) checkRequest(req *wire.Request) error {
	if !req.Compatible() {
		return &operations.Error{
			Code: operations.CodeUnsupported, Reason: req.IncompatibleReason(),
			Message: fmt.Sprintf("incompatible request: it has schema %d, rbee %s on the hive has schema %d", req.Schema, in.Store.Version, wire.Schema),
		}
	}
	if req.Settings != nil {
		if err := req.Settings.Validate(); err != nil {
			return err
		}
	}
	return in.Home.Check()
}

// applyRequest acquires the lock, runs the steps and returns their results and the new
// state of the machine.
func (s *stepRunner) applyRequest(ctx context.Context, req *wire.Request) *wire.Result {
	result := &wire.Result{Errors: make([]string, len(req.Steps))}
	skipSteps := func(from int, cause error) {
		for i := from; i < len(req.Steps); i++ {
			result.Fail(i, "not started: "+cause.Error(), &operations.Error{Reason: operations.ReasonNotStarted})
		}
	}
	waited := false
	lock, err := s.Home.Lock(ctx, req.Owner, req.LockWait, func(w wire.LockInfo) {
		waited = true
		s.send(wire.Message{Waiting: &w})
	})
	var locked *home.LockedError
	if errors.As(err, &locked) {
		result.Locked = &locked.By
		skipSteps(0, err)
		return result
	}
	if err == nil {
		defer lock.Close()
		if waited && s.wasUninstalled() {
			err = errors.New("rbee was uninstalled while this run waited for the lock")
		} else {
			err = s.prepare(req)
		}
	}
	if err != nil {
		result.Error, result.Cause = err.Error(), wire.CauseOf(err)
		skipSteps(0, err)
		return result
	}
	removed := false
	for i, step := range req.Steps {
		if ctx.Err() != nil {
			skipSteps(i, context.Cause(ctx))
			break
		}
		err := s.runStep(ctx, i, step)
		removed = step.Action == wire.ActionRemoveSelf && err == nil
		if err == nil {
			continue
		}
		result.Fail(i, err.Error(), err)
		if uvErr := (*uv.Error)(nil); errors.As(err, &uvErr) {
			if result.Details == nil {
				result.Details = map[int]string{}
			}
			result.Details[i] = uvErr.Output
		}
		if step.Action == wire.ActionInstallSelf {
			skipSteps(i+1, errSelfNotInstalled)
			break
		}
	}
	if !removed {
		// Report the state even if the run was canceled.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if result.State, err = s.Inspector.Inspect(ctx, inspect.Options{}); err != nil {
			result.Error, result.Cause = err.Error(), wire.CauseOf(err)
		}
	}
	return result
}

// wasUninstalled reports whether rbee was uninstalled while this run waited for the lock.
// If so, it removes the lock file and the rbee directory, which the run created again.
func (s *stepRunner) wasUninstalled() bool {
	if s.isUpload() {
		return false
	}
	if _, err := os.Lstat(s.Home.Path(wire.Binary)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_ = os.Remove(s.Home.Path(wire.LockFile))
	_ = os.Remove(s.Home.Root) // fails unless it is empty
	return true
}

// prepare removes leftovers of killed runs and stores the settings of the request.
func (s *stepRunner) prepare(req *wire.Request) error {
	if err := s.clean(s.removePhase(0)); err != nil {
		return fmt.Errorf("cannot clean up after an earlier run: %w", err)
	}
	if req.Settings == nil {
		return s.upgradeRecords()
	}
	if err := statefile.Write(s.Home.Path(home.SettingsFile), req.Settings); err != nil {
		return fmt.Errorf("cannot store the settings: %w", home.WrapDiskFull(err, s.Home.Root, 4096))
	}
	return s.upgradeRecords()
}

// upgradeRecords rewrites the settings and the record of rbee if an older rbee wrote them.
// It ignores unreadable files, which the steps report.
func (in *Installer) upgradeRecords() error {
	for path, v := range map[string]any{home.SettingsFile: new(wire.Settings), wire.BinaryInfo: new(wire.BinaryRecord)} {
		path = in.Home.Path(path)
		if header, err := statefile.ReadSchema(path); err != nil || header.Schema > 0 || statefile.Read(path, v) != nil {
			continue
		}
		if err := statefile.Write(path, v); err != nil {
			return fmt.Errorf("cannot rewrite %s: %w", path, home.WrapDiskFull(err, in.Home.Root, 4096))
		}
	}
	return nil
}

// clean removes leftovers of earlier runs. The caller must hold the lock.
func (in *Installer) clean(ph *progress.Phase) error {
	uploads, err := filepath.Glob(in.Home.Path(wire.UploadGlob))
	if err != nil {
		return err
	}
	for _, name := range []string{wire.BinaryInfo, wire.PrevInfo, home.SettingsFile, home.SupervisorFile} {
		atomicfile.RemoveTemp(in.Home.Path(name)) // written only with the lock held
	}
	in.upgradeManifests()
	own, _ := os.Stat(in.Store.Exe)
	for _, path := range uploads {
		// Keep recent uploads: a client may upload before it acquires the lock.
		info, err := os.Lstat(path)
		if err != nil || os.SameFile(info, own) || time.Since(info.ModTime()) < time.Hour {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return errors.Join(in.cleanDownloads(), in.cleanWorkers(ph), in.Verifier.Clean())
}

// runStep runs one step, and sends a message at its start and its end.
func (s *stepRunner) runStep(ctx context.Context, index int, step wire.Step) error {
	s.send(wire.Message{Step: &wire.StepStatus{Index: index}})
	stop := s.startHeartbeat(index, step.Action)
	note, err := s.runAction(ctx, index, step)
	stop()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	done := &wire.StepStatus{Index: index, Done: true, Note: note}
	if err != nil {
		done.Error, done.Cause = err.Error(), wire.CauseOf(err)
	}
	s.send(wire.Message{Step: done})
	return err
}

func (s *stepRunner) runAction(ctx context.Context, index int, step wire.Step) (note string, err error) {
	if err := step.Validate(); err != nil {
		return "", err
	}
	if err := s.checkExpected(ctx, &step); err != nil {
		return "", err
	}
	switch step.Action {
	case wire.ActionInstallSelf:
		return s.installSelf(step.Install)
	case wire.ActionInstallWorker:
		return s.installWorker(ctx, index, step.Worker)
	case wire.ActionRemoveWorker:
		return s.removeWorker(ctx, step.Worker, s.removePhase(index))
	case wire.ActionRollback:
		return s.rollback(s.checkContext(ctx, index), step.Worker, s.removePhase(index))
	case wire.ActionRollbackSelf:
		return s.rollbackSelf()
	case wire.ActionStart:
		return s.Daemon.Start(ctx)
	case wire.ActionStop:
		return s.Daemon.Stop(ctx)
	case wire.ActionRemoveSelf:
		return s.uninstall(ctx, s.removePhase(index))
	default:
		return "", fmt.Errorf("unknown action %q", step.Action)
	}
}

// send writes a message. It ignores errors: when the client disconnects, stdin ends too,
// which cancels the run.
func (s *stepRunner) send(m wire.Message) {
	s.heartbeat.RecordSent(m)
	_ = s.out.Write(m)
}

// checkExpected returns an error if the installed component has changed since the step was
// planned. The caller must hold the lock.
func (s *stepRunner) checkExpected(ctx context.Context, step *wire.Step) error {
	if step.Expect == nil {
		return nil
	}
	current, target := "", ""
	switch step.Action {
	case wire.ActionInstallSelf:
		if rec, _ := s.Store.Binary(false); rec != nil {
			current = rec.SHA256
		}
		target = step.Install.SHA256
	case wire.ActionInstallWorker, wire.ActionRemoveWorker, wire.ActionRollback:
		if w := s.Store.Worker(ctx, step.Worker.Type, false); w != nil {
			current = w.SHA256
		}
		if step.Action == wire.ActionInstallWorker {
			sum, err := s.digest(step.Worker)
			if err != nil {
				return err
			}
			target = sum
		}
	default:
		return nil
	}
	return step.CheckExpected(current, target)
}
