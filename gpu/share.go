package gpu

import (
	"context"
	"strings"
	"sync"
	"time"
)

// calls contains the running calls of tools. Concurrent callers of the same command line share
// a call, so that a slow or hanging tool is not started several times. The zero value is
// ready to use.
type calls struct {
	mu      sync.Mutex
	running map[string]*call // by command line
}

// call is a run of a tool.
type call struct {
	cancel  context.CancelFunc
	callers int // number of callers, guarded by calls.mu; at 0 the call is being canceled

	done   chan struct{} // closed after result and err are set
	result Result
	err    error
}

// do runs a tool or joins a running call of the same command line. The limit applies to the
// tool, independent of ctx. The tool is canceled when the contexts of all callers are done.
// The error is the error of the runner or of ctx. The caller must not modify the result.
func (c *calls) do(ctx context.Context, limit time.Duration, run Runner, name string, args ...string) (Result, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		current, joined := c.join(ctx, limit, run, name, args)
		select {
		case <-current.done:
			if joined {
				return current.result, current.err
			} // else a canceled call has exited: try again
		case <-ctx.Done():
			if joined && c.leave(current) {
				<-current.done // the tool must not run after do returns
			}
			return Result{}, ctx.Err()
		}
	}
}

// join returns the running call of the command line, or starts one. joined is false if the
// call is being canceled; the caller waits until it is done.
func (c *calls) join(ctx context.Context, limit time.Duration, run Runner, name string, args []string) (current *call, joined bool) {
	line := strings.Join(append([]string{name}, args...), "\x00")
	c.mu.Lock()
	defer c.mu.Unlock()
	if current = c.running[line]; current != nil {
		if current.callers == 0 {
			return current, false
		}
		current.callers++
		return current, true
	}
	callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	current = &call{cancel: cancel, callers: 1, done: make(chan struct{})}
	if c.running == nil {
		c.running = map[string]*call{}
	}
	c.running[line] = current
	go func() {
		defer cancel()
		current.result, current.err = run(callCtx, name, args...)
		c.mu.Lock()
		delete(c.running, line)
		c.mu.Unlock()
		close(current.done)
	}()
	return current, true
}

// leave removes a caller from a call. If it was the last caller, leave cancels the call and
// returns true.
func (c *calls) leave(current *call) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	current.callers--
	if current.callers > 0 {
		return false
	}
	current.cancel()
	return true
}
