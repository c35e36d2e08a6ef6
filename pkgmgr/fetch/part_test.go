package fetch

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
)

const modelFile = "model.gguf"

// testDownload is a file on a test server and its target path.
type testDownload struct {
	*hubtest.Hub
	File
	content []byte
}

func newTestDownload(t *testing.T, dir string) *testDownload {
	t.Helper()
	content := hubtest.Noise(1, 1_000_000)
	d := &testDownload{Hub: hubtest.New(map[string]hubtest.Repo{"org/m": {modelFile: content}}), content: content}
	d.File = File{
		Name: modelFile, URL: d.CDN + "/org/m/" + modelFile, Path: filepath.Join(dir, "blob"), Sum: hubtest.Sum(content), Size: int64(len(content)),
	}
	t.Cleanup(d.Close)
	return d
}

func (d *testDownload) run(ctx context.Context) error {
	return (&Client{HTTP: NewHTTPClient(), Stall: 5 * time.Second}).DownloadFiles(ctx, []File{d.File}, Options{
		ChunkSize: 64 << 10, Pause: time.Millisecond, BootID: testBoot,
	})
}

// received returns the number of received bytes of the file.
func (d *testDownload) received() int64 { return Partial(d.Path, d.Size, testBoot) }

// interrupt starts a download from a server that stops sending after the given number of
// bytes, cancels it once some data has been received, and returns the number of received
// bytes.
func (d *testDownload) interrupt(t *testing.T, after int64) int64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	held := d.Hold(after)
	go func() {
		for <-held; d.received() == 0; {
			select {
			case <-time.After(time.Millisecond):
			case <-t.Context().Done():
				return
			}
		}
		cancel()
	}()
	if err := d.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("DownloadFiles() = %v, want %v", err, context.Canceled)
	}
	d.Release()
	return d.received()
}

func (d *testDownload) part() *part {
	return &part{File: &d.File, client: &Client{}, boot: testBoot}
}

// TestDownloadFiles checks that DownloadFiles downloads a file in chunks, and that it
// downloads a file with a wrong checksum once more.
func TestDownloadFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault hubtest.Fault
		want  string // of the error
	}{
		"no fault":         {},
		"wrong once":       {hubtest.Fault{Wrong: 1}, ""},
		"always wrong":     {hubtest.Fault{Wrong: -1}, modelFile + " has the checksum"},
		"always busy":      {hubtest.Fault{Status: 503, Statuses: -1}, "cannot download " + modelFile + ": the server responded with 503 Service Unavailable; the partial download is kept"},
		"temporarily busy": {hubtest.Fault{Status: 503, Statuses: 4}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newTestDownload(t, t.TempDir())
			d.Fail(modelFile, c.fault)
			err := d.run(t.Context())
			got, _ := os.ReadFile(d.Path)
			if c.want == "" && (err != nil || !bytes.Equal(got, d.content)) || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("DownloadFiles() = %v with %d bytes, want error %q", err, len(got), c.want)
			}
			var status *StatusError
			if name == "always busy" && (!errors.As(err, &status) || status.Status != 503) {
				t.Errorf("DownloadFiles() = %v, want a StatusError with status 503", err)
			}
		})
	}
}

// TestCanceledDownloadSurvivesReboot checks that the data of a canceled download survives a
// power failure, and another power failure during the next download.
func TestCanceledDownloadSurvivesReboot(t *testing.T) {
	t.Parallel()
	d := newTestDownload(t, t.TempDir())
	before := d.interrupt(t, 500_000)
	if before == 0 {
		t.Fatal("received bytes of the canceled download = 0, want more")
	}
	simulateReboot(t, JournalPath(d.Path))
	if got := d.received(); got != before {
		t.Fatalf("received bytes after a reboot = %d, want %d", got, before)
	}
	p := d.part()
	if err := p.open(64 << 10); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.journal.record(p.received.missingChunks()[0], 1); err != nil {
		t.Fatal(err)
	}
	simulateReboot(t, JournalPath(d.Path))
	if got := d.received(); got != before {
		t.Errorf("received bytes after a reboot during the next download = %d, want %d", got, before)
	}
}

// TestNextDownloadSyncsKilledDownload checks that a download syncs the data of an earlier one
// that was killed, even if it receives no data itself.
func TestNextDownloadSyncsKilledDownload(t *testing.T) {
	t.Parallel()
	d := newTestDownload(t, t.TempDir())
	before := d.interrupt(t, 500_000)
	journal := JournalPath(d.Path)
	data, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	unsynced := strings.NewReplacer("mark\n", "", "sync\n", "").Replace(string(data))
	if err := os.WriteFile(journal, []byte(unsynced), 0o600); err != nil {
		t.Fatal(err)
	}
	p := d.part()
	if err := p.open(64 << 10); err != nil {
		t.Fatal(err)
	}
	p.close()
	simulateReboot(t, journal)
	if got := d.received(); got != before {
		t.Errorf("received bytes after a reboot = %d, want %d", got, before)
	}
}

// TestDownloadSyncsPeriodically checks that a large download is synced to disk while it runs,
// and that it fails if the sync fails.
func TestDownloadSyncsPeriodically(t *testing.T) {
	t.Parallel()
	p := &part{
		File:   &File{Name: "x", Size: 1000, Sum: strings.Repeat("a", 64), Path: filepath.Join(t.TempDir(), "blob")},
		client: &Client{}, boot: testBoot,
	}
	if err := p.open(100); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.unsynced = syncThreshold - 10
	if err := p.writeChunk(strings.NewReader("0123456789"), 3, 300, 310); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.waitForSync()
	p.mu.Unlock()
	simulateReboot(t, JournalPath(p.Path))
	if n := Partial(p.Path, 1000, testBoot); n != 10 {
		t.Errorf("Partial() after a reboot = %d, want 10", n)
	}
	_ = p.f.Close() // makes the next sync fail
	p.unsynced = syncThreshold
	if err := p.recordProgress(4, 410, 10); err != nil {
		t.Fatal(err)
	}
	if err := p.verify(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot sync x to disk") {
		t.Errorf("verify() after a failed sync = %v, want an error with %q", err, "cannot sync x to disk")
	}
}

// TestSlowDisk checks that neither canceling nor closing a download waits long for a slow
// disk.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	p := &part{
		File:   &File{Name: "x", Size: 10, Sum: hubtest.Sum([]byte("0123456789")), Path: filepath.Join(t.TempDir(), "blob")},
		client: &Client{}, boot: testBoot,
	}
	if err := p.open(10); err != nil {
		t.Fatal(err)
	}
	p.syncing = true // until the test resets it
	if err := p.writeChunk(strings.NewReader("0123456789"), 0, 0, 10); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	verified := make(chan error, 1)
	go func() { verified <- p.verify(ctx) }()
	cancel()
	start := time.Now()
	if err := <-verified; !errors.Is(err, context.Canceled) {
		t.Errorf("verify() = %v, want %v", err, context.Canceled)
	}
	p.close()
	if took := time.Since(start); took < syncTimeout || took > syncTimeout+5*time.Second {
		t.Errorf("verify() and close() took %s, want about %s", took, syncTimeout)
	}
	p.mu.Lock()
	p.syncing = false
	p.cond.Broadcast()
	p.mu.Unlock()
	for end := time.Now().Add(time.Minute); ; {
		if _, synced, err := readJournal(JournalPath(p.Path), 10, testBoot); err == nil && synced.total() == 10 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("close() has not synced the data in the background after a minute")
		}
	}
}
