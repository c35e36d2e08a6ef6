// Package installed reads the installed components in the rbee directory: the rbee binary,
// workers, tools and unpacked wheels.
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

// Store provides read-only access to the installed components of an rbee directory.
type Store struct {
	Home *home.Dir

	// Version is the version of the running rbee.
	Version string

	// Exe is the path of the running binary, as returned by os.Executable.
	Exe string
}

// Binary returns the record of bin/rbee; nil if the file does not exist. problem describes
// damage to the file; it is empty if the file is intact. If the record does not match the
// file, rec describes the file. If deep is set, Binary always compares the checksum.
func (s *Store) Binary(deep bool) (rec *wire.BinaryRecord, problem string) {
	path := s.Home.Path(wire.Binary)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err != nil {
			return nil, ""
		}
	}
	rec = new(wire.BinaryRecord)
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
		problem = path + " is not executable"
	}
	if recErr == nil && rec.Size == info.Size() && !deep {
		return rec, problem
	}
	sum, size, err := fetch.HashFile(path)
	if err != nil {
		return rec, err.Error()
	}
	if recErr == nil && rec.SHA256 == sum && rec.Size == size {
		return rec, problem
	}
	if recErr == nil && problem == "" {
		problem = path + " was modified since it was installed"
	}
	if other, err := s.exchangedRecord(sum); err == nil {
		return other, ""
	}
	rec = &wire.BinaryRecord{SHA256: sum, Size: size, MadeDirs: rec.MadeDirs}
	if exe, err := os.Stat(s.Exe); err == nil && os.SameFile(exe, info) {
		rec.Version, problem = s.Version, "" // bin/rbee is the running binary
	}
	return rec, problem
}

// exchangedRecord returns the record of bin/rbee.prev if it describes the current bin/rbee.
// This is the case after a rollback that was killed between the exchange of the files and
// the exchange of the records.
func (s *Store) exchangedRecord(sum string) (*wire.BinaryRecord, error) {
	rec := new(wire.BinaryRecord)
	if err := statefile.Read(s.Home.Path(wire.PrevInfo), rec); err != nil {
		return nil, err
	}
	if prev, _, err := fetch.HashFile(s.Home.Path(wire.PrevBinary)); err != nil || prev == rec.SHA256 || rec.SHA256 != sum {
		return nil, errors.New("the record describes another file")
	}
	return rec, nil
}

// PreviousBinary returns the record of bin/rbee.prev, which a rollback restores; nil if
// bin/rbee.prev is not an executable file. The version is empty if an older rbee stored
// bin/rbee.prev without a record.
func (s *Store) PreviousBinary() *wire.BinaryRecord {
	info, err := os.Stat(s.Home.Path(wire.PrevBinary))
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o100 == 0 {
		return nil
	}
	rec := new(wire.BinaryRecord)
	if statefile.Read(s.Home.Path(wire.PrevInfo), rec) != nil || rec.Size != info.Size() {
		return &wire.BinaryRecord{Size: info.Size()}
	}
	return rec
}
