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
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
)

// newKeys is a file of keys that is not there yet.
func newKeys(t testing.TB) (keys *access.Keys, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "new", "keys.json")
	return access.OpenKeys(path), path
}

// add makes a key.
func add(t testing.TB, keys *access.Keys, name string, scope access.Scope) (access.Key, string) {
	t.Helper()
	key, secret, err := keys.Add(name, scope)
	if err != nil {
		t.Fatal(err)
	}
	return key, secret
}

// knows says what Check finds: the name of a key, nothing or the error.
func knows(keys *access.Keys, secret string) string {
	key, ok, err := keys.Check(secret)
	switch {
	case err != nil:
		return err.Error()
	case !ok && key == access.Key{}:
		return ""
	case !ok:
		return "no, but it is " + key.Name
	}
	return key.Name
}

func TestKeys(t *testing.T) {
	t.Parallel()
	keys, path := newKeys(t)
	if list, err := keys.List(); err != nil || len(list) != 0 {
		t.Fatalf("without a file: %v, %v", list, err)
	}
	if got := knows(keys, "rbee_"); got != "" {
		t.Errorf("without a file: %q", got)
	}
	one, first := add(t, keys, "one", access.ScopeInfer)
	_, second := add(t, keys, "Two.2_-", access.ScopeAdmin)
	if !regexp.MustCompile(`^rbee_[0-9a-f]{8}_[0-9a-f]{64}$`).MatchString(first) || !strings.HasPrefix(first, "rbee_"+one.ID+"_") || first == second {
		t.Errorf("secrets %s and %s, id %s", first, second, one.ID)
	}
	if one.Name != "one" || one.Scope != access.ScopeInfer || time.Since(one.CreatedAt) > time.Minute || one.CreatedAt.Location() != time.UTC {
		t.Errorf("%+v", one)
	}
	if list, err := keys.List(); err != nil || len(list) != 2 || list[0] != one || list[1].Name != "Two.2_-" {
		t.Errorf("%+v, %v", list, err)
	}
	data, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(data), first[len(first)-64:]) || strings.Contains(string(data), first) {
		t.Errorf("the file holds a secret: %s, %v", data, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	again := access.OpenKeys(path) // as after a restart
	for _, test := range []struct{ name, secret, want string }{
		{"the first", first, "one"},
		{"the second", second, "Two.2_-"},
		{"nothing", "", ""},
		{"no random part", first[:14], ""},
		{"one id, the other's random part", first[:14] + second[14:], ""},
		{"an unknown id", "rbee_00000000" + first[13:], ""},
		{"a digit more", first + "0", ""},
		{"a digit less", first[:len(first)-1], ""},
		{"upper case", strings.ToUpper(first), ""},
		{"a space", " " + first, ""},
		{"long", strings.Repeat("rbee_", 100_000), ""},
	} {
		if got := knows(again, test.secret); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}

	if gone, err := keys.Revoke("one"); err != nil || gone != one {
		t.Errorf("%+v, %v", gone, err)
	}
	if _, err := keys.Revoke("one"); !errors.Is(err, access.ErrNoKey) || !strings.Contains(err.Error(), `"one"`) {
		t.Errorf("revoked twice: %v", err)
	}
	if got := knows(keys, first); got != "" {
		t.Errorf("a revoked secret is %q's", got)
	}
	if got := knows(keys, second); got != "Two.2_-" {
		t.Errorf("the other key is %q", got)
	}
	list, err := keys.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if _, err := keys.Revoke(list[0].ID); err != nil {
		t.Error(err)
	}
	if list, err := keys.List(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	add(t, keys, "one", access.ScopeInfer) // the name is free again
}

func TestAddRefused(t *testing.T) {
	t.Parallel()
	keys, _ := newKeys(t)
	key, _ := add(t, keys, "one", access.ScopeInfer)
	for _, test := range []struct {
		name  string
		scope access.Scope
		want  error
	}{
		{"", access.ScopeInfer, access.ErrBadKey},
		{"-x", access.ScopeInfer, access.ErrBadKey},
		{".x", access.ScopeInfer, access.ErrBadKey},
		{"a b", access.ScopeInfer, access.ErrBadKey},
		{"a/b", access.ScopeInfer, access.ErrBadKey},
		{"a\n", access.ScopeInfer, access.ErrBadKey},
		{"ä", access.ScopeInfer, access.ErrBadKey},
		{strings.Repeat("x", 64), access.ScopeInfer, access.ErrBadKey},
		{strings.Repeat("x", 63), access.ScopeInfer, nil},
		{"two", "", access.ErrBadKey},
		{"two", "root", access.ErrBadKey},
		{"one", access.ScopeAdmin, access.ErrNameTaken},
		{key.ID, access.ScopeInfer, access.ErrNameTaken}, // Revoke could not tell which
	} {
		if _, secret, err := keys.Add(test.name, test.scope); !errors.Is(err, test.want) || (secret == "") != (err != nil) {
			t.Errorf("%q %q: %v, want %v", test.name, test.scope, err, test.want)
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
			t.Errorf("%q includes %q: %v", test.has, test.need, got)
		}
	}
}

// A file that is not as it must be lets nobody in and is not written over.
func TestBrokenFile(t *testing.T) {
	t.Parallel()
	good := fmt.Sprintf(`{"id":"00112233","name":"one","scope":"infer","created_at":"2026-01-01T00:00:00Z","sha256":"%064d"}`, 0)
	with := func(old, replacement string) string {
		return `{"keys":[` + strings.Replace(good, old, replacement, 1) + `]}`
	}
	for _, test := range []struct{ name, content, want string }{
		{"empty", "", "EOF"},
		{"half", `{"keys":[` + good, "EOF"},
		{"null", "null", "no list"},
		{"no keys", "{}", "no list"},
		{"unknown field", `{"keys":[],"more":1}`, "more"},
		{"unknown field of a key", with(`"id"`, `"expires":1,"id"`), "expires"},
		{"two documents", `{"keys":[]}{}`, "follows"},
		{"id", with("00112233", "0011223g"), "0011223g"},
		{"name", with("one", "o/ne"), "o/ne"},
		{"scope", with("infer", "all"), "all"},
		{"hash", with("00000", "0000"), "sha256"},
		{"hash in upper case", with(`"sha256":"0`, `"sha256":"A`), "sha256"},
		{"twice", `{"keys":[` + good + `,` + good + `]}`, "twice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			keys := access.OpenKeys(path)
			_, listed := keys.List()
			_, _, added := keys.Add("two", access.ScopeInfer)
			_, revoked := keys.Revoke("one")
			_, ok, checked := keys.Check("rbee_00112233_" + strings.Repeat("0", 64))
			_, _, again := keys.Check("")
			for _, err := range []error{listed, added, revoked, checked, again} {
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
					t.Errorf("%v, want %q and the path", err, test.want)
				}
			}
			if data, _ := os.ReadFile(path); ok || string(data) != test.content {
				t.Errorf("ok %v, the file is %s", ok, data)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := access.OpenKeys(path).Check(""); err == nil {
		t.Error("a directory was read")
	}
}

// What another process does to the file is noticed after a second.
func TestFileChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, path := newKeys(t)
		theirs := access.OpenKeys(path)
		expect := func(when, secret, want string) {
			t.Helper()
			if got := knows(ours, secret); !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		expect("at first", "", "")
		_, secret := add(t, theirs, "one", access.ScopeInfer)
		expect("at once", secret, "")
		time.Sleep(time.Second)
		expect("after a second", secret, "one")

		// Another file of the same size and time is another file.
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
		expect("within the second", secret, "one")
		time.Sleep(time.Second)
		expect("replaced", secret, "two")

		if _, err := theirs.Revoke("two"); err != nil {
			t.Fatal(err)
		}
		_, newer := add(t, theirs, "new", access.ScopeInfer)
		expect("within the next second", secret, "two")
		time.Sleep(time.Second)
		expect("revoked", secret, "")
		expect("added", newer, "new")

		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		expect("broken", newer, "EOF")
		expect("still broken", newer, "EOF")
		time.Sleep(time.Second)
		expect("broken for long", newer, "EOF")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		expect("removed", newer, "")
		_, last := add(t, ours, "last", access.ScopeAdmin)
		expect("our own, at once", last, "last")
	})
}

func TestKeysAtOnce(t *testing.T) {
	t.Parallel()
	keys, path := newKeys(t)
	_, secret := add(t, keys, "one", access.ScopeInfer)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			_, own, err := keys.Add(fmt.Sprint("k", i), access.ScopeAdmin)
			if err != nil {
				t.Error(err)
			}
			for range 100 {
				if knows(keys, secret) != "one" || knows(keys, own) != fmt.Sprint("k", i) {
					t.Error("a key is not known")
				}
			}
			if i%2 == 0 {
				if _, err := keys.Revoke(fmt.Sprint("k", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	var file struct{ Keys []struct{ Name string } }
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &file) != nil || len(file.Keys) != 5 {
		t.Errorf("%s, %v", data, err)
	}
}

func BenchmarkCheck(b *testing.B) {
	keys, _ := newKeys(b)
	_, secret := add(b, keys, "one", access.ScopeInfer)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, _ := keys.Check(secret); !ok {
			b.Fatal("not known")
		}
	}
}

// TestKeysOfNewerRbee keeps what a newer rbee wrote, and fails closed where only that one
// can read the file.
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
		t.Errorf("the file holds %s, %v", text, err)
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
