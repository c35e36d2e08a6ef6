package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// isUpload reports whether the running binary is an upload: a file in bin/ with the prefix
// of temporary files.
func (in *Installer) isUpload() bool {
	if !strings.HasPrefix(filepath.Base(in.Store.Exe), home.TempPrefix) {
		return false
	}
	dir, err := os.Stat(filepath.Dir(in.Store.Exe))
	if err != nil {
		return false
	}
	bin, err := os.Stat(in.Home.Path(wire.BinDir))
	return err == nil && os.SameFile(dir, bin)
}

func (in *Installer) removeUpload() {
	if in.isUpload() {
		_ = os.Remove(in.Store.Exe)
	}
}

// installSelf replaces bin/rbee with the running binary.
func (in *Installer) installSelf(want *wire.BinaryRecord) (note string, err error) {
	sum, size, err := fetch.HashFile(in.Store.Exe)
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the uploaded rbee: %w", err)
	case sum != want.SHA256:
		return "", fmt.Errorf("the uploaded rbee has SHA-256 %s, want %s", sum, want.SHA256)
	}
	prevRec := new(wire.BinaryRecord)
	newer := (*wire.NewerSchemaError)(nil)
	if err := statefile.Read(in.Home.Path(wire.BinaryInfo), prevRec); errors.As(err, &newer) {
		return "", fmt.Errorf("cannot replace the installed rbee: %w", err)
	}
	old, problem := in.Store.Binary(true)
	rec := &wire.BinaryRecord{
		Version: in.Store.Version, SHA256: sum, Size: size,
		InstalledAt: time.Now().UTC().Truncate(time.Second), MadeDirs: want.MadeDirs,
	}
	if old != nil { // otherwise a record may exist without a binary
		prevRec = old
	}
	for _, dir := range prevRec.MadeDirs {
		if !slices.Contains(rec.MadeDirs, dir) {
			rec.MadeDirs = append(rec.MadeDirs, dir)
		}
	}
	slices.Sort(rec.MadeDirs) // parents before children
	note = "installed"
	if old != nil && old.SHA256 == sum && problem == "" {
		if rec.InstalledAt, note = old.InstalledAt, "already in place"; rec.InstalledAt.IsZero() {
			rec.InstalledAt = time.Now().UTC().Truncate(time.Second)
		}
	} else if err := in.replaceBinary(old); err != nil {
		return "", home.WrapDiskFull(err, in.Home.Root, size)
	}
	in.testPoint("placed")
	if err := statefile.Write(in.Home.Path(wire.BinaryInfo), rec); err != nil {
		return "", fmt.Errorf("cannot write the record of the new rbee: %w", home.WrapDiskFull(err, in.Home.Root, 4096))
	}
	return note, nil
}

// replaceBinary stores bin/rbee and its record as the previous version, and then renames the
// running binary to bin/rbee. old is the record of bin/rbee; nil if rbee is not installed.
func (in *Installer) replaceBinary(old *wire.BinaryRecord) error {
	bin, upload := in.Home.Path(wire.BinDir), in.Store.Exe
	if err := os.MkdirAll(bin, 0o755); err != nil { //nolint:gosec // world-readable programs
		return err
	}
	if !in.isUpload() { // copy a binary that the user installed
		upload = filepath.Join(bin, home.TempPrefix+home.RandomSuffix())
		if err := home.CopyFile(in.Store.Exe, upload, 0o755); err != nil {
			return fmt.Errorf("cannot copy rbee: %w", err)
		}
		defer os.Remove(upload)
	}
	if err := errors.Join(os.Chmod(upload, 0o755), home.SyncFile(upload)); err != nil { //nolint:gosec // a program
		return err
	}
	temp := filepath.Join(bin, home.TempPrefix+home.RandomSuffix())
	err := home.LinkOrCopy(in.Home.Path(wire.Binary), temp)
	if err == nil {
		err = os.Rename(temp, in.Home.Path(wire.PrevBinary))
		_ = os.Remove(temp) // rename keeps both names if they are hard links to the same file
	}
	if err == nil && old != nil {
		err = in.recordPrevious(old)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot store the previous rbee: %w", err)
	}
	in.testPoint("kept")
	if err := os.Rename(upload, in.Home.Path(wire.Binary)); err != nil {
		return fmt.Errorf("cannot replace rbee: %w", err)
	}
	return atomicfile.SyncDir(bin)
}
