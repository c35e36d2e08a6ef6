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

// Record is a file with the addresses of the hives that this machine installed. rbee uses
// the record to find and uninstall hives that were removed from the config. The state that a
// hive reports has precedence over the record. The zero value has no file: the record is
// empty, and changes are discarded.
type Record struct {
	// Path is the path of the file, such as ~/.local/state/rbee/fleet.json.
	Path string
}

// RecordEntry is a hive in the record.
type RecordEntry struct {
	Alias       string    `json:"alias"`
	Hostname    string    `json:"hostname"`
	SSHUser     string    `json:"ssh_user,omitempty"`
	SSHPort     int       `json:"ssh_port,omitempty"`
	SSHKey      string    `json:"ssh_key,omitempty"`
	HivePort    int       `json:"hive_port"`
	Config      string    `json:"config"` // absolute path of the config that the hive was installed from
	InstalledAt time.Time `json:"installed_at"`

	// Unknown preserves fields that a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

// Hive returns the entry as a hive without workers.
func (e RecordEntry) Hive() config.Hive {
	return config.Hive{
		Alias: e.Alias, Hostname: e.Hostname, SSHUser: e.SSHUser, SSHPort: e.SSHPort, SSHKey: e.SSHKey, HivePort: e.HivePort,
	}
}

// recordFile is the content of the record's file.
type recordFile struct {
	wire.Versioned
	Version  int             `json:"version,omitempty"` // 1 in files of schema 0, which have no schema field
	Hives    []RecordEntry   `json:"hives"`
	Warnings []recordWarning `json:"warnings,omitempty"`

	Unknown wire.Unknown `json:"-"`
}

// recordSchema is the version of the record's format.
const recordSchema = 1

// Types without methods, to avoid recursion in UnmarshalJSON and MarshalJSON.
type (
	plainRecordFile  recordFile
	plainRecordEntry RecordEntry
)

func (f *recordFile) UnmarshalJSON(data []byte) error {
	return wire.UnmarshalWithUnknown(data, (*plainRecordFile)(f), &f.Unknown)
}

func (f recordFile) MarshalJSON() ([]byte, error) {
	return wire.MarshalWithUnknown(plainRecordFile(f), f.Unknown)
}

// UnmarshalJSON implements [json.Unmarshaler]. It preserves unknown fields.
func (e *RecordEntry) UnmarshalJSON(data []byte) error {
	return wire.UnmarshalWithUnknown(data, (*plainRecordEntry)(e), &e.Unknown)
}

// MarshalJSON implements [json.Marshaler].
func (e RecordEntry) MarshalJSON() ([]byte, error) {
	return wire.MarshalWithUnknown(plainRecordEntry(e), e.Unknown)
}

// Entries returns the hives in the record, sorted by alias. If the file does not exist,
// the record is empty.
func (r Record) Entries() ([]RecordEntry, error) {
	f, err := r.read()
	return f.Hives, err
}

// read reads the file. It returns the zero value if the file does not exist.
func (r Record) read() (f recordFile, err error) {
	if r.Path == "" {
		return f, nil
	}
	data, err := os.ReadFile(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, operations.FileError(r.Path, "cannot read the record of hives", err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return recordFile{}, &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonRecordInvalid, Subject: operations.SubjectFile.WithName(r.Path),
			Message: fmt.Sprintf("cannot read the record of hives: %s: %v", r.Path, err), Err: err,
		}
	}
	if err := f.CheckReadable(r.Path, recordSchema); err != nil {
		return recordFile{}, err
	}
	return f, nil
}

// isOutdated reports whether the file has an earlier schema, so that Update must rewrite it.
func (r Record) isOutdated() bool {
	f, err := r.read()
	return err == nil && f.Schema == 0 && f.Version != 0
}

// write writes the file atomically. The caller holds the lock of the file.
func (r Record) write(f recordFile) error {
	f.Version, f.Versioned = 0, wire.Versioned{Schema: max(f.Schema, recordSchema), MinReader: max(f.MinReader, 1)}
	err := atomicfile.Write(r.Path, 0o600, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(f)
	})
	if err != nil {
		return operations.FileError(r.Path, "cannot write the record of hives", err)
	}
	return nil
}

// Extra returns the recorded hives that were installed from the config at configPath and
// then removed from it: the config c contains neither their address nor their alias.
func (r Record) Extra(c *config.Config, configPath string) ([]config.Hive, error) {
	entries, err := r.Entries()
	if err != nil {
		return nil, err
	}
	var extra []config.Hive
	for _, e := range entries {
		inConfig := slices.ContainsFunc(c.Hives, func(h config.Hive) bool {
			return h.Alias == e.Alias || h.Address() == e.Hive().Address()
		})
		if !inConfig && e.Config == configPath {
			extra = append(extra, e.Hive())
		}
	}
	return extra, nil
}

// Update adds the installed hives to the record, with the path of their config, and
// deletes the removed ones. A lock file serializes concurrent updates.
func (r Record) Update(installed, removed []config.Hive, configPath string, now time.Time) error {
	if r.Path == "" || len(installed)+len(removed) == 0 && !r.isOutdated() {
		return nil
	}
	unlock, err := atomicfile.Lock(r.Path)
	if err != nil {
		return operations.FileError(r.Path, "cannot lock the record of hives", err)
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
