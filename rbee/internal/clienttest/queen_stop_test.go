package clienttest

import (
	"bytes"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
)

// TestQueenStops holds that answers under way are given before a queen ends, those of
// applications and those of `rbee infer`, and that who only watches keeps her from
// nothing.
func TestQueenStops(t *testing.T) {
	t.Parallel()
	k := queentest.New(t, 1, `{ type = "echo" }`)
	k.Run("install")
	k.Run("spawn-worker", "--worker", "echo", "--model", "sloth", "--", "--delay", "20ms")
	k.Serve()
	words := strings.TrimSpace(strings.Repeat("bee ", 60))
	watching := begin(t, k, "worker-logs", "echo", "--follow")
	watching.hear()
	asking := begin(t, k, "infer", words, "--model", "sloth", "--max-tokens", "1000")
	asking.hear()

	client := openai.NewClient(option.WithBaseURL(k.URL+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	stream := client.Chat.Completions.NewStreaming(t.Context(), openai.ChatCompletionNewParams{
		Model: "sloth", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(words)},
	})
	var answer strings.Builder
	var stopped time.Time
	tell := sync.OnceFunc(func() {
		stopped = time.Now()
		if err := k.Queen.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	for stream.Next() {
		tell()
		for _, c := range stream.Current().Choices {
			answer.WriteString(c.Delta.Content)
		}
	}
	if stream.Err() != nil || answer.String() != words {
		t.Errorf("%d bytes of %d, %v", answer.Len(), len(words), stream.Err())
	}
	if text, err := asking.end(); err != nil || strings.TrimSpace(text) != words {
		t.Errorf("rbee infer: %d bytes of %d, %v", len(text), len(words), err)
	}
	_, _ = watching.end() // canceled, which is what it has to be
	if err := k.Queen.Wait(); err != nil {
		t.Errorf("the queen ended with %v", err)
	}
	if took := time.Since(stopped); took > 20*time.Second { // jobs have 25
		t.Errorf("the queen waited %v for one who watches", took)
	}
	k.Queen = nil
	if list := k.Run("list-workers"); !strings.Contains(list, "ready") {
		t.Errorf("the worker ended with her: %s", list)
	}
}

// command is a run of the program, through the queen.
type command struct {
	*exec.Cmd
	t    *testing.T
	out  io.Reader
	text bytes.Buffer
	errs bytes.Buffer
}

func begin(t *testing.T, k *queentest.Setup, args ...string) *command {
	t.Helper()
	c := &command{Cmd: exec.Command("rbee", append(args, "--queen", k.URL)...), t: t}
	c.Env, c.Stderr = k.Env, &c.errs
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.out = out
	return c
}

// hear waits for the first bytes of its output.
func (c *command) hear() {
	c.t.Helper()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c.out, first); err != nil {
		c.t.Fatalf("%s said nothing: %v", c, err)
	}
	c.text.Write(first)
}

// end gives all of its output.
func (c *command) end() (string, error) {
	_, err := io.Copy(&c.text, c.out)
	if waited := c.Wait(); err == nil {
		err = waited
	}
	if err != nil && c.errs.Len() > 0 {
		c.t.Logf("%s: %s", c, &c.errs)
	}
	return c.text.String(), err
}
