package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// recordPrevious stores the record of bin/rbee.prev.
func (in *Installer) recordPrevious(rec *wire.BinaryRecord) error {
	path := in.Home.Path(wire.PrevInfo)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // the old record describes another binary
		return err
	}
	return statefile.Write(path, rec)
}

// rollbackSelf exchanges bin/rbee and bin/rbee.prev, and their records. A running daemon
// keeps the old binary until it is restarted.
func (in *Installer) rollbackSelf() (note string, err error) {
	previous := in.Store.PreviousBinary()
	current, _ := in.Store.Binary(false)
	if previous == nil || current == nil {
		return "", &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonNoPreviousVersion, Subject: operations.SubjectFile.WithName(in.Home.Path(wire.PrevBinary)),
			Message: "cannot roll back rbee: no previous version",
		}
	}
	sum, size, err := fetch.HashFile(in.Home.Path(wire.PrevBinary))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the previous rbee: %w", err)
	case previous.SHA256 == "": // an older rbee kept the binary without a record
		previous.SHA256, previous.Size = sum, size
		err = in.recordPrevious(previous)
	case previous.SHA256 != sum:
		err = &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonChecksum, Subject: operations.SubjectFile.WithName(in.Home.Path(wire.PrevBinary)),
			Message: fmt.Sprintf("cannot roll back rbee: the previous binary has SHA-256 %s, want %s", sum, previous.SHA256),
		}
	}
	if err == nil {
		err = in.mergeMadeDirs(current, previous)
	}
	if err == nil {
		err = exchangeFiles(in.Home.Path(wire.Binary), in.Home.Path(wire.PrevBinary))
	}
	if err != nil {
		return "", err
	}
	in.testPoint("exchanged")
	if err := exchangeFiles(in.Home.Path(wire.BinaryInfo), in.Home.Path(wire.PrevInfo)); err != nil {
		return "", fmt.Errorf("cannot exchange the records of rbee: %w", err)
	}
	return versionText(current) + " → " + versionText(previous), atomicfile.SyncDir(in.Home.Path(wire.BinDir))
}

// mergeMadeDirs stores the directories that either record lists in both records.
func (in *Installer) mergeMadeDirs(current, previous *wire.BinaryRecord) error {
	dirs := slices.Compact(slices.Sorted(slices.Values(slices.Concat(current.MadeDirs, previous.MadeDirs))))
	current.MadeDirs, previous.MadeDirs = dirs, dirs
	return errors.Join(statefile.Write(in.Home.Path(wire.BinaryInfo), current), statefile.Write(in.Home.Path(wire.PrevInfo), previous))
}

func versionText(rec *wire.BinaryRecord) string {
	if rec.Version == "" {
		return "an unknown version"
	}
	return rec.Version
}

// exchangeFiles exchanges two files. If the filesystem cannot exchange files atomically,
// exchangeFiles replaces first path1 and then path2, each atomically.
func exchangeFiles(path1, path2 string) error {
	err := exchange(path1, path2)
	if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	temp := filepath.Join(filepath.Dir(path1), home.TempPrefix+home.RandomSuffix())
	if err := home.LinkOrCopy(path1, temp); err != nil {
		return err
	}
	if err := os.Rename(path2, path1); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return os.Rename(temp, path2)
}
