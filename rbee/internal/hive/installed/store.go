// Package installed reads what is installed in rbee's directory: the hive's own rbee,
// workers, tools and unpacked wheels. It changes nothing.
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

// Store reads what is installed in a home. It changes nothing.
type Store struct {
	Home *home.Dir

	// Version is that of the running rbee.
	Version string

	// Exe is the path of the running binary, as from os.Executable.
	Exe string
}

// Binary is the record of bin/rbee, and what is wrong with that file. Where
// the record does not fit the file, the file counts.
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
		return rec, path + " is no regular file"
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
		broken = path + " is not the file that was installed"
	}
	if other, err := s.exchangedRecord(sum); err == nil {
		return other, ""
	}
	rec = &wire.Installed{SHA256: sum, Size: size, MadeDirs: rec.MadeDirs}
	if own, err := os.Stat(s.Exe); err == nil && os.SameFile(own, info) {
		rec.Version, broken = s.Version, "" // it runs this very code
	}
	return rec, broken
}

// exchangedRecord returns the record of bin/rbee.prev if it describes the file that is bin/rbee
// now: a rollback was cut short between the exchange of the files and of their records.
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
// there is no such program. The version of one that an earlier rbee kept is not known.
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
