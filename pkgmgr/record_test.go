package pkgmgr_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

func newRecord(t *testing.T) pkgmgr.Record {
	t.Helper()
	return pkgmgr.Record{Path: filepath.Join(t.TempDir(), "state", "fleet.json")}
}

// recordedHives formats the hives in the record as "alias@config".
func recordedHives(t *testing.T, r pkgmgr.Record) string {
	t.Helper()
	entries, err := r.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Alias+"@"+e.Config)
	}
	return strings.Join(all, " ")
}

func TestRecord(t *testing.T) {
	t.Parallel()
	r, now := newRecord(t), time.Date(2025, 10, 23, 12, 0, 0, 5, time.UTC)
	a := config.Hive{Alias: "a", Hostname: "a.example", SSHUser: "bee", SSHPort: 2222, SSHKey: "~/key", HivePort: 8600, AutoStart: true}
	b := echoHive("b")
	update := func(installed, removed []config.Hive, config, want string) {
		t.Helper()
		if err := r.Update(installed, removed, config, now); err != nil {
			t.Fatal(err)
		}
		if got := recordedHives(t, r); got != want {
			t.Errorf("Entries() = %q, want %q", got, want)
		}
	}
	update(nil, nil, "/one", "")
	update([]config.Hive{b, a}, nil, "/one", "a@/one b@/one")
	entries, _ := r.Entries()
	if want := (pkgmgr.RecordEntry{
		Alias: "a", Hostname: "a.example", SSHUser: "bee", SSHPort: 2222, SSHKey: "~/key", HivePort: 8600, Config: "/one", InstalledAt: now.Truncate(time.Second),
	}); entries[0] != want {
		t.Errorf("Entries()[0] = %+v, want %+v", entries[0], want)
	}
	if h := entries[0].Hive(); h.Address() != a.Address() || h.SSHKey != a.SSHKey || h.HivePort != 8600 {
		t.Errorf("Hive() = %+v, want the address, key and port of %+v", h, a)
	}
	moved := a
	moved.Hostname = "other.example"
	update([]config.Hive{moved}, nil, "/one", "a@/one b@/one")    // the same alias at another address
	update([]config.Hive{moved}, nil, "/two", "a@/two b@/one")    // the same address in another config
	update([]config.Hive{a}, nil, "/one", "a@/one a@/two b@/one") // the same alias in two configs
	update([]config.Hive{a}, []config.Hive{b}, "/one", "a@/one a@/two")
	if info, err := os.Stat(r.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat(%s) has mode %v, %v, want 0600", r.Path, info.Mode(), err)
	}
}

func TestRecordExtra(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	one, two, three := echoHive("one"), echoHive("two"), echoHive("three")
	if err := r.Update([]config.Hive{one, two, three}, nil, "/mine", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := r.Update([]config.Hive{echoHive("other")}, nil, "/other", time.Now()); err != nil {
		t.Fatal(err)
	}
	renamed, moved := two, three
	renamed.Alias, moved.Hostname = "two-renamed", "three-moved.example"
	extra, err := r.Extra(&config.Config{Hives: []config.Hive{renamed, moved}}, "/mine")
	if err != nil || len(extra) != 1 || extra[0].Alias != "one" || extra[0].Address() != one.Address() {
		t.Errorf("Extra() = %+v, %v, want only the hive one", extra, err)
	}
	if extra, err := r.Extra(&config.Config{}, "/none"); err != nil || len(extra) != 0 {
		t.Errorf("Extra() of another config = %+v, %v, want none", extra, err)
	}
}

// TestRecordConcurrent checks that no concurrent update is lost.
func TestRecordConcurrent(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			h := echoHive(fmt.Sprintf("hive-%02d", i))
			if err := r.Update([]config.Hive{h}, nil, "/c", time.Now()); err != nil {
				t.Errorf("Update() of hive %d = %v, want nil", i, err)
			}
			if i%3 == 0 {
				if err := r.Update(nil, []config.Hive{h}, "/c", time.Now()); err != nil {
					t.Errorf("Update() that removes hive %d = %v, want nil", i, err)
				}
			}
		})
	}
	wg.Wait()
	if got := strings.Fields(recordedHives(t, r)); len(got) != 16 {
		t.Errorf("Entries() has %d hives %v, want 16", len(got), got)
	}
	files, err := os.ReadDir(filepath.Dir(r.Path))
	if err != nil || len(files) != 1 { // the record, without a lock file
		t.Errorf("the directory of the record contains %v, %v, want only the record", files, err)
	}
}

func TestRecordWithoutFile(t *testing.T) {
	t.Parallel()
	var none pkgmgr.Record
	if err := none.Update([]config.Hive{echoHive("a")}, nil, "/c", time.Now()); err != nil {
		t.Errorf("Update() of a record without a file = %v, want nil", err)
	}
	if got := recordedHives(t, none); got != "" {
		t.Errorf("Entries() of a record without a file = %q, want none", got)
	}
	r := newRecord(t)
	if err := r.Update([]config.Hive{echoHive("a")}, nil, "/c", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.Path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Entries(); err == nil || !strings.Contains(err.Error(), r.Path) {
		t.Errorf("Entries() of a damaged record = %v, want an error with its path", err)
	}
	if _, err := r.Extra(&config.Config{}, "/c"); err == nil {
		t.Error("Extra() of a damaged record = nil, want an error")
	}
	if err := r.Update([]config.Hive{echoHive("b")}, nil, "/c", time.Now()); err == nil {
		t.Error("Update() of a damaged record = nil, want an error")
	}
}

// TestRecordErrors reads records that this rbee cannot use.
func TestRecordErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, content string
		want          operations.Reason
	}{
		{"damaged", `{"hives":`, operations.ReasonRecordInvalid},
		{"newer", `{"schema":9,"min_reader":9}`, operations.ReasonNewerFile},
	} {
		r := newRecord(t)
		if err := errors.Join(os.MkdirAll(filepath.Dir(r.Path), 0o700), os.WriteFile(r.Path, []byte(tt.content), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err := r.Entries()
		if reason, subject := operations.ReasonOf(err), operations.SubjectOf(err); reason != tt.want || subject != operations.SubjectFile.WithName(r.Path) {
			t.Errorf("%s: Entries() = %v, reason %q and subject %+v; want %q and the file", tt.name, err, reason, subject, tt.want)
		}
	}
}
