// Package browsertest opens pages in a real browser, for tests: the Chromium or Chrome
// that is installed, without a window, with a profile that lasts as long as the test.
//
//	page := browsertest.Open(t, 1280, 900)
//	page.Do(chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("#fleet")))
//
// Where no browser is installed the test is skipped; with RBEE_TEST_REQUIRE_CHROMIUM=1
// it fails.
package browsertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long anything on a page may take.
const patience = 60 * time.Second

// Page is a browser with one page.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// Open starts a browser whose window is so many CSS pixels wide and high. It ends
// with the test, which fails if a script on the page ended with an exception.
func Open(t testing.TB, width, height int64) *Page {
	t.Helper()
	exe := find()
	if exe == "" {
		if os.Getenv("RBEE_TEST_REQUIRE_CHROMIUM") != "" {
			t.Fatal("no chromium is installed")
		}
		t.Skip("no chromium is installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(exe), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WindowSize(int(width), int(height)), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		// Only loopback has names and addresses: it looks for nobody else.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	p := &Page{t: t, ctx: ctx}
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // closes the browser, and waits for it
		cancel()
		end()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.problems) > 0 {
			t.Errorf("on the page: %s", strings.Join(p.problems, "\n"))
		}
	})
	err := chromedp.Listen(ctx, func(event any) { // starts the browser
		if e, ok := event.(*runtime.EventExceptionThrown); ok {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.problems = append(p.problems, (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
		}
	})
	if err != nil {
		t.Fatalf("starting %s: %v", exe, err)
	}
	p.Do(chromedp.EmulateViewport(width, height))
	return p
}

func find() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if exe, err := exec.LookPath(name); err == nil {
			return exe
		}
	}
	return ""
}

// Do does things on the page, one after the other, and ends the test if one fails or
// takes longer than a minute.
func (p *Page) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	for _, action := range actions {
		ask(p, action)
	}
}

// Wait waits until a JavaScript expression is true.
func (p *Page) Wait(expression string) {
	p.t.Helper()
	ask(p, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(0)), expression)
}

// Text waits until the page shows some words.
func (p *Page) Text(words string) {
	p.t.Helper()
	p.Wait(fmt.Sprintf("document.body.innerText.includes(%q)", words))
}

// Screenshot writes what the page shows, over its whole length, to a PNG file.
func (p *Page) Screenshot(path string) {
	p.t.Helper()
	png := ask(p, chromedp.FullScreenshot(100))
	if err := os.WriteFile(path, png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// ask does one thing on the page.
func ask[T any](p *Page, action chromedp.Action[T], about ...string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err == nil {
		return v
	}
	now, end := context.WithTimeout(p.ctx, 5*time.Second)
	defer end()
	shown, _ := chromedp.Run(now, chromedp.Evaluate[string]("document.body.innerText")) // for the one who reads why
	p.t.Fatalf("on the page: %s: %v; it shows:\n%s", strings.Join(about, " "), err, shown)
	return v
}
