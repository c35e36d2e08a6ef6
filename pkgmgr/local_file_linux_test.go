package pkgmgr_test

import (
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
)

// TestUnwritableFiles writes local files to a directory that is not writable. It checks
// that the reason of the errors is missing permission or a read-only file system, and that
// their subject is the file.
func TestUnwritableFiles(t *testing.T) {
	t.Parallel()
	const path = "/sys/rbee-test/file"
	lock, err := lockfile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	lock.SetWorker("e", "latest", "1.0", time.Now())
	c, machines := echoFleet(1)
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	record := pkgmgr.Record{Path: path}
	for name, write := range map[string]func() error{
		"lock":   lock.Save,
		"record": func() error { return record.Update([]config.Hive{echoHive("a")}, nil, "/c", time.Now()) },
		"warnings": func() error {
			return record.SetWarnings([]string{"a"}, "/c", []operations.ValidateWarning{{Hive: "a", Warning: "w"}})
		},
		"bundle": func() error {
			_, err := f.WriteBundle(t.Context(), path, pkgmgr.BundleOptions{})
			return err
		},
	} {
		err := write()
		reason, subject := operations.ReasonOf(err), operations.SubjectOf(err)
		if reason != operations.ReasonPermissionDenied && reason != operations.ReasonReadOnly {
			t.Errorf("%s: %v has reason %q, want %s or %s", name, err, reason, operations.ReasonPermissionDenied, operations.ReasonReadOnly)
		}
		if want := operations.SubjectFile.WithName(path); subject != want {
			t.Errorf("%s: %v has subject %+v, want %+v", name, err, subject, want)
		}
	}
}
