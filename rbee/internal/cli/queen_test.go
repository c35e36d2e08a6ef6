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

// TestQueenAccess checks that a page in the user's browser cannot control the queen, and
// that other machines need a key.
func TestQueenAccess(t *testing.T) {
	t.Parallel()
	k := queentest.New(t, 0, "")
	k.Serve()
	post := func(url, key string, edit func(*http.Request)) (int, string) {
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
		"program":       {nil, 201},
		"other origin":  {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		"DNS rebinding": {func(r *http.Request) { r.Host = "evil.example:8500" }, 403},
		"form":          {func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415},
		"own origin":    {func(r *http.Request) { r.Header.Set("Origin", "http://"+r.Host) }, 201},
		"null origin":   {func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
	} {
		if status, body := post(k.URL, "", c.edit); status != c.want {
			t.Errorf("request from %s: status %d with body %s, want status %d", name, status, body, c.want)
		}
	}
	k.Stop()

	for _, flags := range [][]string{{"--addr", "0.0.0.0:0"}, {"--addr", "127.0.0.1:0", "--host", "queen.example"}} {
		cmd := exec.Command("rbee", append([]string{"serve"}, flags...)...)
		cmd.Env = k.Env
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "rbee key add") {
			t.Errorf("serve %q without keys: error %v and output %s, want a failure with a hint", flags, err, out)
		}
	}
	admin, infer := strings.TrimSpace(k.Run("key", "add", "me", "--scope", "admin")), strings.TrimSpace(k.Run("key", "add", "app"))
	k.Serve("--addr", "0.0.0.0:0", "--no-tls")
	url := "http://127.0.0.1:" + k.URL[strings.LastIndex(k.URL, ":")+1:]
	for key, want := range map[string]int{"": 401, "wrong": 401, infer: 403, admin: 201} {
		if status, body := post(url, key, nil); status != want {
			t.Errorf("request with key %.9s: status %d with body %s, want status %d", key, status, body, want)
		}
	}
	if list := k.Run("key", "list"); !strings.Contains(list, "app") || strings.Contains(list, infer) {
		t.Errorf("key list prints %s, want the name of the key without its secret", list)
	}
	k.Stop()

	// Plain HTTP behind a reverse proxy on the same machine.
	k.Serve("--host", "queen.example")
	for key, want := range map[string]int{"": 401, admin: 201} {
		if status, body := post(k.URL, key, func(r *http.Request) { r.Host = "queen.example" }); status != want {
			t.Errorf("request through a proxy with key %.9s: status %d with body %s, want status %d", key, status, body, want)
		}
	}
	k.Stop()

	// A self-signed certificate, with its fingerprint in the URL.
	k.Serve("--addr", "0.0.0.0:0")
	port, pin, _ := strings.Cut(k.URL[strings.LastIndex(k.URL, "]:")+2:], "#")
	if !strings.HasPrefix(k.URL, "https://") || !strings.HasPrefix(pin, "SHA256:") {
		t.Fatalf("serve prints the URL %q, want https and a fingerprint", k.URL)
	}
	if _, err := strconv.Atoi(port); err != nil {
		t.Fatalf("serve prints the URL %q, want a port", k.URL)
	}
	list := func(pin string) (string, error) {
		cmd := exec.Command("rbee", "list-hives", "--queen", "https://127.0.0.1:"+port+"#"+pin)
		cmd.Env = append(k.Env, "RBEE_API_KEY="+admin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := list(pin); err != nil {
		t.Errorf("list-hives with the fingerprint: error %v and output %s, want success", err, out)
	}
	if out, err := list("SHA256:" + strings.Repeat("A", 43)); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("list-hives with a wrong fingerprint: error %v and output %s, want a certificate error", err, out)
	}
	k.Stop()

	// A given certificate, for clients that trust its issuer.
	certificate, key := newCertificate(t, k, "queen.example")
	k.Serve("--addr", "0.0.0.0:0", "--tls-cert", certificate, "--tls-key", key)
	port = k.URL[strings.LastIndex(k.URL, ":")+1:]
	if _, err := strconv.Atoi(port); err != nil || !strings.HasPrefix(k.URL, "https://") {
		t.Fatalf("serve prints the URL %q, want https and a port", k.URL)
	}
	trusted := x509.NewCertPool()
	if pem, err := os.ReadFile(certificate); err != nil || !trusted.AppendCertsFromPEM(pem) {
		t.Fatalf("cannot read certificate %q: %v", pem, err)
	}
	for name, pool := range map[string]*x509.CertPool{"trusted": trusted, "unknown": x509.NewCertPool()} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "queen.example", MinVersion: tls.VersionTLS12}}
		req, err := http.NewRequest(http.MethodGet, "https://127.0.0.1:"+port+"/v1/info", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+admin)
		resp, err := transport.RoundTrip(req)
		if ok := err == nil && resp.StatusCode == http.StatusOK; ok != (name == "trusted") {
			t.Errorf("request with %s issuer: response %+v and error %v, want 200 OK only with the trusted issuer", name, resp, err)
		}
		if err == nil {
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}

// newCertificate creates a certificate for a name and returns the files of the
// certificate and its key.
func newCertificate(t *testing.T, k *queentest.Setup, name string) (certificate, key string) {
	t.Helper()
	dir := filepath.Join(k.Home, "pem")
	cert, _, err := access.Certificate(dir, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	k.WriteFile("given/cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	k.WriteFile("given/key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return filepath.Join(k.Home, "given/cert.pem"), filepath.Join(k.Home, "given/key.pem")
}

// TestOnDemandWorkers checks that an on-demand worker stops when it is idle, that a
// worker started by a user does not, and that an idle on-demand worker is stopped to
// free memory for another model.
func TestOnDemandWorkers(t *testing.T) {
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
	chat := func(model string) {
		t.Helper()
		if resp := k.PostChat(model); resp.StatusCode != http.StatusOK {
			t.Errorf("chat with %s: status %s, want 200 OK", model, resp.Status)
		}
	}
	serving := func(models ...string) func(operations.FleetSnapshot) bool {
		return func(s operations.FleetSnapshot) bool {
			return len(s.Hives) == 1 && s.Hives[0].Snapshot != nil && slices.Equal(queentest.ReadyModels(s), models)
		}
	}
	k.Serve("--idle", "400ms")
	chat("bees/honey:Q4_K_M")
	k.WaitFleet(serving())
	k.Run("spawn-worker", "--worker", "mine", "--model", "bees/wax:Q4_K_M")
	if resp := k.PostChat("bees/honey:Q4_K_M"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("chat without free memory: status %s and Retry-After %q, want 503 and a time", resp.Status, resp.Header.Get("Retry-After"))
	}
	k.WaitFleet(serving("bees/wax:Q4_K_M"))
	k.Run("stop-worker", "mine")
	k.Stop()

	// Both models do not fit at the same time: the idle one is stopped.
	k.Serve()
	chat("bees/honey:Q4_K_M")
	s := k.WaitFleet(serving("bees/honey:Q4_K_M"))
	if d := s.Hives[0].Snapshot.Workers[0].Devices; len(d) != 1 || d[0].Name != "Fake" {
		t.Errorf("the worker has devices %+v, want the fake GPU", d)
	}
	resp := k.PostChat("bees/wax:Q4_K_M")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("chat while the other worker is not idle for long: status %s, want 503", resp.Status)
	}
	for deadline := time.Now().Add(time.Minute); resp.StatusCode != http.StatusOK; resp = k.PostChat("bees/wax:Q4_K_M") {
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("chat: status %s and Retry-After %q, want 200 OK within a minute", resp.Status, resp.Header.Get("Retry-After"))
		}
		<-time.After(time.Duration(after) * time.Second) // as a client does
	}
	k.WaitFleet(serving("bees/wax:Q4_K_M"))
}
