package access_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
)

// newKeys returns Keys for a file that does not exist yet, and the path of the file.
func newKeys(t testing.TB) (keys *access.Keys, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "new", "keys.json")
	return access.OpenKeys(path), path
}

// add creates a key and returns it with its secret.
func add(t testing.TB, keys *access.Keys, name string, scope access.Scope) (access.Key, string) {
	t.Helper()
	key, secret, err := keys.Add(name, scope)
	if err != nil {
		t.Fatal(err)
	}
	return key, secret
}

// checkName calls Check and returns the name of the key, "" without a key, or the error.
func checkName(keys *access.Keys, secret string) string {
	key, ok, err := keys.Check(secret)
	switch {
	case err != nil:
		return err.Error()
	case !ok && key == access.Key{}:
		return ""
	case !ok:
		return "key " + key.Name + " with ok = false"
	}
	return key.Name
}

func TestKeys(t *testing.T) {
	t.Parallel()
	keys, path := newKeys(t)
	if list, err := keys.List(); err != nil || len(list) != 0 {
		t.Fatalf("List() without a file = %v, %v, want none", list, err)
	}
	if got := checkName(keys, "rbee_"); got != "" {
		t.Errorf("Check() without a file found %q, want no key", got)
	}
	one, first := add(t, keys, "one", access.ScopeInfer)
	_, second := add(t, keys, "Two.2_-", access.ScopeAdmin)
	if !regexp.MustCompile(`^rbee_[0-9a-f]{8}_[0-9a-f]{64}$`).MatchString(first) || !strings.HasPrefix(first, "rbee_"+one.ID+"_") || first == second {
		t.Errorf("secrets %s and %s of ID %s, want different secrets with the ID", first, second, one.ID)
	}
	if one.Name != "one" || one.Scope != access.ScopeInfer || time.Since(one.CreatedAt) > time.Minute || one.CreatedAt.Location() != time.UTC {
		t.Errorf("Add(one, infer) = %+v, want these values and the current time in UTC", one)
	}
	if list, err := keys.List(); err != nil || len(list) != 2 || list[0] != one || list[1].Name != "Two.2_-" {
		t.Errorf("List() = %+v, %v, want one and Two.2_-", list, err)
	}
	data, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(data), first[len(first)-64:]) || strings.Contains(string(data), first) {
		t.Errorf("file = %s, %v, want no secret in it", data, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat(file) = %v, %v, want mode 600", info, err)
	}

	reopened := access.OpenKeys(path) // as after a restart
	for _, test := range []struct{ name, secret, want string }{
		{"first secret", first, "one"},
		{"second secret", second, "Two.2_-"},
		{"empty", "", ""},
		{"no random part", first[:14], ""},
		{"random part of another key", first[:14] + second[14:], ""},
		{"unknown ID", "rbee_00000000" + first[13:], ""},
		{"one digit too many", first + "0", ""},
		{"one digit missing", first[:len(first)-1], ""},
		{"upper case", strings.ToUpper(first), ""},
		{"leading space", " " + first, ""},
		{"very long", strings.Repeat("rbee_", 100_000), ""},
	} {
		if got := checkName(reopened, test.secret); got != test.want {
			t.Errorf("%s: Check() found %q, want %q", test.name, got, test.want)
		}
	}

	if revoked, err := keys.Revoke("one"); err != nil || revoked != one {
		t.Errorf("Revoke(one) = %+v, %v, want %+v", revoked, err, one)
	}
	if _, err := keys.Revoke("one"); !errors.Is(err, access.ErrKeyNotFound) || !strings.Contains(err.Error(), `"one"`) {
		t.Errorf("second Revoke(one) = %v, want %v", err, access.ErrKeyNotFound)
	}
	if got := checkName(keys, first); got != "" {
		t.Errorf("Check() of a revoked secret found %q, want no key", got)
	}
	if got := checkName(keys, second); got != "Two.2_-" {
		t.Errorf("Check() of the other secret found %q, want Two.2_-", got)
	}
	list, err := keys.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("List() = %v, %v, want one key", list, err)
	}
	if _, err := keys.Revoke(list[0].ID); err != nil {
		t.Errorf("Revoke(%q) = %v, want nil", list[0].ID, err)
	}
	if list, err := keys.List(); err != nil || len(list) != 0 {
		t.Errorf("List() = %v, %v, want none", list, err)
	}
	add(t, keys, "one", access.ScopeInfer) // the name can be used again
}

func TestAddInvalidKey(t *testing.T) {
	t.Parallel()
	keys, _ := newKeys(t)
	key, _ := add(t, keys, "one", access.ScopeInfer)
	for _, test := range []struct {
		name  string
		scope access.Scope
		want  error
	}{
		{"", access.ScopeInfer, access.ErrInvalidKey},
		{"-x", access.ScopeInfer, access.ErrInvalidKey},
		{".x", access.ScopeInfer, access.ErrInvalidKey},
		{"a b", access.ScopeInfer, access.ErrInvalidKey},
		{"a/b", access.ScopeInfer, access.ErrInvalidKey},
		{"a\n", access.ScopeInfer, access.ErrInvalidKey},
		{"ä", access.ScopeInfer, access.ErrInvalidKey},
		{strings.Repeat("x", 64), access.ScopeInfer, access.ErrInvalidKey},
		{strings.Repeat("x", 63), access.ScopeInfer, nil},
		{"two", "", access.ErrInvalidKey},
		{"two", "root", access.ErrInvalidKey},
		{"one", access.ScopeAdmin, access.ErrKeyExists},
		{key.ID, access.ScopeInfer, access.ErrKeyExists}, // otherwise Revoke(key.ID) would be ambiguous
	} {
		if _, secret, err := keys.Add(test.name, test.scope); !errors.Is(err, test.want) || (secret == "") != (err != nil) {
			t.Errorf("Add(%q, %q) = %v, want %v and a secret only without error", test.name, test.scope, err, test.want)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		has, need access.Scope
		want      bool
	}{
		{access.ScopeAdmin, access.ScopeAdmin, true},
		{access.ScopeAdmin, access.ScopeInfer, true},
		{access.ScopeInfer, access.ScopeInfer, true},
		{access.ScopeInfer, access.ScopeAdmin, false},
		{access.ScopeAdmin, "other", false},
	} {
		if got := test.has.Includes(test.need); got != test.want {
			t.Errorf("%q.Includes(%q) = %t, want %t", test.has, test.need, got, test.want)
		}
	}
}

// TestInvalidFile checks that an invalid file denies every request and is not overwritten.
func TestInvalidFile(t *testing.T) {
	t.Parallel()
	good := fmt.Sprintf(`{"id":"00112233","name":"one","scope":"infer","created_at":"2026-01-01T00:00:00Z","sha256":"%064d"}`, 0)
	with := func(old, replacement string) string {
		return `{"keys":[` + strings.Replace(good, old, replacement, 1) + `]}`
	}
	for _, test := range []struct{ name, content, want string }{
		{"empty", "", "EOF"},
		{"truncated", `{"keys":[` + good, "EOF"},
		{"null", "null", "missing"},
		{"no keys", "{}", "missing"},
		{"unknown field", `{"keys":[],"more":1}`, "more"},
		{"unknown field of a key", with(`"id"`, `"expires":1,"id"`), "expires"},
		{"two documents", `{"keys":[]}{}`, "after the keys"},
		{"id", with("00112233", "0011223g"), "0011223g"},
		{"name", with("one", "o/ne"), "o/ne"},
		{"scope", with("infer", "all"), "all"},
		{"hash", with("00000", "0000"), "sha256"},
		{"hash in upper case", with(`"sha256":"0`, `"sha256":"A`), "sha256"},
		{"duplicate", `{"keys":[` + good + `,` + good + `]}`, "duplicate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			keys := access.OpenKeys(path)
			_, listErr := keys.List()
			_, _, addErr := keys.Add("two", access.ScopeInfer)
			_, revokeErr := keys.Revoke("one")
			_, ok, checkErr := keys.Check("rbee_00112233_" + strings.Repeat("0", 64))
			_, _, emptyErr := keys.Check("")
			for call, err := range map[string]error{"List()": listErr, "Add()": addErr, "Revoke()": revokeErr, "Check()": checkErr, `Check("")`: emptyErr} {
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
					t.Errorf("%s = %v, want an error with %q and the path", call, err, test.want)
				}
			}
			if data, _ := os.ReadFile(path); ok || string(data) != test.content {
				t.Errorf("Check() found a key: %t, file = %s, want false and the file unchanged", ok, data)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := access.OpenKeys(path).Check(""); err == nil {
		t.Error("Check() with a directory as file = nil, want an error")
	}
}

// TestFileChanged checks that changes by another process take effect after a second.
func TestFileChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, path := newKeys(t)
		theirs := access.OpenKeys(path)
		expect := func(when, secret, want string) {
			t.Helper()
			if got := checkName(ours, secret); !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%s: Check() found %q, want %q", when, got, want)
			}
		}
		expect("no file", "", "")
		_, secret := add(t, theirs, "one", access.ScopeInfer)
		expect("immediately", secret, "")
		waittest.Advance(time.Second)
		expect("after a second", secret, "one")

		// A replaced file counts as changed even if size and time are equal.
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.WriteData(path, bytes.Replace(data, []byte("one"), []byte("two"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		expect("replaced, within a second", secret, "one")
		waittest.Advance(time.Second)
		expect("replaced", secret, "two")

		if _, err := theirs.Revoke("two"); err != nil {
			t.Fatal(err)
		}
		_, newer := add(t, theirs, "new", access.ScopeInfer)
		expect("revoked, within a second", secret, "two")
		waittest.Advance(time.Second)
		expect("revoked", secret, "")
		expect("added", newer, "new")

		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		waittest.Advance(time.Second)
		expect("broken", newer, "EOF")
		expect("still broken", newer, "EOF")
		waittest.Advance(time.Second)
		expect("still broken after a second", newer, "EOF")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		waittest.Advance(time.Second)
		expect("removed", newer, "")
		_, last := add(t, ours, "last", access.ScopeAdmin)
		expect("own key, immediately", last, "last")
	})
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	keys, path := newKeys(t)
	_, secret := add(t, keys, "one", access.ScopeInfer)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			_, own, err := keys.Add(fmt.Sprint("k", i), access.ScopeAdmin)
			if err != nil {
				t.Errorf("Add(k%d) = %v, want nil", i, err)
			}
			for range 100 {
				if checkName(keys, secret) != "one" || checkName(keys, own) != fmt.Sprint("k", i) {
					t.Error("Check() does not find a key, want it found")
				}
			}
			if i%2 == 0 {
				if _, err := keys.Revoke(fmt.Sprint("k", i)); err != nil {
					t.Errorf("Revoke(k%d) = %v, want nil", i, err)
				}
			}
		})
	}
	all.Wait()
	var file struct{ Keys []struct{ Name string } }
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &file) != nil || len(file.Keys) != 5 {
		t.Errorf("file = %s, %v, want 5 keys", data, err)
	}
}

func BenchmarkCheck(b *testing.B) {
	keys, _ := newKeys(b)
	_, secret := add(b, keys, "one", access.ScopeInfer)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, _ := keys.Check(secret); !ok {
			b.Fatal("Check() = false, want true")
		}
	}
}

// TestKeysOfNewerRbee checks that data of a newer rbee is kept, and that a file that only a
// newer rbee can read denies every request.
func TestKeysOfNewerRbee(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	k := access.OpenKeys(path)
	if _, _, err := k.Add("first", access.ScopeInfer); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.NewReplacer(`"schema": 1`, `"schema": 2, "default": "x"`, `"scope": "infer"`, `"scope": "infer", "note": "y"`).Replace(string(text))
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := access.OpenKeys(path).Add("second", access.ScopeAdmin); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(path); err != nil || !strings.Contains(string(text), `"default": "x"`) || !strings.Contains(string(text), `"note": "y"`) || !strings.Contains(string(text), `"schema": 2`) {
		t.Errorf("file = %s, %v, want the data of the newer rbee kept", text, err)
	}
	unreadable := strings.Replace(string(text), `"min_reader": 0`, `"min_reader": 2`, 1)
	if err := os.WriteFile(path, []byte(unreadable), 0o600); err != nil {
		t.Fatal(err)
	}
	var schemaErr *wire.NewerSchemaError
	if keys, err := access.OpenKeys(path).List(); !errors.As(err, &schemaErr) {
		t.Errorf("List() = %v, %v, want a NewerSchemaError", keys, err)
	}
}
