// Package browsertest opens pages in a real browser, for tests. It uses the installed
// Chromium or Chrome, headless, with a temporary profile.
//
//	page := browsertest.Open(t, 1280, 900)
//	page.Do(chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("#fleet")))
//
// Without a browser, tests are skipped; with RBEE_TEST_REQUIRE_CHROMIUM=1 they fail.
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

// actionTimeout limits each action and each wait on a page.
const actionTimeout = 60 * time.Second

// Page is a page in a separate browser instance.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// Open starts a browser with a window of width × height CSS pixels and closes it when the
// test ends. The test fails if a script of the page throws an exception.
func Open(t testing.TB, width, height int64) *Page {
	t.Helper()
	exe := findBrowser()
	if exe == "" {
		if os.Getenv("RBEE_TEST_REQUIRE_CHROMIUM") != "" {
			t.Fatal("Chromium is not installed")
		}
		t.Skip("Chromium is not installed")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(exe), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WindowSize(int(width), int(height)), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		// Resolve no host names: pages use loopback only.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	p := &Page{t: t, ctx: ctx}
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // closes the browser and waits until it exits
		cancel()
		end()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.problems) > 0 {
			t.Errorf("exceptions of the page: %s", strings.Join(p.problems, "\n"))
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
		t.Fatalf("cannot start %s: %v", exe, err)
	}
	p.Do(chromedp.EmulateViewport(width, height))
	return p
}

// findBrowser returns the path of an installed browser, or "".
func findBrowser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if exe, err := exec.LookPath(name); err == nil {
			return exe
		}
	}
	return ""
}

// Do runs actions in order. It stops the test if an action fails or takes longer than a
// minute.
func (p *Page) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	for _, action := range actions {
		run(p, action)
	}
}

// Wait waits until a JavaScript expression is true. It stops the test after a minute.
func (p *Page) Wait(expression string) {
	p.t.Helper()
	run(p, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(0)), expression)
}

// Text waits until the page shows a text. It stops the test after a minute.
func (p *Page) Text(text string) {
	p.t.Helper()
	p.Wait(fmt.Sprintf("document.body.innerText.includes(%q)", text))
}

// Screenshot writes an image of the complete page to a PNG file.
func (p *Page) Screenshot(path string) {
	p.t.Helper()
	png := run(p, chromedp.FullScreenshot(100))
	if err := os.WriteFile(path, png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// run runs one action, with a description for its error.
func run[T any](p *Page, action chromedp.Action[T], description ...string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, actionTimeout)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err == nil {
		return v
	}
	textCtx, stop := context.WithTimeout(p.ctx, 5*time.Second)
	defer stop()
	shown, _ := chromedp.Run(textCtx, chromedp.Evaluate[string]("document.body.innerText")) // context for the failure
	p.t.Fatalf("cannot run %s: %v; the page shows:\n%s", strings.Join(description, " "), err, shown)
	return v
}
