package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

// kingdom is a queen over hosts in this process, with the real program everywhere.
type kingdom struct {
	t     *testing.T
	home  string
	env   []string
	hosts []*sshtest.Host
	url   string
	queen *exec.Cmd
	log   *syncedBuffer
}

type syncedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newKingdom installs workers on n hosts and starts a queen.
func newKingdom(t *testing.T, n int, workers string) *kingdom {
	t.Helper()
	k := &kingdom{t: t, home: t.TempDir(), log: &syncedBuffer{}}
	k.env = []string{"HOME=" + k.home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	key, pem, err := sshtest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	known, conf := "", ""
	for i := range n {
		tools := t.TempDir()
		if err := os.WriteFile(filepath.Join(tools, "nvidia-smi"), []byte(fakeSMI), 0o700); err != nil {
			t.Fatal(err)
		}
		h, err := sshtest.New(sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}, Env: []string{
			"RBEE_SUPERVISOR=none", "PATH=" + tools + string(os.PathListSeparator) + os.Getenv("PATH"),
		}})
		if err != nil {
			t.Fatal(err)
		}
		port, err := freeport.Find(nil)
		if err != nil {
			t.Fatal(err)
		}
		k.hosts = append(k.hosts, h)
		known += h.KnownHostsLines()
		conf += hiveText(fmt.Sprintf("gpu-%d", i+1), h, port, workers)
	}
	for name, text := range map[string]string{".ssh/id_ed25519": string(pem), ".ssh/known_hosts": known, ".config/rbee/hives.conf": conf} {
		k.write(name, text)
	}
	t.Cleanup(func() {
		k.stop()
		for _, h := range k.hosts {
			h.Refuse(false)
		}
		k.rbee("uninstall", "--yes")
		for _, h := range k.hosts {
			h.Close()
		}
		if t.Failed() {
			t.Logf("the queen wrote:\n%s", k.log)
		}
	})
	return k
}

func (k *kingdom) write(name, text string) {
	k.t.Helper()
	path := filepath.Join(k.home, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		k.t.Fatal(err)
	}
}

// rbee runs a command without the queen.
func (k *kingdom) rbee(args ...string) string {
	k.t.Helper()
	cmd := exec.Command("rbee", args...)
	cmd.Env = k.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		k.t.Errorf("rbee %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// serve starts the queen.
func (k *kingdom) serve(args ...string) {
	k.t.Helper()
	k.queen = exec.Command("rbee", append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	k.queen.Env, k.queen.Stderr = k.env, k.log
	out, err := k.queen.StdoutPipe()
	if err == nil {
		err = k.queen.Start()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		k.t.Fatalf("the queen did not begin: %v\n%s", err, k.log)
	}
	k.url = strings.TrimSpace(line)
}

func (k *kingdom) stop() {
	if k.queen != nil {
		_ = k.queen.Process.Signal(syscall.SIGTERM)
		_ = k.queen.Wait()
		k.queen = nil
	}
}

// fleet is what the queen knows, once it is as wanted.
func (k *kingdom) fleet(wanted func(operations.FleetSnapshot) bool) operations.FleetSnapshot {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, k.url+operations.FleetPath, http.NoBody)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	var s operations.FleetSnapshot
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			k.t.Fatalf("waiting for the fleet: %v; it is %+v", err, s)
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		s = operations.FleetSnapshot{}
		if err := json.Unmarshal([]byte(data), &s); err != nil {
			k.t.Fatal(err)
		}
		if wanted(s) {
			return s
		}
	}
}

// post asks a model through the queen.
func (k *kingdom) post(model string) *http.Response {
	k.t.Helper()
	body := fmt.Sprintf(`{"model": %q, "messages": [{"role": "user", "content": "sweet"}]}`, model)
	resp, err := http.Post(k.url+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode == http.StatusOK && !strings.Contains(string(text), "sweet") {
		k.t.Errorf("%s answered %s", model, text)
	}
	return resp
}

func linked(alias string, link operations.Link) func(operations.FleetSnapshot) bool {
	return func(s operations.FleetSnapshot) bool {
		for _, h := range s.Hives {
			if h.Alias == alias {
				return h.Link == link
			}
		}
		return false
	}
}

// ready are the models of workers that are ready.
func ready(s operations.FleetSnapshot) (models []string) {
	for _, h := range s.Hives {
		if h.Snapshot == nil {
			continue
		}
		for _, w := range h.Snapshot.Workers {
			if w.State == operations.WorkerReady {
				models = append(models, w.Model)
			}
		}
	}
	slices.Sort(models)
	return models
}

// TestOpenAIClient drives the queen with OpenAI's own client: models, chat, streams,
// loading on demand, errors, a hive that goes away, and one that comes.
func TestOpenAIClient(t *testing.T) {
	t.Parallel()
	k := newKingdom(t, 2, `{ type = "echo" }, { type = "mine" }`)
	k.write(".config/rbee/workers/mine.yaml", "type: mine\nformats: [gguf]\nsources: [{ version: \"1\", file: mine.sh }]\nstart: { args: [--port, \"{port}\", --model, \"{model}\"] }\nready: { path: /health }\n")
	k.write(".config/rbee/workers/mine.sh", "#!/bin/sh\nexec \"$HOME/.local/share/rbee/bin/rbee\" worker echo \"$@\"\n")
	hub := hubtest.New(map[string]hubtest.Repo{"bees/honey": {"honey-Q4_K_M.gguf": hubtest.GGUF(1, 4, 2, 64, 4096, 500_000)}})
	t.Cleanup(hub.Close)
	k.env = append(k.env, "HF_ENDPOINT="+hub.URL)
	k.rbee("install")
	k.rbee("download-model", "bees/honey", "--hive", "gpu-2")
	k.rbee("spawn-worker", "--hive", "gpu-1", "--worker", "echo", "--model", "parrot")
	k.serve()
	client := openai.NewClient(option.WithBaseURL(k.url+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	models, err := client.Models.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range models.Data {
		names[m.ID] = true
	}
	if len(names) != 2 || !names["parrot"] || !names["bees/honey:Q4_K_M"] {
		t.Errorf("models %v", names)
	}
	ask := func(model, text string) openai.ChatCompletionNewParams {
		return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}}
	}
	answer, err := client.Chat.Completions.New(ctx, ask("parrot", "busy bees"))
	if err != nil || answer.Choices[0].Message.Content != "busy bees" {
		t.Fatalf("%+v, %v", answer, err)
	}
	stream, pieces := client.Chat.Completions.NewStreaming(ctx, ask("parrot", "busy bees make honey")), []string{}
	for stream.Next() {
		for _, c := range stream.Current().Choices {
			pieces = append(pieces, c.Delta.Content)
		}
	}
	if stream.Err() != nil || strings.Join(pieces, "") != "busy bees make honey" || len(pieces) < 4 {
		t.Errorf("%q, %v", pieces, stream.Err())
	}

	// On a hive, and not loaded: loaded once, however many ask.
	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			answer, err := client.Chat.Completions.New(ctx, ask("bees/honey:Q4_K_M", "sweet"))
			if err != nil || answer.Choices[0].Message.Content != "sweet" {
				t.Errorf("%+v, %v", answer, err)
			}
		})
	}
	asking.Wait()
	if list := k.rbee("list-workers", "--json"); strings.Count(list, `"worker": "mine"`) != 1 {
		t.Errorf("%s", list)
	}

	// Many at once, with answers that begin at once: none is broken off.
	for range 40 {
		asking.Go(func() {
			for range 15 {
				stream, got := client.Chat.Completions.NewStreaming(ctx, ask("parrot", "busy bees")), ""
				for stream.Next() {
					for _, c := range stream.Current().Choices {
						got += c.Delta.Content
					}
				}
				if stream.Err() != nil || got != "busy bees" {
					t.Errorf("%q, %v", got, stream.Err())
				}
			}
		})
	}
	asking.Wait()

	// Errors in OpenAI's own terms.
	var refused *openai.Error
	if _, err := client.Chat.Completions.New(ctx, ask("nobody", "x")); !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound || refused.Code != "model_not_found" || !strings.Contains(refused.Message, "gpu-2") {
		t.Errorf("%v", err)
	}
	vectors, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "parrot", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("busy bees")}})
	if err != nil || len(vectors.Data) != 1 || len(vectors.Data[0].Embedding) == 0 {
		t.Errorf("%+v, %v", vectors, err)
	}

	// Somebody who leaves ends what he asked for, at the worker.
	k.rbee("spawn-worker", "--hive", "gpu-1", "--worker", "echo", "--model", "sloth", "--", "--delay", "1h")
	leaving, leave := context.WithCancel(ctx)
	slow := client.Chat.Completions.NewStreaming(leaving, ask("sloth", "a long story"))
	left := make(chan struct{})
	go func() {
		defer close(left)
		for slow.Next() {
		}
	}()
	requests := func(n int) func(operations.FleetSnapshot) bool {
		return func(s operations.FleetSnapshot) bool {
			for _, h := range s.Hives {
				if h.Snapshot == nil {
					continue
				}
				for _, w := range h.Snapshot.Workers {
					if w.Model == "sloth" {
						return w.Requests == n
					}
				}
			}
			return false
		}
	}
	k.fleet(requests(1))
	leave()
	<-left
	k.fleet(requests(0))

	// A worker that is killed in the middle of an answer ends it with an error, and is
	// started again.
	slow = client.Chat.Completions.NewStreaming(ctx, ask("sloth", "another long story"))
	s := k.fleet(requests(1))
	for _, w := range s.Hives[0].Snapshot.Workers {
		if w.Model == "sloth" {
			if err := syscall.Kill(-w.PID, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}
	for slow.Next() {
	}
	if err := slow.Err(); err == nil || !strings.Contains(err.Error(), "sloth") && !strings.Contains(err.Error(), "worker") {
		t.Errorf("a stream whose worker was killed ended with %v", err)
	}

	// So does a line that is cut.
	k.fleet(func(s operations.FleetSnapshot) bool {
		return slices.ContainsFunc(s.Hives[0].Snapshot.Workers, func(w operations.WorkerProcess) bool {
			return w.Model == "sloth" && w.Restarts == 1 && w.State == operations.WorkerReady
		})
	})
	slow = client.Chat.Completions.NewStreaming(ctx, ask("sloth", "a third one"))
	k.fleet(requests(1))
	k.hosts[0].Cut()
	for slow.Next() {
	}
	if err := slow.Err(); err == nil || !strings.Contains(err.Error(), "worker") {
		t.Errorf("a stream whose line was cut ended with %v", err)
	}
	k.fleet(linked("gpu-1", operations.LinkOnline))

	// A hive goes away, and its model with it; the other one serves on.
	k.fleet(linked("gpu-2", operations.LinkOnline))
	k.hosts[1].Refuse(true)
	k.hosts[1].Cut()
	k.fleet(linked("gpu-2", operations.LinkOffline))
	if _, err := client.Chat.Completions.New(ctx, ask("bees/honey:Q4_K_M", "x")); !errors.As(err, &refused) || refused.StatusCode != http.StatusServiceUnavailable || refused.Response.Header.Get("Retry-After") == "" {
		t.Errorf("%v", err)
	}
	if _, err := client.Chat.Completions.New(ctx, ask("parrot", "x")); err != nil {
		t.Error(err)
	}
	k.hosts[1].Refuse(false)
	k.fleet(linked("gpu-2", operations.LinkOnline))
	if _, err := client.Chat.Completions.New(ctx, ask("bees/honey:Q4_K_M", "x")); err != nil {
		t.Error(err)
	}

	// The config loses a hive, and the queen follows.
	text, err := os.ReadFile(filepath.Join(k.home, ".config/rbee/hives.conf"))
	if err != nil {
		t.Fatal(err)
	}
	k.write(".config/rbee/hives.conf", "[[hive]]\nalias = broken")
	if s := k.fleet(func(s operations.FleetSnapshot) bool { return s.ConfigProblem != "" }); len(s.Hives) != 2 {
		t.Errorf("a config that cannot be read left %d hives", len(s.Hives))
	}
	one, _, _ := strings.Cut(string(text), "[[hive]]\nalias = \"gpu-2\"")
	k.write(".config/rbee/hives.conf", one)
	k.fleet(func(s operations.FleetSnapshot) bool { return len(s.Hives) == 1 })
	k.write(".config/rbee/hives.conf", string(text))

	// The queen is killed; workers live, and the next one finds them.
	_ = k.queen.Process.Kill()
	_ = k.queen.Wait()
	k.serve()
	client = openai.NewClient(option.WithBaseURL(k.url+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	for _, model := range []string{"parrot", "bees/honey:Q4_K_M"} {
		if answer, err := client.Chat.Completions.New(ctx, ask(model, "still here")); err != nil || answer.Choices[0].Message.Content != "still here" {
			t.Errorf("%s: %+v, %v", model, answer, err)
		}
	}
}

// TestWebPagesAreKeptOut holds that a page in the user's browser cannot drive the
// queen, and that somebody from elsewhere needs a key.
func TestWebPagesAreKeptOut(t *testing.T) {
	t.Parallel()
	k := newKingdom(t, 0, "")
	k.serve()
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
		if status, body := ask(k.url, "", c.edit); status != c.want {
			t.Errorf("%s: %d %s, want %d", name, status, body, c.want)
		}
	}
	k.stop()

	for _, reached := range [][]string{{"--addr", "0.0.0.0:0"}, {"--addr", "127.0.0.1:0", "--host", "queen.example"}} {
		cmd := exec.Command("rbee", append([]string{"serve"}, reached...)...)
		cmd.Env = k.env
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "rbee key add") {
			t.Errorf("%v: %v: %s", reached, err, out)
		}
	}
	admin, infer := strings.TrimSpace(k.rbee("key", "add", "me", "--scope", "admin")), strings.TrimSpace(k.rbee("key", "add", "app"))
	k.serve("--addr", "0.0.0.0:0", "--no-tls")
	url := "http://127.0.0.1:" + k.url[strings.LastIndex(k.url, ":")+1:]
	for key, want := range map[string]int{"": 401, "wrong": 401, infer: 403, admin: 201} {
		if status, body := ask(url, key, nil); status != want {
			t.Errorf("key %.9s: %d %s, want %d", key, status, body, want)
		}
	}
	if list := k.rbee("key", "list"); !strings.Contains(list, "app") || strings.Contains(list, infer) {
		t.Errorf("%s", list)
	}
	k.stop()

	// Behind a proxy on its own machine, which is plain HTTP there.
	k.serve("--host", "queen.example")
	for key, want := range map[string]int{"": 401, admin: 201} {
		if status, body := ask(k.url, key, func(r *http.Request) { r.Host = "queen.example" }); status != want {
			t.Errorf("through a proxy, key %.9s: %d %s, want %d", key, status, body, want)
		}
	}
	k.stop()

	// Its own certificate, which the address names.
	k.serve("--addr", "0.0.0.0:0")
	port, pin, _ := strings.Cut(k.url[strings.LastIndex(k.url, "]:")+2:], "#")
	if !strings.HasPrefix(k.url, "https://") || !strings.HasPrefix(pin, "SHA256:") {
		t.Fatal(k.url)
	}
	if _, err := strconv.Atoi(port); err != nil {
		t.Fatal(k.url)
	}
	list := func(pin string) (string, error) {
		cmd := exec.Command("rbee", "list-hives", "--queen", "https://127.0.0.1:"+port+"#"+pin)
		cmd.Env = append(k.env, "RBEE_API_KEY="+admin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := list(pin); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := list("SHA256:" + strings.Repeat("A", 43)); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("%v: %s", err, out)
	}
	k.stop()

	// One that was made elsewhere, which whoever trusts its maker trusts.
	certificate, key := k.certificate("queen.example")
	k.serve("--addr", "0.0.0.0:0", "--tls-cert", certificate, "--tls-key", key)
	port = k.url[strings.LastIndex(k.url, ":")+1:]
	if _, err := strconv.Atoi(port); err != nil || !strings.HasPrefix(k.url, "https://") {
		t.Fatal(k.url)
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
func (k *kingdom) certificate(name string) (certificate, key string) {
	k.t.Helper()
	dir := filepath.Join(k.home, "pem")
	made, _, err := access.Certificate(dir, []string{name})
	if err != nil {
		k.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		k.t.Fatal(err)
	}
	k.write("given/cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate[0]})))
	k.write("given/key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return filepath.Join(k.home, "given/cert.pem"), filepath.Join(k.home, "given/key.pem")
}

// fakeSMI plays a GPU of 8 GiB, of which each worker that is ready takes 5.
const fakeSMI = `#!/bin/sh
n=$(grep -ls '"state": "ready"' "$HOME"/.local/share/rbee/run/workers/mine-*.json | wc -l)
case "$*" in
*--query-gpu=*) echo "0, GPU-1, Fake, 00000000:01:00.0, 8192, $((n * 5120)), $((8192 - n * 5120)), 580.65, 8.9, [N/A], 0, 40, 20.0" ;;
esac
`

// TestOnDemand holds that a worker which was started for a request ends when it is
// idle, that one which somebody started himself does not, and that the idle one
// makes room for another model.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	k := newKingdom(t, 1, `{ type = "mine" }`)
	k.write(".config/rbee/workers/mine.yaml", "type: mine\nformats: [gguf]\nsources: [{ version: \"1\", file: mine.sh }]\nstart: { args: [--port, \"{port}\", --model, \"{model}\"] }\nready: { path: /health }\nmemory: { fixed: 5GiB }\n")
	k.write(".config/rbee/workers/mine.sh", "#!/bin/sh\nexec \"$HOME/.local/share/rbee/bin/rbee\" worker echo \"$@\"\n")
	gguf := func(seed byte) []byte { return hubtest.GGUF(seed, 4, 2, 64, 4096, 500_000) }
	hub := hubtest.New(map[string]hubtest.Repo{"bees/honey": {"honey-Q4_K_M.gguf": gguf(1)}, "bees/wax": {"wax-Q4_K_M.gguf": gguf(2)}})
	t.Cleanup(hub.Close)
	k.env = append(k.env, "HF_ENDPOINT="+hub.URL)
	k.rbee("install")
	k.rbee("download-model", "bees/honey")
	k.rbee("download-model", "bees/wax")
	ask := func(model string) {
		t.Helper()
		if resp := k.post(model); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", model, resp.Status)
		}
	}
	serving := func(models ...string) func(operations.FleetSnapshot) bool {
		return func(s operations.FleetSnapshot) bool {
			return len(s.Hives) == 1 && s.Hives[0].Snapshot != nil && slices.Equal(ready(s), models)
		}
	}
	k.serve("--idle", "400ms")
	ask("bees/honey:Q4_K_M")
	k.fleet(serving())
	k.rbee("spawn-worker", "--worker", "mine", "--model", "bees/wax:Q4_K_M")
	if resp := k.post("bees/honey:Q4_K_M"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("what somebody started had to go, or nothing is said of it: %s", resp.Status)
	}
	k.fleet(serving("bees/wax:Q4_K_M"))
	k.rbee("stop-worker", "mine")
	k.stop()

	// Both do not fit: the one that is idle goes.
	k.serve()
	ask("bees/honey:Q4_K_M")
	s := k.fleet(serving("bees/honey:Q4_K_M"))
	if d := s.Hives[0].Snapshot.Workers[0].Devices; len(d) != 1 || d[0].Name != "Fake" {
		t.Errorf("it was put on %+v", d)
	}
	resp := k.post("bees/wax:Q4_K_M")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("it was not idle for long, and had to go: %s", resp.Status)
	}
	for deadline := time.Now().Add(time.Minute); resp.StatusCode != http.StatusOK; resp = k.post("bees/wax:Q4_K_M") {
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%s, to be asked again after %q", resp.Status, resp.Header.Get("Retry-After"))
		}
		time.Sleep(time.Duration(after) * time.Second) // as the answer says
	}
	k.fleet(serving("bees/wax:Q4_K_M"))
}
