package pkgmgr

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Record is this machine's memory of which hives it installed, and at which
// address. It exists so that a hive that was taken out of the config is still
// seen and can be removed. It is never trusted over a hive's own answer. The
// zero value, without a path, remembers nothing.
type Record struct {
	// Path is the file, such as ~/.local/state/rbee/fleet.json.
	Path string
}

// RecordEntry is one hive on record.
type RecordEntry struct {
	Alias       string    `json:"alias"`
	Hostname    string    `json:"hostname"`
	SSHUser     string    `json:"ssh_user,omitempty"`
	SSHPort     int       `json:"ssh_port,omitempty"`
	SSHKey      string    `json:"ssh_key,omitempty"`
	HivePort    int       `json:"hive_port"`
	Config      string    `json:"config"` // absolute path of the config it was installed from
	InstalledAt time.Time `json:"installed_at"`

	// Unknown keeps what a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

// Hive is the entry as a hive without workers.
func (e RecordEntry) Hive() config.Hive {
	return config.Hive{
		Alias: e.Alias, Hostname: e.Hostname, SSHUser: e.SSHUser, SSHPort: e.SSHPort, SSHKey: e.SSHKey, HivePort: e.HivePort,
	}
}

type recordFile struct {
	wire.Versioned
	Version  int             `json:"version,omitempty"` // 1 in files of schema 0, which have no schema
	Hives    []RecordEntry   `json:"hives"`
	Warnings []recordWarning `json:"warnings,omitempty"`

	Unknown wire.Unknown `json:"-"`
}

// recordSchema is the version of the record's format.
const recordSchema = 1

type (
	plainRecordFile  recordFile
	plainRecordEntry RecordEntry
)

func (f *recordFile) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainRecordFile)(f), &f.Unknown)
}

func (f recordFile) MarshalJSON() ([]byte, error) {
	return wire.EncodeKeeping(plainRecordFile(f), f.Unknown)
}

// UnmarshalJSON implements [json.Unmarshaler]; fields that this rbee does not know stay.
func (e *RecordEntry) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainRecordEntry)(e), &e.Unknown)
}

// MarshalJSON implements [json.Marshaler].
func (e RecordEntry) MarshalJSON() ([]byte, error) {
	return wire.EncodeKeeping(plainRecordEntry(e), e.Unknown)
}

// Entries lists the hives on record, sorted by alias. A file that does not exist
// is an empty record.
func (r Record) Entries() ([]RecordEntry, error) {
	f, err := r.read()
	return f.Hives, err
}

// read reads the file; one that does not exist is empty.
func (r Record) read() (f recordFile, err error) {
	if r.Path == "" {
		return f, nil
	}
	data, err := os.ReadFile(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, operations.FileError(r.Path, "reading the record of hives", err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return recordFile{}, &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonRecordInvalid, Subject: operations.SubjectFile.Named(r.Path),
			Message: fmt.Sprintf("reading the record of hives: %s: %v", r.Path, err), Err: err,
		}
	}
	if err := f.Readable(r.Path, recordSchema); err != nil {
		return recordFile{}, err
	}
	return f, nil
}

// outdated reports whether the file is of an earlier schema, which an update rewrites.
func (r Record) outdated() bool {
	f, err := r.read()
	return err == nil && f.Schema == 0 && f.Version != 0
}

// write writes the file atomically. The caller holds its lock.
func (r Record) write(f recordFile) error {
	f.Version, f.Versioned = 0, wire.Versioned{Schema: max(f.Schema, recordSchema), MinReader: max(f.MinReader, 1)}
	err := atomicfile.Write(r.Path, 0o600, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(f)
	})
	if err != nil {
		return operations.FileError(r.Path, "writing the record of hives", err)
	}
	return nil
}

// Extra lists the hives on record that were installed from the config at this
// path and that the config no longer names, neither by address nor by alias.
func (r Record) Extra(c *config.Config, configPath string) ([]config.Hive, error) {
	entries, err := r.Entries()
	if err != nil {
		return nil, err
	}
	var extra []config.Hive
	for _, e := range entries {
		gone := !slices.ContainsFunc(c.Hives, func(h config.Hive) bool {
			return h.Alias == e.Alias || h.Address() == e.Hive().Address()
		})
		if gone && e.Config == configPath {
			extra = append(extra, e.Hive())
		}
	}
	return extra, nil
}

// Update changes the record: hives in installed are put on it, with the config
// they came from, and those in removed are taken off. Runs that do so at the
// same time wait for one another.
func (r Record) Update(installed, removed []config.Hive, configPath string, now time.Time) error {
	if r.Path == "" || len(installed)+len(removed) == 0 && !r.outdated() {
		return nil
	}
	unlock, err := atomicfile.Lock(r.Path)
	if err != nil {
		return operations.FileError(r.Path, "locking the record of hives", err)
	}
	defer unlock()
	file, err := r.read()
	if err != nil {
		return err
	}
	entries := file.Hives
	changed := append(slices.Clone(installed), removed...)
	entries = slices.DeleteFunc(entries, func(e RecordEntry) bool {
		return slices.ContainsFunc(changed, func(h config.Hive) bool {
			return h.Address() == e.Hive().Address() || h.Alias == e.Alias && e.Config == configPath
		})
	})
	for _, h := range installed {
		entries = append(entries, RecordEntry{
			Alias: h.Alias, Hostname: h.Hostname, SSHUser: h.SSHUser, SSHPort: h.SSHPort, SSHKey: h.SSHKey,
			HivePort: h.HivePort, Config: configPath, InstalledAt: now.UTC().Truncate(time.Second),
		})
	}
	sort.Slice(entries, func(i, j int) bool {
		a, b := &entries[i], &entries[j]
		return cmp.Or(cmp.Compare(a.Alias, b.Alias), cmp.Compare(a.Config, b.Config)) < 0
	})
	file.Hives = entries
	file.dropWarnings(removed, configPath)
	return r.write(file)
}
