package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

const (
	// LockFile is locked while a verify command runs.
	LockFile = wire.RunDir + "/verify.lock"

	// verifyPrefix is the name prefix of the directory below run/ in which a verify
	// command stores its state. It starts with home.TempPrefix, so that uninstalling
	// rbee removes the directory.
	verifyPrefix = home.TempPrefix + "verify-"

	// RecordName is the name of the file, in the directory of a build, that records the
	// boot in which the verify command last passed.
	RecordName = "verified.json"
)

// Record is the content of the file [RecordName].
type Record struct {
	BootID string       `json:"boot_id"`
	Verify *wire.Verify `json:"verify"`
}

// VerifyBuild runs the verify command of a manifest, if it has one, for the build in dir.
// It records success in dir.
func (v *Verifier) VerifyBuild(ctx context.Context, m *installed.Manifest, dir string) error {
	if m.Verify == nil {
		return nil
	}
	e, err := engineIn(dir, m.Version, m.Launch, m.Verify)
	if err != nil {
		return err
	}
	if err := v.Run(ctx, e); err != nil {
		return wrapFailure(ctx, m.Type, m.Version, err)
	}
	return recordVerified(dir, m.Verify)
}

// engineIn returns the engine of the build in dir; launch may be nil.
func engineIn(dir, version string, launch *wire.Launch, v *wire.Verify) (engine.Engine, error) {
	e := engine.Engine{Version: version, Payload: filepath.Join(dir, installed.PayloadDir), Verify: v}
	program, err := os.Readlink(filepath.Join(dir, installed.EntryName))
	if e.Entry = filepath.Join(dir, program); launch != nil {
		e.Launch = *launch
	}
	return e, err
}

// wrapFailure adds the worker to the error of a verify command. It returns the error of a
// canceled run unchanged.
func wrapFailure(ctx context.Context, typ, version string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("cannot verify %s %s: %w", typ, version, err)
}

// lock waits until no other verify command runs on this machine, and prevents others from
// running until release is called.
func (v *Verifier) lock(ctx context.Context) (release func(), err error) {
	if err := os.MkdirAll(v.Home.Path(wire.RunDir), 0o700); err != nil {
		return nil, err
	}
	l, err := filelock.Wait(ctx, v.Home.Path(LockFile), 0o700, filelock.NoLimit, nil)
	if err != nil {
		return nil, err
	}
	return func() { _ = l.Close() }, nil
}

// run runs a verify command. The caller must hold the lock.
func (v *Verifier) run(ctx context.Context, e engine.Engine) error {
	state, err := os.MkdirTemp(v.Home.Path(wire.RunDir), verifyPrefix)
	if err != nil {
		return fmt.Errorf("cannot create a directory for the verify command: %w", err)
	}
	defer os.RemoveAll(state)
	return engine.Verify(ctx, e, state)
}

// Clean removes the state directories that killed verify runs left behind.
func (v *Verifier) Clean() error {
	found, err := filepath.Glob(v.Home.Path(wire.RunDir + "/" + verifyPrefix + "*"))
	for _, path := range found {
		if info, statErr := os.Lstat(path); statErr == nil && time.Since(info.ModTime()) > 2*wire.MaxVerifyLimit {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// VerifyWorkers runs the verify commands of the installed workers in list, one after
// another. If a command fails, VerifyWorkers sets Corrupt in list and removes the record of
// the worker, so that the worker is verified again before its next start.
func (v *Verifier) VerifyWorkers(ctx context.Context, list []wire.Worker) {
	for i := range list {
		w := &list[i]
		if w.Verify == nil || w.Corrupt != "" || ctx.Err() != nil {
			continue
		}
		dir := v.Store.BuildDir(w.Type, v.Store.EntryBuild(w.Type))
		e, err := engineIn(dir, w.Version, w.Launch, w.Verify)
		if err == nil {
			err = v.Run(ctx, e)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		w.Corrupt = "verify failed: " + err.Error()
		_ = os.Remove(filepath.Join(dir, RecordName)) // may not exist
	}
}

// Run runs the verify command of e. It first waits until no other verify command runs on
// this machine.
func (v *Verifier) Run(ctx context.Context, e engine.Engine) error {
	release, err := v.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	return v.run(ctx, e)
}

// VerifyBeforeStart runs the verify command of an engine if its recipe sets before_start
// and the command has not passed since the last boot.
func (v *Verifier) VerifyBeforeStart(ctx context.Context, typ string, e engine.Engine) error {
	if e.Verify == nil || !e.Verify.BeforeStart || e.Payload == "" {
		return nil
	}
	dir := filepath.Dir(e.Payload)
	if isVerified(dir, e.Verify) {
		return nil
	}
	release, err := v.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if isVerified(dir, e.Verify) { // a concurrent start ran the command
		return nil
	}
	if err := v.run(ctx, e); err != nil {
		if ctx.Err() != nil {
			return err
		}
		err = wrapFailure(ctx, typ, e.Version, err)
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Subject: operations.SubjectWorker.WithName(typ), Message: err.Error(), Err: err}
	}
	return recordVerified(dir, e.Verify)
}

// isVerified reports whether the command v passed for the build in dir since the last boot.
func isVerified(dir string, v *wire.Verify) bool {
	var rec Record
	err := statefile.Read(filepath.Join(dir, RecordName), &rec)
	return err == nil && rec.BootID != "" && rec.Verify.Equal(v) && proc.ID{BootID: rec.BootID}.IsCurrentBoot()
}

// recordVerified records that the command v passed for the build in dir. It does nothing for
// a command without before_start.
func recordVerified(dir string, v *wire.Verify) error {
	self, err := proc.Identify(os.Getpid())
	if !v.BeforeStart || err != nil {
		return nil // without a boot ID, the worker is verified before each start
	}
	return statefile.Write(filepath.Join(dir, RecordName), Record{BootID: self.BootID, Verify: v})
}
