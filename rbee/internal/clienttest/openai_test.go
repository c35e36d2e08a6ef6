package clienttest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
)

// TestOpenAIClient uses the queen with OpenAI's client: models, chat, streams, loading on
// request, errors, disconnected hives, changes of the config, and a killed queen.
func TestOpenAIClient(t *testing.T) {
	t.Parallel()
	k := queentest.New(t, 2, `{ type = "echo" }, { type = "mine" }`)
	k.WriteFile(".config/rbee/workers/mine.yaml", "type: mine\nformats: [gguf]\nsources: [{ version: \"1\", file: mine.sh }]\nstart: { args: [--port, \"{port}\", --model, \"{model}\"] }\nready: { path: /health }\n")
	k.WriteFile(".config/rbee/workers/mine.sh", "#!/bin/sh\nexec \"$HOME/.local/share/rbee/bin/rbee\" worker echo \"$@\"\n")
	hub := hubtest.New(map[string]hubtest.Repo{"bees/honey": {"honey-Q4_K_M.gguf": hubtest.GGUF(1, 4, 2, 64, 4096, 500_000)}})
	t.Cleanup(hub.Close)
	k.Env = append(k.Env, "HF_ENDPOINT="+hub.URL)
	k.Run("install")
	k.Run("download-model", "bees/honey", "--hive", "gpu-2")
	k.Run("spawn-worker", "--hive", "gpu-1", "--worker", "echo", "--model", "parrot")
	k.Serve()
	client := openai.NewClient(option.WithBaseURL(k.URL+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
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
		t.Errorf("Models.List() = %v, want parrot and bees/honey:Q4_K_M", names)
	}
	params := func(model, text string) openai.ChatCompletionNewParams {
		return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}}
	}
	answer, err := client.Chat.Completions.New(ctx, params("parrot", "busy bees"))
	if err != nil || answer.Choices[0].Message.Content != "busy bees" {
		t.Fatalf("chat with parrot = %+v, %v, want \"busy bees\"", answer, err)
	}
	stream, pieces := client.Chat.Completions.NewStreaming(ctx, params("parrot", "busy bees make honey")), []string{}
	for stream.Next() {
		for _, c := range stream.Current().Choices {
			pieces = append(pieces, c.Delta.Content)
		}
	}
	if stream.Err() != nil || strings.Join(pieces, "") != "busy bees make honey" || len(pieces) < 4 {
		t.Errorf("stream of parrot = %q, %v, want the prompt in at least 4 pieces", pieces, stream.Err())
	}

	// Concurrent requests for a model that is not loaded share one load.
	var requests sync.WaitGroup
	for range 20 {
		requests.Go(func() {
			answer, err := client.Chat.Completions.New(ctx, params("bees/honey:Q4_K_M", "sweet"))
			if err != nil || answer.Choices[0].Message.Content != "sweet" {
				t.Errorf("chat with bees/honey = %+v, %v, want \"sweet\"", answer, err)
			}
		})
	}
	requests.Wait()
	if list := k.Run("list-workers", "--json"); strings.Count(list, `"worker": "mine"`) != 1 {
		t.Errorf("list-workers = %s, want one worker of type mine", list)
	}

	// Concurrent streams of a fast worker are complete.
	for range 40 {
		requests.Go(func() {
			for range 15 {
				stream, got := client.Chat.Completions.NewStreaming(ctx, params("parrot", "busy bees")), ""
				for stream.Next() {
					for _, c := range stream.Current().Choices {
						got += c.Delta.Content
					}
				}
				if stream.Err() != nil || got != "busy bees" {
					t.Errorf("concurrent stream of parrot = %q, %v, want \"busy bees\"", got, stream.Err())
				}
			}
		})
	}
	requests.Wait()

	// Errors have the form of OpenAI's API.
	var apiErr *openai.Error
	if _, err := client.Chat.Completions.New(ctx, params("unknown", "x")); !errors.As(err, &apiErr) || apiErr.StatusCode != http.StatusNotFound || apiErr.Code != "model_not_found" || !strings.Contains(apiErr.Message, "gpu-2") {
		t.Errorf("chat with an unknown model = %v, want model_not_found with the name of a hive", err)
	}
	vectors, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "parrot", Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("busy bees")}})
	if err != nil || len(vectors.Data) != 1 || len(vectors.Data[0].Embedding) == 0 {
		t.Errorf("Embeddings.New() = %+v, %v, want one vector", vectors, err)
	}

	// A client that disconnects cancels its request at the worker.
	k.Run("spawn-worker", "--hive", "gpu-1", "--worker", "echo", "--model", "sloth", "--", "--delay", "1h")
	streamCtx, disconnect := context.WithCancel(ctx)
	slow := client.Chat.Completions.NewStreaming(streamCtx, params("sloth", "a long story"))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for slow.Next() {
		}
	}()
	inFlight := func(n int) func(operations.FleetSnapshot) bool {
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
	k.WaitFleet(inFlight(1))
	disconnect()
	<-ended
	k.WaitFleet(inFlight(0))

	// A worker that is killed during a response ends the stream with an error, and is
	// restarted.
	slow = client.Chat.Completions.NewStreaming(ctx, params("sloth", "another long story"))
	s := k.WaitFleet(inFlight(1))
	for _, w := range s.Hives[0].Snapshot.Workers {
		if w.Model == "sloth" {
			if err := syscall.Kill(-w.PID, syscall.SIGKILL); err != nil {
				t.Errorf("Kill(%d) = %v, want nil", -w.PID, err)
			}
		}
	}
	for slow.Next() {
	}
	if err := slow.Err(); err == nil || !strings.Contains(err.Error(), "sloth") && !strings.Contains(err.Error(), "worker") {
		t.Errorf("the stream of a killed worker ended with %v, want an error about the worker", err)
	}

	// A lost SSH connection ends the stream with an error.
	k.WaitFleet(func(s operations.FleetSnapshot) bool {
		return slices.ContainsFunc(s.Hives[0].Snapshot.Workers, func(w operations.WorkerProcess) bool {
			return w.Model == "sloth" && w.Restarts == 1 && w.State == operations.WorkerReady
		})
	})
	slow = client.Chat.Completions.NewStreaming(ctx, params("sloth", "a third one"))
	k.WaitFleet(inFlight(1))
	k.Hosts[0].Cut()
	for slow.Next() {
	}
	if err := slow.Err(); err == nil || !strings.Contains(err.Error(), "worker") {
		t.Errorf("the stream over a lost connection ended with %v, want an error about the worker", err)
	}
	k.WaitFleet(queentest.HiveLinked("gpu-1", operations.LinkOnline))

	// The model of a disconnected hive is unavailable; the other hive continues to serve.
	k.WaitFleet(queentest.HiveLinked("gpu-2", operations.LinkOnline))
	k.Hosts[1].Refuse(true)
	k.Hosts[1].Cut()
	k.WaitFleet(queentest.HiveLinked("gpu-2", operations.LinkOffline))
	if _, err := client.Chat.Completions.New(ctx, params("bees/honey:Q4_K_M", "x")); !errors.As(err, &apiErr) || apiErr.StatusCode != http.StatusServiceUnavailable || apiErr.Response.Header.Get("Retry-After") == "" {
		t.Errorf("chat with the model of an offline hive = %v, want status 503 with Retry-After", err)
	}
	if _, err := client.Chat.Completions.New(ctx, params("parrot", "x")); err != nil {
		t.Errorf("chat with parrot on the online hive = %v, want a response", err)
	}
	k.Hosts[1].Refuse(false)
	k.WaitFleet(queentest.HiveLinked("gpu-2", operations.LinkOnline))
	if _, err := client.Chat.Completions.New(ctx, params("bees/honey:Q4_K_M", "x")); err != nil {
		t.Errorf("chat with bees/honey:Q4_K_M after its hive reconnected = %v, want a response", err)
	}

	// The queen follows changes of the config.
	text, err := os.ReadFile(filepath.Join(k.Home, ".config/rbee/hives.conf"))
	if err != nil {
		t.Fatal(err)
	}
	k.WriteFile(".config/rbee/hives.conf", "[[hive]]\nalias = broken")
	if s := k.WaitFleet(func(s operations.FleetSnapshot) bool { return s.ConfigProblem != "" }); len(s.Hives) != 2 {
		t.Errorf("the fleet has %d hives after the config became invalid, want the previous 2", len(s.Hives))
	}
	one, _, _ := strings.Cut(string(text), "[[hive]]\nalias = \"gpu-2\"")
	k.WriteFile(".config/rbee/hives.conf", one)
	k.WaitFleet(func(s operations.FleetSnapshot) bool { return len(s.Hives) == 1 })
	k.WriteFile(".config/rbee/hives.conf", string(text))

	// Workers survive a killed queen, and the next queen finds them.
	_ = k.Queen.Process.Kill()
	_ = k.Queen.Wait()
	k.Serve()
	client = openai.NewClient(option.WithBaseURL(k.URL+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	for _, model := range []string{"parrot", "bees/honey:Q4_K_M"} {
		if answer, err := client.Chat.Completions.New(ctx, params(model, "still here")); err != nil || answer.Choices[0].Message.Content != "still here" {
			t.Errorf("chat with %s after a restart of the queen = %+v, %v, want \"still here\"", model, answer, err)
		}
	}
}
