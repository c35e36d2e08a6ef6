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

// TestQueenStops checks that the queen completes responses in progress before it exits, for
// API clients and for `rbee infer`, and that a followed log does not delay its exit.
func TestQueenStops(t *testing.T) {
	t.Parallel()
	k := queentest.New(t, 1, `{ type = "echo" }`)
	k.Run("install")
	k.Run("spawn-worker", "--worker", "echo", "--model", "sloth", "--", "--delay", "20ms")
	k.Serve()
	prompt := strings.TrimSpace(strings.Repeat("bee ", 60))
	logs := start(t, k, "worker-logs", "echo", "--follow")
	logs.waitOutput()
	infer := start(t, k, "infer", prompt, "--model", "sloth", "--max-tokens", "1000")
	infer.waitOutput()

	client := openai.NewClient(option.WithBaseURL(k.URL+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	stream := client.Chat.Completions.NewStreaming(t.Context(), openai.ChatCompletionNewParams{
		Model: "sloth", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
	})
	var answer strings.Builder
	var stopped time.Time
	stop := sync.OnceFunc(func() {
		stopped = time.Now()
		if err := k.Queen.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("Signal(SIGTERM) = %v, want nil", err)
		}
	})
	for stream.Next() {
		stop()
		for _, c := range stream.Current().Choices {
			answer.WriteString(c.Delta.Content)
		}
	}
	if stream.Err() != nil || answer.String() != prompt {
		t.Errorf("stream returned %d bytes, %v, want %d bytes", answer.Len(), stream.Err(), len(prompt))
	}
	if text, err := infer.wait(); err != nil || strings.TrimSpace(text) != prompt {
		t.Errorf("rbee infer printed %d bytes, %v, want %d bytes", len(text), err, len(prompt))
	}
	_, _ = logs.wait() // fails: the queen cancels it
	if err := k.Queen.Wait(); err != nil {
		t.Errorf("the queen exited with %v, want status 0", err)
	}
	if took := time.Since(stopped); took > 20*time.Second { // the limit for jobs is 25 s
		t.Errorf("the queen exited after %v, want at most 20s: a followed log must not delay it", took)
	}
	k.Queen = nil
	if list := k.Run("list-workers"); !strings.Contains(list, "ready") {
		t.Errorf("list-workers after the exit of the queen = %s, want a ready worker", list)
	}
}

// command is a running rbee command that uses the queen.
type command struct {
	*exec.Cmd
	t    *testing.T
	out  io.Reader
	text bytes.Buffer
	errs bytes.Buffer
}

// start starts a command.
func start(t *testing.T, k *queentest.Setup, args ...string) *command {
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

// waitOutput waits for the first byte of output.
func (c *command) waitOutput() {
	c.t.Helper()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c.out, first); err != nil {
		c.t.Fatalf("%s printed nothing: %v", c, err)
	}
	c.text.Write(first)
}

// wait waits until the command exits, and returns its complete output.
func (c *command) wait() (string, error) {
	_, err := io.Copy(&c.text, c.out)
	if waitErr := c.Wait(); err == nil {
		err = waitErr
	}
	if err != nil && c.errs.Len() > 0 {
		c.t.Logf("%s: %s", c, &c.errs)
	}
	return c.text.String(), err
}
