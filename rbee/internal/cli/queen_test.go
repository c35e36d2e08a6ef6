package cli_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
)

// TestWebPagesAreKeptOut holds that a page in the user's browser cannot drive the
// queen, and that somebody from elsewhere needs a key.
func TestWebPagesAreKeptOut(t *testing.T) {
	t.Parallel()
	k := queentest.New(t, 0, "")
	k.Serve()
	ask := func(url, key string, edit func(*http.Request)) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, url+"/v1/jobs", strings.NewReader(`{"operation":"hive_list"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		if edit != nil {
			edit(req)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	for name, c := range map[string]struct {
		edit func(*http.Request)
		want int
	}{
		"a program":         {nil, 201},
		"another page":      {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		"a rebound name":    {func(r *http.Request) { r.Host = "evil.example:8500" }, 403},
		"a form":            {func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415},
		"the own page":      {func(r *http.Request) { r.Header.Set("Origin", "http://"+r.Host) }, 201},
		"a page of nothing": {func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
	} {
		if status, body := ask(k.URL, "", c.edit); status != c.want {
			t.Errorf("%s: %d %s, want %d", name, status, body, c.want)
		}
	}
	k.Stop()

	for _, reached := range [][]string{{"--addr", "0.0.0.0:0"}, {"--addr", "127.0.0.1:0", "--host", "queen.example"}} {
		cmd := exec.Command("rbee", append([]string{"serve"}, reached...)...)
		cmd.Env = k.Env
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "rbee key add") {
			t.Errorf("%v: %v: %s", reached, err, out)
		}
	}
	admin, infer := strings.TrimSpace(k.Run("key", "add", "me", "--scope", "admin")), strings.TrimSpace(k.Run("key", "add", "app"))
	k.Serve("--addr", "0.0.0.0:0", "--no-tls")
	url := "http://127.0.0.1:" + k.URL[strings.LastIndex(k.URL, ":")+1:]
	for key, want := range map[string]int{"": 401, "wrong": 401, infer: 403, admin: 201} {
		if status, body := ask(url, key, nil); status != want {
			t.Errorf("key %.9s: %d %s, want %d", key, status, body, want)
		}
	}
	if list := k.Run("key", "list"); !strings.Contains(list, "app") || strings.Contains(list, infer) {
		t.Errorf("%s", list)
	}
	k.Stop()

	// Behind a proxy on its own machine, which is plain HTTP there.
	k.Serve("--host", "queen.example")
	for key, want := range map[string]int{"": 401, admin: 201} {
		if status, body := ask(k.URL, key, func(r *http.Request) { r.Host = "queen.example" }); status != want {
			t.Errorf("through a proxy, key %.9s: %d %s, want %d", key, status, body, want)
		}
	}
	k.Stop()

	// Its own certificate, which the address names.
	k.Serve("--addr", "0.0.0.0:0")
	port, pin, _ := strings.Cut(k.URL[strings.LastIndex(k.URL, "]:")+2:], "#")
	if !strings.HasPrefix(k.URL, "https://") || !strings.HasPrefix(pin, "SHA256:") {
		t.Fatal(k.URL)
	}
	if _, err := strconv.Atoi(port); err != nil {
		t.Fatal(k.URL)
	}
	list := func(pin string) (string, error) {
		cmd := exec.Command("rbee", "list-hives", "--queen", "https://127.0.0.1:"+port+"#"+pin)
		cmd.Env = append(k.Env, "RBEE_API_KEY="+admin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := list(pin); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := list("SHA256:" + strings.Repeat("A", 43)); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("%v: %s", err, out)
	}
	k.Stop()

	// One that was made elsewhere, which whoever trusts its maker trusts.
	certificate, key := newCertificate(t, k, "queen.example")
	k.Serve("--addr", "0.0.0.0:0", "--tls-cert", certificate, "--tls-key", key)
	port = k.URL[strings.LastIndex(k.URL, ":")+1:]
	if _, err := strconv.Atoi(port); err != nil || !strings.HasPrefix(k.URL, "https://") {
		t.Fatal(k.URL)
	}
	trusted := x509.NewCertPool()
	if pem, err := os.ReadFile(certificate); err != nil || !trusted.AppendCertsFromPEM(pem) {
		t.Fatalf("%q, %v", pem, err)
	}
	for name, pool := range map[string]*x509.CertPool{"trusted": trusted, "unknown": x509.NewCertPool()} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "queen.example", MinVersion: tls.VersionTLS12}}
		req, err := http.NewRequest(http.MethodGet, "https://127.0.0.1:"+port+"/v1/info", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+admin)
		resp, err := transport.RoundTrip(req)
		if fine := err == nil && resp.StatusCode == http.StatusOK; fine != (name == "trusted") {
			t.Errorf("%s: %+v, %v", name, resp, err)
		}
		if err == nil {
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}

// certificate makes a certificate for a name, and returns its file and its key's.
func newCertificate(t *testing.T, k *queentest.Setup, name string) (certificate, key string) {
	t.Helper()
	dir := filepath.Join(k.Home, "pem")
	made, _, err := access.Certificate(dir, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	k.WriteFile("given/cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate[0]})))
	k.WriteFile("given/key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return filepath.Join(k.Home, "given/cert.pem"), filepath.Join(k.Home, "given/key.pem")
}

// TestOnDemand holds that a worker which was started for a request ends when it is
// idle, that one which somebody started himself does not, and that the idle one
// makes room for another model.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	k := queentest.New(t, 1, `{ type = "mine" }`)
	k.WriteFile(".config/rbee/workers/mine.yaml", "type: mine\nformats: [gguf]\nsources: [{ version: \"1\", file: mine.sh }]\nstart: { args: [--port, \"{port}\", --model, \"{model}\"] }\nready: { path: /health }\nmemory: { fixed: 5GiB }\n")
	k.WriteFile(".config/rbee/workers/mine.sh", "#!/bin/sh\nexec \"$HOME/.local/share/rbee/bin/rbee\" worker echo \"$@\"\n")
	gguf := func(seed byte) []byte { return hubtest.GGUF(seed, 4, 2, 64, 4096, 500_000) }
	hub := hubtest.New(map[string]hubtest.Repo{"bees/honey": {"honey-Q4_K_M.gguf": gguf(1)}, "bees/wax": {"wax-Q4_K_M.gguf": gguf(2)}})
	t.Cleanup(hub.Close)
	k.Env = append(k.Env, "HF_ENDPOINT="+hub.URL)
	k.Run("install")
	k.Run("download-model", "bees/honey")
	k.Run("download-model", "bees/wax")
	ask := func(model string) {
		t.Helper()
		if resp := k.PostChat(model); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", model, resp.Status)
		}
	}
	serving := func(models ...string) func(operations.FleetSnapshot) bool {
		return func(s operations.FleetSnapshot) bool {
			return len(s.Hives) == 1 && s.Hives[0].Snapshot != nil && slices.Equal(queentest.ReadyModels(s), models)
		}
	}
	k.Serve("--idle", "400ms")
	ask("bees/honey:Q4_K_M")
	k.WaitFleet(serving())
	k.Run("spawn-worker", "--worker", "mine", "--model", "bees/wax:Q4_K_M")
	if resp := k.PostChat("bees/honey:Q4_K_M"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("what somebody started had to go, or nothing is said of it: %s", resp.Status)
	}
	k.WaitFleet(serving("bees/wax:Q4_K_M"))
	k.Run("stop-worker", "mine")
	k.Stop()

	// Both do not fit: the one that is idle goes.
	k.Serve()
	ask("bees/honey:Q4_K_M")
	s := k.WaitFleet(serving("bees/honey:Q4_K_M"))
	if d := s.Hives[0].Snapshot.Workers[0].Devices; len(d) != 1 || d[0].Name != "Fake" {
		t.Errorf("it was put on %+v", d)
	}
	resp := k.PostChat("bees/wax:Q4_K_M")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("it was not idle for long, and had to go: %s", resp.Status)
	}
	for deadline := time.Now().Add(time.Minute); resp.StatusCode != http.StatusOK; resp = k.PostChat("bees/wax:Q4_K_M") {
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%s, to be asked again after %q", resp.Status, resp.Header.Get("Retry-After"))
		}
		time.Sleep(time.Duration(after) * time.Second) // as the answer says
	}
	k.WaitFleet(serving("bees/wax:Q4_K_M"))
}
