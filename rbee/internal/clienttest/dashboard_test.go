package clienttest

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/rbee-keeper/rbee/rbee/internal/clienttest/browsertest"
	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
)

// TestDashboard opens the dashboard of a real fleet in a browser: hives, a request, the log of
// a worker, a hive that disconnects, and a restart of the queen.
func TestDashboard(t *testing.T) {
	t.Parallel()
	page := browsertest.Open(t, 1280, 900)
	k := queentest.New(t, 2, `{ type = "echo" }`)
	k.Run("install", "--hive", "gpu-1")
	k.Run("spawn-worker", "--hive", "gpu-1", "--worker", "echo", "--model", "parrot")
	admin, infer := strings.TrimSpace(k.Run("key", "add", "me", "--scope", "admin")), strings.TrimSpace(k.Run("key", "add", "app"))
	k.Serve("--addr", "0.0.0.0:0", "--no-tls")
	k.URL = "http://127.0.0.1:" + k.URL[strings.LastIndex(k.URL, ":")+1:]

	page.Do(chromedp.Navigate(k.URL), chromedp.WaitVisible(chromedp.CSS("#key")), chromedp.SendKeys(chromedp.CSS("#key"), infer+"\r"))
	page.Text("Invalid key: want an API key with the scope admin.")
	page.Do(chromedp.SendKeys(chromedp.CSS("#key"), admin+"\r"))
	page.Text("1 of 2 hives online")
	page.Text("0 Fake")
	page.Text("0 B of 8.0 GiB")
	page.Text("parrot")
	page.Text("● ready")
	page.Wait(`!document.cookie.includes("rbee")`)

	// The other hive is not installed.
	page.Text("gpu-2: Hive not installed")

	req, err := http.NewRequest(http.MethodPost, k.URL+"/v1/chat/completions", strings.NewReader(`{"model": "parrot", "messages": [{"role": "user", "content": "sweet"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+infer)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("POST /v1/chat/completions = %v, %v, want status 200", resp, err)
	}
	resp.Body.Close()
	page.Wait(`/ ms$/.test(document.querySelector("#first").textContent)`)

	page.Do(chromedp.Click(chromedp.CSS("#workers button")))
	page.Text("rbee: echo-")
	running := `fetch("/v1/jobs").then((r) => r.json()).then((j) => JSON.stringify(j).includes('"running"'))`
	page.Wait(running)
	page.Do(chromedp.Click(chromedp.CSS("#close")))
	page.Wait(running + `.then((yes) => !yes)`)

	k.Hosts[0].Refuse(true)
	k.Hosts[0].Cut()
	page.Text("0 of 2 hives online")
	k.Hosts[0].Refuse(false)
	page.Text("1 of 2 hives online")

	addr := strings.TrimPrefix(k.URL, "http://127.0.0.1")
	k.Stop()
	page.Text("reconnecting")
	k.Serve("--addr", "0.0.0.0"+addr, "--no-tls")
	page.Wait(`document.querySelector("#connection").textContent === "live"`) // the browser sends its cookie
	page.Text("1 of 2 hives online")
}
