package gpu

import (
	"context"
	"strings"
	"sync"
	"time"
)

// calls are the calls of tools that are under way. Callers who want the same of the
// same tool at the same time share one: a tool that is slow, or hangs, does not
// become many. The zero value is ready to use.
type calls struct {
	mu       sync.Mutex
	underWay map[string]*call // by the command line
}

// call is one run of a tool.
type call struct {
	cancel  context.CancelFunc
	waiting int // callers, guarded by calls.mu; after the last has left it is being ended

	done   chan struct{} // closed when there are
	result Result
	err    error
}

// do runs a tool, or waits for one that runs. The tool has the whole of limit,
// however soon the caller who began it leaves; when the last caller leaves, it is
// ended. The error is the runner's, or ctx's. The result is not to be changed.
func (c *calls) do(ctx context.Context, limit time.Duration, run Runner, name string, args ...string) (Result, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		one, joined := c.join(ctx, limit, run, name, args)
		select {
		case <-one.done:
			if joined {
				return one.result, one.err
			} // else it was somebody's who left, and has made room
		case <-ctx.Done():
			if joined && c.leave(one) {
				<-one.done // nothing is left running behind a caller's back
			}
			return Result{}, ctx.Err()
		}
	}
}

// join finds the call under way, or begins it. joined is false for one that is
// being ended: its end is to be waited for.
func (c *calls) join(ctx context.Context, limit time.Duration, run Runner, name string, args []string) (one *call, joined bool) {
	line := strings.Join(append([]string{name}, args...), "\x00")
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := c.underWay[line]; one != nil {
		if one.waiting == 0 {
			return one, false
		}
		one.waiting++
		return one, true
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	one = &call{cancel: cancel, waiting: 1, done: make(chan struct{})}
	if c.underWay == nil {
		c.underWay = map[string]*call{}
	}
	c.underWay[line] = one
	go func() {
		defer cancel()
		one.result, one.err = run(within, name, args...)
		c.mu.Lock()
		delete(c.underWay, line)
		c.mu.Unlock()
		close(one.done)
	}()
	return one, true
}

// leave takes a caller off a call. It ends the call of the last one, and is true then.
func (c *calls) leave(one *call) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one.waiting--
	if one.waiting > 0 {
		return false
	}
	one.cancel()
	return true
}
