package hive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// errGone is why a run stops whose other side does not wait any more.
var errGone = errors.New("the side that asked is gone")

// staleUpload is the age at which an uploaded binary that nobody put in place
// is cleared away. One that is still being uploaded is younger: writing to it
// keeps it young.
const staleUpload = time.Hour

// Apply reads a request from stdin and does its steps, saying on stdout what
// happens; package wire is the protocol. An error of Apply means that the
// request could not be read or answered; what goes wrong with a step is told in
// the result. The end of stdin stops it: the step at hand is undone.
func (h *Hive) Apply(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in, pump := io.Pipe()
	go func() {
		_, err := io.Copy(pump, stdin)
		cancel(errors.Join(errGone, err))
		_ = pump.CloseWithError(io.ErrUnexpectedEOF)
	}()
	defer in.Close()
	req, err := wire.ReadRequest(in)
	if err != nil {
		return err
	}
	a := &applier{hive: h, req: req, in: in, out: wire.NewWriter(stdout), self: h.Exe}
	return a.out.Write(wire.Message{Result: a.run(ctx)})
}

// applier is one run of Apply.
type applier struct {
	hive *Hive
	req  *wire.Request
	in   io.Reader
	out  *wire.Writer
	self string // the path of the running binary, which install_self changes
}

func (a *applier) run(ctx context.Context) *wire.Result {
	r := &wire.Result{Errors: make([]string, len(a.req.Steps))}
	if a.req.Schema != wire.Schema {
		r.Error = fmt.Sprintf("this rbee speaks protocol %d, the request is in %d", wire.Schema, a.req.Schema)
		return r
	}
	unlock, err := a.hive.lock(ctx, a.req.Owner, a.req.LockWait, func(w wire.Waiting) {
		_ = a.out.Write(wire.Message{Waiting: &w})
	})
	var locked *lockedError
	switch {
	case errors.As(err, &locked):
		r.Locked = &locked.Waiting
		return r
	case err != nil:
		r.Error = fmt.Sprintf("taking the lock of %s: %v", a.hive.Home, err)
		return r
	}
	defer unlock()
	a.hive.clean(a.self)
	if a.req.Settings != nil {
		if err := writeJSON(a.hive.path(settingsFile), 0o600, a.req.Settings); err != nil {
			r.Error = fmt.Sprintf("storing the settings: %v", err)
			return r
		}
	}
	removed := a.steps(ctx, r)
	if !removed {
		// The state is told even to a run that was cut short.
		if r.State, err = a.hive.Inspect(context.WithoutCancel(ctx), InspectOptions{}); err != nil {
			r.Error = fmt.Sprintf("reading the state afterwards: %v", err)
		}
	}
	return r
}

// steps does all steps; removed tells whether rbee is gone from here.
func (a *applier) steps(ctx context.Context, r *wire.Result) (removed bool) {
	stopped := ""
	for i, s := range a.req.Steps {
		if stopped == "" && ctx.Err() != nil {
			stopped = "not begun: " + context.Cause(ctx).Error()
		}
		if stopped != "" {
			r.Errors[i] = stopped
			_ = a.out.Write(wire.Message{Step: &wire.StepNote{Index: i, Done: true, Error: stopped}})
			continue
		}
		_ = a.out.Write(wire.Message{Step: &wire.StepNote{Index: i}})
		note, err := a.step(ctx, i, s)
		done := &wire.StepNote{Index: i, Done: true, Note: note}
		if err != nil {
			r.Errors[i], done.Error = err.Error(), err.Error()
			if s.Action == wire.ActionInstallSelf {
				stopped = "not begun: rbee itself could not be installed"
			}
		} else if s.Action == wire.ActionRemoveSelf {
			removed = true
		}
		_ = a.out.Write(wire.Message{Step: done})
	}
	return removed
}

func (a *applier) step(ctx context.Context, i int, s wire.Step) (note string, err error) {
	switch s.Action {
	case wire.ActionInstallSelf:
		if s.Install == nil {
			return "", errors.New("the step does not say what to install")
		}
		return a.installSelf(s.Install)
	case wire.ActionInstallWorker, wire.ActionRemoveWorker:
		if s.Worker == nil || !typePattern.MatchString(s.Worker.Type) {
			return "", errors.New("the step names no valid worker type")
		}
		if s.Action == wire.ActionRemoveWorker {
			return "", a.hive.removeWorker(s.Worker.Type)
		}
		return a.installWorker(ctx, i, s.Worker)
	case wire.ActionStart:
		return a.hive.start(ctx)
	case wire.ActionStop:
		return a.hive.stop(ctx)
	case wire.ActionRemoveSelf:
		return a.hive.remove(ctx)
	default:
		return "", fmt.Errorf("this rbee does not know the step %q", s.Action)
	}
}

// installSelf puts the running binary in the place of bin/rbee. That it runs
// here is known by now: it is this very process.
func (a *applier) installSelf(want *wire.Installed) (note string, err error) {
	target := a.hive.path(wire.Binary)
	uploaded := filepath.Dir(a.self) == filepath.Dir(target) && strings.HasPrefix(filepath.Base(a.self), ".rbee-")
	if uploaded {
		defer func() {
			if err != nil {
				_ = os.Remove(a.self)
			}
		}()
	}
	sum, size, err := hashFile(a.self)
	if err != nil {
		return "", fmt.Errorf("reading the new rbee: %w", err)
	}
	if sum != want.SHA256 {
		return "", fmt.Errorf("the new rbee has SHA-256 %s, want %s", sum, want.SHA256)
	}
	if !uploaded {
		return "", fmt.Errorf("%s was not uploaded into %s", a.self, filepath.Dir(target))
	}
	rec := wire.Installed{Version: want.Version, SHA256: sum, Size: size, InstalledAt: now(), MadeDirs: want.MadeDirs}
	if old := a.hive.installed(false); old != nil {
		rec.MadeDirs = old.MadeDirs
		if old.SHA256 == sum {
			note = "was there already"
		} else if err := keepPrevious(target, a.hive.path(wire.PrevBinary)); err != nil {
			return "", fmt.Errorf("keeping the previous rbee: %w", err)
		}
	}
	if err := syncFile(a.self); err != nil {
		return "", err
	}
	if err := os.Rename(a.self, target); err != nil {
		return "", err
	}
	a.self, a.hive.Exe = target, target
	return note, writeJSON(a.hive.path(wire.BinaryInfo), 0o644, rec)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// keepPrevious makes prev the file that target is now, in one step.
func keepPrevious(target, prev string) error {
	tmp := prev + ".tmp"
	_ = os.Remove(tmp)
	if err := os.Link(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, prev)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// clean clears away what killed runs left. It is called under the lock, so
// staging belongs to nobody; uploads happen without the lock, so only old ones
// go.
func (h *Hive) clean(self string) {
	uploads, _ := filepath.Glob(h.path(wire.UploadGlob))
	for _, u := range uploads {
		info, err := os.Stat(u)
		if err == nil && u != self && time.Since(info.ModTime()) > staleUpload {
			_ = os.Remove(u)
		}
	}
	_ = os.Remove(h.path(wire.PrevBinary) + ".tmp")
	types, _ := os.ReadDir(h.path(wire.WorkersDir))
	for _, t := range types {
		name := h.path(wire.WorkersDir + "/" + t.Name())
		switch {
		case strings.HasPrefix(t.Name(), "."+wire.EntryPrefix):
			_ = os.Remove(name)
		case t.IsDir() && typePattern.MatchString(t.Name()):
			h.cleanType(name)
		}
	}
}

// cleanType clears staging of one worker type. Where an exchange of two
// directories was cut short, the version that is set aside goes back.
func (h *Hive) cleanType(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	for _, name := range names {
		if version, ok := strings.CutPrefix(name, asidePrefix); ok && !slices.Contains(names, version) {
			_ = os.Rename(filepath.Join(dir, name), filepath.Join(dir, version))
		} else if ok || strings.HasPrefix(name, stagingPrefix) {
			_ = os.RemoveAll(filepath.Join(dir, name))
		}
	}
	_ = os.Remove(dir) // where nothing is left
}

// noSpace adds to an error of a full disk how full it is.
func noSpace(err error, dir string, need int64) error {
	if err == nil || !isNoSpace(err) {
		return err
	}
	text := fmt.Sprintf("%d MiB are free in %s", diskFree(dir)>>20, dir)
	if need > 0 {
		text += fmt.Sprintf(", at least %d MiB are needed", need>>20+1)
	}
	return fmt.Errorf("%w: %s", err, text)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
