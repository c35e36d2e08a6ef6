// Package installed reads the installed components of the rbee directory: the rbee binary,
// workers, tools and unpacked wheels. It is read-only.
package installed

import (
	"errors"
	"io/fs"
	"os"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// Store provides read-only access to the installed components of a home.
type Store struct {
	Home *home.Dir

	// Version is the version of the running rbee.
	Version string

	// Exe is the path of the running binary, as returned by os.Executable.
	Exe string
}

// Binary returns the record of bin/rbee and describes damage to the file; broken is empty
// if it is intact, and rec is nil if it does not exist. If the record does not match the
// file, rec describes the file. If deep is set, Binary always compares the checksum.
func (s *Store) Binary(deep bool) (rec *wire.Installed, broken string) {
	path := s.Home.Path(wire.Binary)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err != nil {
			return nil, ""
		}
	}
	rec = new(wire.Installed)
	recErr := statefile.Read(s.Home.Path(wire.BinaryInfo), rec)
	newer := (*wire.NewerSchemaError)(nil)
	switch {
	case errors.As(recErr, &newer):
		return rec, newer.Error()
	case err != nil:
		return rec, err.Error()
	case !info.Mode().IsRegular():
		return rec, path + " is not a regular file"
	case info.Mode()&0o100 == 0:
		broken = path + " is not executable"
	}
	if recErr == nil && rec.Size == info.Size() && !deep {
		return rec, broken
	}
	sum, size, err := fetch.HashFile(path)
	if err != nil {
		return rec, err.Error()
	}
	if recErr == nil && rec.SHA256 == sum && rec.Size == size {
		return rec, broken
	}
	if recErr == nil && broken == "" {
		broken = path + " was modified since it was installed"
	}
	if other, err := s.exchangedRecord(sum); err == nil {
		return other, ""
	}
	rec = &wire.Installed{SHA256: sum, Size: size, MadeDirs: rec.MadeDirs}
	if exe, err := os.Stat(s.Exe); err == nil && os.SameFile(exe, info) {
		rec.Version, broken = s.Version, "" // it is the running binary
	}
	return rec, broken
}

// exchangedRecord returns the record of bin/rbee.prev if it describes the current bin/rbee:
// a rollback was killed after it exchanged the files and before it exchanged the records.
func (s *Store) exchangedRecord(sum string) (*wire.Installed, error) {
	rec := new(wire.Installed)
	if err := statefile.Read(s.Home.Path(wire.PrevInfo), rec); err != nil {
		return nil, err
	}
	if prev, _, err := fetch.HashFile(s.Home.Path(wire.PrevBinary)); err != nil || prev == rec.SHA256 || rec.SHA256 != sum {
		return nil, errors.New("the record describes another file")
	}
	return rec, nil
}

// PreviousBinary returns the record of bin/rbee.prev, which a rollback restores; nil if
// that is not an executable file. The version is empty if bin/rbee.prev has no record,
// because an older rbee stored it.
func (s *Store) PreviousBinary() *wire.Installed {
	info, err := os.Stat(s.Home.Path(wire.PrevBinary))
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o100 == 0 {
		return nil
	}
	rec := new(wire.Installed)
	if statefile.Read(s.Home.Path(wire.PrevInfo), rec) != nil || rec.Size != info.Size() {
		return &wire.Installed{Size: info.Size()}
	}
	return rec
}
