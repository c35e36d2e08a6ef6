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

// world is a server with a file, and the place for it.
type world struct {
	*hubtest.Hub
	File
	content []byte
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	content := hubtest.Noise(1, 1_000_000)
	w := &world{Hub: hubtest.New(map[string]hubtest.Repo{"org/m": {modelFile: content}}), content: content}
	w.File = File{
		Name: modelFile, URL: w.CDN + "/org/m/" + modelFile, Path: filepath.Join(dir, "blob"), Sum: hubtest.Sum(content), Size: int64(len(content)),
	}
	t.Cleanup(w.Close)
	return w
}

func (w *world) download(ctx context.Context) error {
	return (&Client{HTTP: NewHTTPClient(), Stall: 5 * time.Second}).DownloadFiles(ctx, []File{w.File}, Options{
		ChunkSize: 64 << 10, Pause: time.Millisecond, BootID: testBoot,
	})
}

// arrived returns how much of the file is there.
func (w *world) arrived() int64 { return Partial(w.Path, w.Size, testBoot) }

// cutOff downloads the file as far as the server sends it, cancels once something has
// arrived, and returns how much is there.
func (w *world) cutOff(t *testing.T, after int64) int64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	held := w.Hold(after)
	go func() {
		for <-held; w.arrived() == 0 && t.Context().Err() == nil; {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := w.download(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.Release()
	return w.arrived()
}

func (w *world) part() *part {
	return &part{File: &w.File, client: &Client{}, boot: testBoot}
}

// TestDownloadFiles holds that files are downloaded in chunks, and that one with the
// wrong content is downloaded once more.
func TestDownloadFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault hubtest.Fault
		want  string // of the error
	}{
		"good":         {},
		"wrong once":   {hubtest.Fault{Wrong: 1}, ""},
		"always wrong": {hubtest.Fault{Wrong: -1}, modelFile + " has the checksum"},
		"always busy":  {hubtest.Fault{Status: 503, Statuses: -1}, "fetching " + modelFile + ": the server answered 503 Service Unavailable; what has arrived is kept"},
		"busy":         {hubtest.Fault{Status: 503, Statuses: 4}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, t.TempDir())
			w.Fail(modelFile, c.fault)
			err := w.download(t.Context())
			got, _ := os.ReadFile(w.Path)
			if c.want == "" && (err != nil || !bytes.Equal(got, w.content)) || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("DownloadFiles() = %v with %d bytes, want %q", err, len(got), c.want)
			}
			var status *StatusError
			if name == "always busy" && (!errors.As(err, &status) || status.Status != 503) {
				t.Errorf("DownloadFiles() = %v, want a StatusError", err)
			}
		})
	}
}

// TestOutlastsTheMachine holds that what had arrived when a download was canceled
// is there after a loss of power, and after one in the middle of the next download.
func TestOutlastsTheMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	had := w.cutOff(t, 500_000)
	if had == 0 {
		t.Fatal("nothing is there")
	}
	reboot(t, JournalPath(w.Path))
	if now := w.arrived(); now != had {
		t.Fatalf("%d bytes are left of %d", now, had)
	}
	p := w.part()
	if err := p.open(64 << 10); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.journal.note(p.have.missing()[0], 1); err != nil {
		t.Fatal(err)
	}
	reboot(t, JournalPath(w.Path))
	if now := w.arrived(); now != had {
		t.Errorf("%d bytes are left of %d while it goes on", now, had)
	}
}

// TestKilledIsBroughtToDisk holds that what a killed download left is brought to
// disk by the next one, even if that brings nothing.
func TestKilledIsBroughtToDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	had := w.cutOff(t, 500_000)
	journal := JournalPath(w.Path)
	data, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	unsure := strings.NewReplacer("mark\n", "", "sync\n", "").Replace(string(data))
	if err := os.WriteFile(journal, []byte(unsure), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.part()
	if err := p.open(64 << 10); err != nil {
		t.Fatal(err)
	}
	p.close()
	reboot(t, journal)
	if now := w.arrived(); now != had {
		t.Errorf("%d bytes are left of %d", now, had)
	}
}

// TestBroughtToDiskOnTheWay holds that a long download is brought to disk while it
// runs, and that a disk which fails there fails it.
func TestBroughtToDiskOnTheWay(t *testing.T) {
	t.Parallel()
	p := &part{
		File:   &File{Name: "x", Size: 1000, Sum: strings.Repeat("a", 64), Path: filepath.Join(t.TempDir(), "blob")},
		client: &Client{}, boot: testBoot,
	}
	if err := p.open(100); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.unsynced = syncEvery - 10
	if err := p.take(strings.NewReader("0123456789"), 3, 300, 310); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.awaitSync()
	p.mu.Unlock()
	reboot(t, JournalPath(p.Path))
	if n := Partial(p.Path, 1000, testBoot); n != 10 {
		t.Errorf("%d bytes are surely on disk, of 10", n)
	}
	_ = p.f.Close() // so that it cannot be brought to disk
	p.unsynced = syncEvery
	if err := p.note(4, 410, 10); err != nil {
		t.Fatal(err)
	}
	if err := p.verify(t.Context()); err == nil || !strings.Contains(err.Error(), "bringing x to disk") {
		t.Errorf("it goes on: %v", err)
	}
}

// TestSlowDisk holds that neither a cancel nor the end of a download waits long for
// a disk that is slow.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	p := &part{
		File:   &File{Name: "x", Size: 10, Sum: hubtest.Sum([]byte("0123456789")), Path: filepath.Join(t.TempDir(), "blob")},
		client: &Client{}, boot: testBoot,
	}
	if err := p.open(10); err != nil {
		t.Fatal(err)
	}
	p.syncing = true // as long as the test says
	if err := p.take(strings.NewReader("0123456789"), 0, 0, 10); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	verified := make(chan error, 1)
	go func() { verified <- p.verify(ctx) }()
	cancel()
	start := time.Now()
	if err := <-verified; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.close()
	if took := time.Since(start); took < syncPatience || took > syncPatience+5*time.Second {
		t.Errorf("it took %s", took)
	}
	p.mu.Lock()
	p.syncing = false
	p.grown.Broadcast()
	p.mu.Unlock()
	for end := time.Now().Add(time.Minute); ; {
		if _, sure, err := readJournal(JournalPath(p.Path), 10, testBoot); err == nil && sure.total() == 10 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not brought to disk behind the back")
		}
	}
}
