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

// TestOpenAIClient drives the queen with OpenAI's own client: models, chat, streams,
// loading on demand, errors, a hive that goes away, and one that comes.
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
	if list := k.Run("list-workers", "--json"); strings.Count(list, `"worker": "mine"`) != 1 {
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
	k.Run("spawn-worker", "--hive", "gpu-1", "--worker", "echo", "--model", "sloth", "--", "--delay", "1h")
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
	k.WaitFleet(requests(1))
	leave()
	<-left
	k.WaitFleet(requests(0))

	// A worker that is killed in the middle of an answer ends it with an error, and is
	// started again.
	slow = client.Chat.Completions.NewStreaming(ctx, ask("sloth", "another long story"))
	s := k.WaitFleet(requests(1))
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
	k.WaitFleet(func(s operations.FleetSnapshot) bool {
		return slices.ContainsFunc(s.Hives[0].Snapshot.Workers, func(w operations.WorkerProcess) bool {
			return w.Model == "sloth" && w.Restarts == 1 && w.State == operations.WorkerReady
		})
	})
	slow = client.Chat.Completions.NewStreaming(ctx, ask("sloth", "a third one"))
	k.WaitFleet(requests(1))
	k.Hosts[0].Cut()
	for slow.Next() {
	}
	if err := slow.Err(); err == nil || !strings.Contains(err.Error(), "worker") {
		t.Errorf("a stream whose line was cut ended with %v", err)
	}
	k.WaitFleet(queentest.HiveLinked("gpu-1", operations.LinkOnline))

	// A hive goes away, and its model with it; the other one serves on.
	k.WaitFleet(queentest.HiveLinked("gpu-2", operations.LinkOnline))
	k.Hosts[1].Refuse(true)
	k.Hosts[1].Cut()
	k.WaitFleet(queentest.HiveLinked("gpu-2", operations.LinkOffline))
	if _, err := client.Chat.Completions.New(ctx, ask("bees/honey:Q4_K_M", "x")); !errors.As(err, &refused) || refused.StatusCode != http.StatusServiceUnavailable || refused.Response.Header.Get("Retry-After") == "" {
		t.Errorf("%v", err)
	}
	if _, err := client.Chat.Completions.New(ctx, ask("parrot", "x")); err != nil {
		t.Error(err)
	}
	k.Hosts[1].Refuse(false)
	k.WaitFleet(queentest.HiveLinked("gpu-2", operations.LinkOnline))
	if _, err := client.Chat.Completions.New(ctx, ask("bees/honey:Q4_K_M", "x")); err != nil {
		t.Error(err)
	}

	// The config loses a hive, and the queen follows.
	text, err := os.ReadFile(filepath.Join(k.Home, ".config/rbee/hives.conf"))
	if err != nil {
		t.Fatal(err)
	}
	k.WriteFile(".config/rbee/hives.conf", "[[hive]]\nalias = broken")
	if s := k.WaitFleet(func(s operations.FleetSnapshot) bool { return s.ConfigProblem != "" }); len(s.Hives) != 2 {
		t.Errorf("a config that cannot be read left %d hives", len(s.Hives))
	}
	one, _, _ := strings.Cut(string(text), "[[hive]]\nalias = \"gpu-2\"")
	k.WriteFile(".config/rbee/hives.conf", one)
	k.WaitFleet(func(s operations.FleetSnapshot) bool { return len(s.Hives) == 1 })
	k.WriteFile(".config/rbee/hives.conf", string(text))

	// The queen is killed; workers live, and the next one finds them.
	_ = k.Queen.Process.Kill()
	_ = k.Queen.Wait()
	k.Serve()
	client = openai.NewClient(option.WithBaseURL(k.URL+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	for _, model := range []string{"parrot", "bees/honey:Q4_K_M"} {
		if answer, err := client.Chat.Completions.New(ctx, ask(model, "still here")); err != nil || answer.Choices[0].Message.Content != "still here" {
			t.Errorf("%s: %+v, %v", model, answer, err)
		}
	}
}
