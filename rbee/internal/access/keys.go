package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// Scope is a permission: a key grants a scope, and a request requires a scope.
type Scope string

// The scopes. ScopeAdmin includes ScopeInfer.
const (
	ScopeInfer Scope = "infer" // using models
	ScopeAdmin Scope = "admin" // everything
)

// Includes reports whether a key with the scope s permits requests that require the given
// scope.
func (s Scope) Includes(required Scope) bool {
	return s == required || s == ScopeAdmin && required == ScopeInfer
}

func (s Scope) valid() bool { return s == ScopeInfer || s == ScopeAdmin }

// Key describes an API key. It does not include the secret, which is not stored.
type Key struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Scope     Scope     `json:"scope"`
	CreatedAt time.Time `json:"created_at"`
}

// Errors that [Keys] returns, wrapped with details.
var (
	ErrKeyNotFound = errors.New("unknown key")
	ErrKeyExists   = errors.New("the name is already in use")
	ErrInvalidKey  = errors.New("invalid key") // invalid name or scope
)

const (
	secretPrefix = "rbee_"
	idLen        = 8           // hex digits of an ID
	randomLen    = 64          // hex digits of the random part of a secret
	statInterval = time.Second // minimum time between checks of the file for changes

	nameFormat = "at most 63 letters, digits, '.', '_' and '-', starting with a letter or digit"
)

// Keys manages the API keys in a file. Its methods may be called concurrently. Keys detects
// changes by other processes, but two processes must not change the file simultaneously.
type Keys struct {
	path string

	mu        sync.Mutex
	records   []record
	err       error       // of the last read
	info      fs.FileInfo // of the file at the last read; nil if it did not exist
	checkedAt time.Time   // last check of the file; zero means that it must be read
}

// record is a key in the file.
type record struct {
	Key
	SHA256 string `json:"sha256"` // of the secret, in hex

	// Unknown holds the fields that a newer rbee has written.
	Unknown wire.Unknown `json:"-"`
}

type plainRecord record

func (r *record) UnmarshalJSON(data []byte) error {
	return wire.UnmarshalWithUnknown(data, (*plainRecord)(r), &r.Unknown)
}

func (r record) MarshalJSON() ([]byte, error) {
	return wire.MarshalWithUnknown(plainRecord(r), r.Unknown)
}

// OpenKeys returns the keys in the file at path. The file need not exist; [Keys.Add]
// creates it.
func OpenKeys(path string) *Keys { return &Keys{path: path} }

// Add creates a key and returns it with its secret, which cannot be retrieved later.
func (k *Keys) Add(name string, scope Scope) (Key, string, error) {
	if !validName(name) {
		return Key{}, "", fmt.Errorf("%w name %q: want %s", ErrInvalidKey, name, nameFormat)
	}
	if !scope.valid() {
		return Key{}, "", fmt.Errorf("%w scope %q: want %q or %q", ErrInvalidKey, scope, ScopeInfer, ScopeAdmin)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil {
		return Key{}, "", err
	}
	if indexOf(k.records, name) >= 0 {
		return Key{}, "", fmt.Errorf("cannot create key %q: %w", name, ErrKeyExists)
	}
	id := randomHex(idLen)
	for id == name || indexOf(k.records, id) >= 0 {
		id = randomHex(idLen)
	}
	secret := secretPrefix + id + "_" + randomHex(randomLen)
	sum := sha256.Sum256([]byte(secret))
	key := Key{id, name, scope, time.Now().UTC().Truncate(time.Second)}
	if err := k.write(append(k.records, record{Key: key, SHA256: hex.EncodeToString(sum[:])})); err != nil {
		return Key{}, "", err
	}
	return key, secret, nil
}

// List returns the keys, oldest first.
func (k *Keys) List() ([]Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil {
		return nil, err
	}
	keys := make([]Key, len(k.records))
	for i, r := range k.records {
		keys[i] = r.Key
	}
	return keys, nil
}

// Revoke removes a key permanently and returns it.
func (k *Keys) Revoke(nameOrID string) (Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil {
		return Key{}, err
	}
	i := indexOf(k.records, nameOrID)
	if i < 0 {
		return Key{}, fmt.Errorf("%w %q", ErrKeyNotFound, nameOrID)
	}
	key := k.records[i].Key
	remaining := append(append([]record{}, k.records[:i]...), k.records[i+1:]...)
	if err := k.write(remaining); err != nil {
		return Key{}, err
	}
	return key, nil
}

// Check returns the key with the given secret; ok is false if no key has it. Check returns an
// error if the file is unreadable or invalid. Changes by other processes take effect within a
// second.
func (k *Keys) Check(secret string) (key Key, ok bool, err error) {
	id, ok := secretID(secret)
	if !ok {
		secret = "" // do not hash an input of unlimited size
	}
	sum := sha256.Sum256([]byte(secret))
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(); err != nil {
		return Key{}, false, err
	}
	// The check takes equally long for known and unknown IDs: for an unknown ID, it compares
	// the hash with a value that equals no hash.
	r := record{SHA256: strings.Repeat("-", hex.EncodedLen(len(sum)))}
	for _, known := range k.records {
		if known.ID == id {
			r = known
		}
	}
	if subtle.ConstantTimeCompare([]byte(r.SHA256), []byte(hex.EncodeToString(sum[:]))) == 0 {
		return Key{}, false, nil
	}
	return r.Key, true, nil
}

// secretID returns the ID in a secret; ok is false if the secret is malformed.
func secretID(secret string) (string, bool) {
	rest, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok || len(rest) != idLen+1+randomLen || rest[idLen] != '_' {
		return "", false
	}
	return rest[:idLen], true
}

// indexOf returns the index of the key with this name or ID, or -1. A name never equals
// the ID of another key.
func indexOf(records []record, nameOrID string) int {
	for i, r := range records {
		if r.Name == nameOrID || r.ID == nameOrID {
			return i
		}
	}
	return -1
}

// refresh reads the file if it has changed, at most once per statInterval. The caller holds
// k.mu.
func (k *Keys) refresh() error {
	now := time.Now()
	if !k.checkedAt.IsZero() && now.Sub(k.checkedAt) < statInterval {
		return k.err
	}
	info, err := os.Stat(k.path)
	if err != nil || k.checkedAt.IsZero() || !isUnchanged(info, k.info) {
		return k.read()
	}
	k.checkedAt = now
	return k.err
}

// isUnchanged reports whether the file has not changed since previous was read, which is nil
// if the file did not exist. A replaced file counts as changed even if its size and
// modification time are the same.
func isUnchanged(current, previous fs.FileInfo) bool {
	return previous != nil && os.SameFile(current, previous) && current.Size() == previous.Size() && current.ModTime().Equal(previous.ModTime())
}

// read reads the file. The caller holds k.mu.
func (k *Keys) read() error {
	k.records, k.info, k.err, k.checkedAt = nil, nil, nil, time.Now()
	f, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer f.Close()
		k.info, err = f.Stat()
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(f)
	}
	if err == nil {
		k.records, err = parseKeys(data)
	}
	if err != nil {
		k.err = fmt.Errorf("cannot read the keys in %s: %w", k.path, err)
	}
	return k.err
}

// keysFile is the content of the file. [statefile.Write] adds the schema version.
type keysFile struct {
	Keys []record `json:"keys"`
}

// write replaces the keys in the file. The caller holds k.mu.
func (k *Keys) write(records []record) error {
	k.checkedAt = time.Time{} // read the file again, whether or not the write succeeds
	if err := statefile.Write(k.path, keysFile{records}); err != nil {
		return fmt.Errorf("cannot write the keys to %s: %w", k.path, err)
	}
	return nil
}

// parseKeys parses and validates the content of a file. It rejects unknown fields, unless the
// file has a newer schema that permits readers to ignore them.
func parseKeys(data []byte) ([]record, error) {
	var f keysFile
	if err := decodeStrict(data); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Keys == nil {
		return nil, errors.New(`the list "keys" is missing`)
	}
	for i, r := range f.Keys {
		switch {
		case !isHex(r.ID, idLen):
			return nil, fmt.Errorf("key %d: invalid ID %q: want %d hex digits", i+1, r.ID, idLen)
		case !validName(r.Name):
			return nil, fmt.Errorf("key %d: invalid name %q: want %s", i+1, r.Name, nameFormat)
		case !r.Scope.valid():
			return nil, fmt.Errorf("key %q: invalid scope %q: want %q or %q", r.Name, r.Scope, ScopeInfer, ScopeAdmin)
		case !isHex(r.SHA256, 2*sha256.Size):
			return nil, fmt.Errorf("key %q: invalid sha256: want %d hex digits", r.Name, 2*sha256.Size)
		case indexOf(f.Keys[:i], r.Name) >= 0 || indexOf(f.Keys[:i], r.ID) >= 0:
			return nil, fmt.Errorf("key %q: duplicate name or ID", r.Name)
		}
	}
	return f.Keys, nil
}

// decodeStrict returns an error if the file has unknown fields of the current schema, or if
// only a newer rbee can read the file.
func decodeStrict(data []byte) error {
	var head wire.Versioned
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&head); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("unexpected data after the keys")
	}
	if err := head.CheckReadable("the file", statefile.Schema); err != nil || head.Schema > statefile.Schema {
		return err
	}
	d = json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(new(struct {
		wire.Versioned
		Keys []plainRecord `json:"keys"`
	}))
}

// validName reports whether a key may have this name, which is used in commands, URLs and logs.
func validName(name string) bool {
	const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	return name != "" && len(name) <= 63 && strings.Contains(alphanumeric, name[:1]) && strings.Trim(name, alphanumeric+"._-") == ""
}

// isHex reports whether s consists of n lower-case hex digits.
func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// randomHex returns n random hex digits.
func randomHex(n int) string {
	b := make([]byte, n/2)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
