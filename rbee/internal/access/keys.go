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

// Scope is what a key is good for, or what a request takes.
type Scope string

// The scopes. ScopeAdmin includes ScopeInfer.
const (
	ScopeInfer Scope = "infer" // asking models
	ScopeAdmin Scope = "admin" // everything
)

// Includes tells if a key of scope s is enough where need is asked for.
func (s Scope) Includes(need Scope) bool {
	return s == need || s == ScopeAdmin && need == ScopeInfer
}

func (s Scope) known() bool { return s == ScopeInfer || s == ScopeAdmin }

// Key is what is known of a key. Its secret is known to its owner only.
type Key struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Scope     Scope     `json:"scope"`
	CreatedAt time.Time `json:"created_at"`
}

// What [Keys] may answer, with more words around it.
var (
	ErrNoKey     = errors.New("there is no such key")
	ErrNameTaken = errors.New("there is such a key already")
	ErrBadKey    = errors.New("such a key is not possible") // its name or its scope
)

const (
	secretPrefix = "rbee_"
	idLen        = 8  // hex digits of an id
	randomLen    = 64 // hex digits of what makes a secret one
	statEvery    = time.Second
)

// Keys is the keys in a file. Its methods may be called from several goroutines.
// What another process writes to the file is noticed; two processes should not
// change it at the same moment.
type Keys struct {
	path string

	mu      sync.Mutex
	records []record
	err     error       // of reading the file
	seen    fs.FileInfo // of what was read; nil: there was no file
	looked  time.Time   // when the file was last looked at; zero: it must be read
}

// record is a key as the file holds it.
type record struct {
	Key
	SHA256 string `json:"sha256"` // of the secret, in hex

	// Unknown keeps what a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

type plainRecord record

func (r *record) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainRecord)(r), &r.Unknown)
}

func (r record) MarshalJSON() ([]byte, error) { return wire.EncodeKeeping(plainRecord(r), r.Unknown) }

// OpenKeys is the keys in the file at path. A file that is not there has no keys
// and is made by the first.
func OpenKeys(path string) *Keys { return &Keys{path: path} }

// Add makes a key. This is the only time that its secret is told.
func (k *Keys) Add(name string, scope Scope) (Key, string, error) {
	if !validName(name) {
		return Key{}, "", fmt.Errorf("%w: its name is %q, want at most 63 letters, digits, '.', '_' and '-', the first a letter or digit", ErrBadKey, name)
	}
	if !scope.known() {
		return Key{}, "", fmt.Errorf("%w: its scope is %q, want %q or %q", ErrBadKey, scope, ScopeInfer, ScopeAdmin)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil {
		return Key{}, "", err
	}
	if find(k.records, name) >= 0 {
		return Key{}, "", fmt.Errorf("%w: %q", ErrNameTaken, name)
	}
	id := randomHex(idLen)
	for id == name || find(k.records, id) >= 0 {
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

// List returns the keys, the oldest first.
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

// Revoke removes a key for good and returns what it was.
func (k *Keys) Revoke(nameOrID string) (Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil {
		return Key{}, err
	}
	i := find(k.records, nameOrID)
	if i < 0 {
		return Key{}, fmt.Errorf("%w: %q", ErrNoKey, nameOrID)
	}
	key := k.records[i].Key
	rest := append(append([]record{}, k.records[:i]...), k.records[i+1:]...)
	if err := k.write(rest); err != nil {
		return Key{}, err
	}
	return key, nil
}

// Check finds the key that a secret belongs to; false: to none. An error means
// that the file cannot be read or understood, and nobody is let in. What another
// process changed is known a second later at most.
func (k *Keys) Check(secret string) (Key, bool, error) {
	id, ok := idOf(secret)
	if !ok {
		secret = "" // whatever it is, it needs no long look
	}
	sum := sha256.Sum256([]byte(secret))
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.refresh(); err != nil {
		return Key{}, false, err
	}
	r := record{SHA256: strings.Repeat("-", hex.EncodedLen(len(sum)))} // no hash is this, so none is as much work as one
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

// idOf is the id in a secret; false, if it has not the form of one.
func idOf(secret string) (string, bool) {
	rest, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok || len(rest) != idLen+1+randomLen || rest[idLen] != '_' {
		return "", false
	}
	return rest[:idLen], true
}

// find is the index of the key with this name or id; -1, if there is none. No
// name is another key's id.
func find(records []record, nameOrID string) int {
	for i, r := range records {
		if r.Name == nameOrID || r.ID == nameOrID {
			return i
		}
	}
	return -1
}

// refresh reads the file if it was not looked at lately and has changed. k.mu is held.
func (k *Keys) refresh() error {
	now := time.Now()
	if !k.looked.IsZero() && now.Sub(k.looked) < statEvery {
		return k.err
	}
	info, err := os.Stat(k.path)
	if err != nil || k.looked.IsZero() || !same(info, k.seen) {
		return k.read()
	}
	k.looked = now
	return k.err
}

// same tells if two looks at a file saw the same content. A file that was replaced
// is another one, also where size and time are too coarse to tell.
func same(a, b fs.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// read reads the file. k.mu is held.
func (k *Keys) read() error {
	k.records, k.seen, k.err, k.looked = nil, nil, nil, time.Now()
	f, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer f.Close()
		k.seen, err = f.Stat()
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(f)
	}
	if err == nil {
		k.records, err = parse(data)
	}
	if err != nil {
		k.err = fmt.Errorf("reading the keys in %s: %w", k.path, err)
	}
	return k.err
}

// file is the form of the file. [statefile.Write] adds the schema.
type file struct {
	Keys []record `json:"keys"`
}

// write makes the file hold these keys. k.mu is held.
func (k *Keys) write(records []record) error {
	k.looked = time.Time{} // whatever comes of it, the file is read again
	if err := statefile.Write(k.path, file{records}); err != nil {
		return fmt.Errorf("writing the keys to %s: %w", k.path, err)
	}
	return nil
}

// parse reads the content of a file. It takes nothing that [Keys] would not write, but
// for fields of a newer schema that may be ignored.
func parse(data []byte) ([]record, error) {
	var f file
	if err := strictly(data); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Keys == nil {
		return nil, errors.New(`there is no list "keys"`)
	}
	for i, r := range f.Keys {
		switch {
		case !isHex(r.ID, idLen):
			return nil, fmt.Errorf("key %d: its id is %q, want %d hex digits", i+1, r.ID, idLen)
		case !validName(r.Name):
			return nil, fmt.Errorf("key %d: %q is no name", i+1, r.Name)
		case !r.Scope.known():
			return nil, fmt.Errorf("key %q: its scope is %q, want %q or %q", r.Name, r.Scope, ScopeInfer, ScopeAdmin)
		case !isHex(r.SHA256, 2*sha256.Size):
			return nil, fmt.Errorf("key %q: its sha256 is not one", r.Name)
		case find(f.Keys[:i], r.Name) >= 0 || find(f.Keys[:i], r.ID) >= 0:
			return nil, fmt.Errorf("key %q: its name or id is there twice", r.Name)
		}
	}
	return f.Keys, nil
}

// strictly refuses fields that are not known, and a file that needs a newer rbee.
func strictly(data []byte) error {
	var head wire.Versioned
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&head); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the keys")
	}
	if err := head.Readable("the file", statefile.Schema); err != nil || head.Schema > statefile.Schema {
		return err
	}
	d = json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(new(struct {
		wire.Versioned
		Keys []plainRecord `json:"keys"`
	}))
}

// validName tells if a key may have this name: it goes into commands, addresses and logs.
func validName(name string) bool {
	const first = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	return name != "" && len(name) <= 63 && strings.Contains(first, name[:1]) && strings.Trim(name, first+"._-") == ""
}

// isHex tells if s is n hex digits as they are written here.
func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// randomHex is n random hex digits.
func randomHex(n int) string {
	b := make([]byte, n/2)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
