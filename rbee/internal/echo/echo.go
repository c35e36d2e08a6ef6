// Package echo is the built-in worker "echo": a small server that speaks
// OpenAI's HTTP dialect and answers with the prompt's own words. It needs no
// GPU, no model and no download, so it proves a machine end to end: if echo
// answers through a hive, installing, starting, probing and routing all work.
//
// # What it answers
//
//	GET  /health               {"status":"ok"}
//	GET  /v1/models            the one model, Options.Model
//	GET  /v1/models/{model}    the same, alone
//	POST /v1/chat/completions  the words of the last user message
//	POST /v1/completions       the words of the prompt, one choice per prompt
//
// A token is a word together with the white space before it, so the pieces of
// a stream put together are the prompt, byte for byte. Usage counts words.
// max_tokens, max_completion_tokens, stop, stream and stream_options are
// honored; other parameters, such as temperature, change nothing and are
// ignored. Errors have OpenAI's shape and status.
//
// The shapes follow https://platform.openai.com/docs/api-reference/chat and
// https://platform.openai.com/docs/api-reference/completions.
//
// There is no authentication: listen on loopback, and let the hive guard the door.
package echo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Limits of the server. They keep one careless client from holding memory or
// a connection for ever.
const (
	maxBody       = 8 << 20          // bytes of a request's body
	headerTimeout = 10 * time.Second // for a request's header
	bodyTimeout   = 60 * time.Second // for a request's body
	writeTimeout  = 30 * time.Second // for one piece of a reply
	idleTimeout   = 2 * time.Minute  // between two requests on a connection
	defaultGrace  = 5 * time.Second
	defaultModel  = "echo"
)

// Options says how the worker listens and answers. The zero value works.
type Options struct {
	// Host is the address to listen on; empty means 127.0.0.1.
	Host string
	// Port is the TCP port; 0 means any free one.
	Port int
	// Model is the one model name that is served; empty means "echo".
	Model string
	// Delay is waited before each word, streamed or not, to look like a real
	// engine. 0 means none.
	Delay time.Duration
	// Grace is how long Serve lets requests in flight run on after its context
	// has ended; 0 means 5 seconds.
	Grace time.Duration
}

// Serve listens and answers until ctx ends, then stops: no new connections,
// Grace for the requests in flight, and nil. Every other end is an error that
// names the address. ready, if not nil, is called once from Serve's own
// goroutine with the address, such as "127.0.0.1:43121", as soon as
// connections are accepted there.
func Serve(ctx context.Context, o Options, ready func(addr string)) error {
	host := o.Host
	if host == "" {
		host = "127.0.0.1"
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(o.Port)))
	if err != nil {
		return fmt.Errorf("echo worker: %w", err)
	}
	// Requests outlive ctx by the grace, so their context is another one.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv := &http.Server{
		Handler:           New(o),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	if ready != nil {
		ready(ln.Addr().String())
	}
	select {
	case err := <-done:
		return fmt.Errorf("echo worker on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	return stop(srv, cut, o.Grace)
}

// stop ends srv within grace; requests that take longer are cut off.
func stop(srv *http.Server, cut context.CancelFunc, grace time.Duration) error {
	if grace <= 0 {
		grace = defaultGrace
	}
	within, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := srv.Shutdown(within)
	if errors.Is(err, context.DeadlineExceeded) {
		cut()
		err = srv.Close()
	}
	if err != nil {
		return fmt.Errorf("stop the echo worker: %w", err)
	}
	return nil
}

// New returns the worker as a handler, for a server of the caller's own.
// Host, Port and Grace have no meaning here.
func New(o Options) http.Handler {
	if o.Model == "" {
		o.Model = defaultModel
	}
	s := &server{model: o.Model, delay: o.Delay, started: time.Now().Unix()}
	mux := http.NewServeMux()
	mux.Handle("/health", only(s.health, http.MethodGet, http.MethodHead))
	mux.Handle("/v1/models", only(s.models, http.MethodGet, http.MethodHead))
	mux.Handle("/v1/models/{model...}", only(s.oneModel, http.MethodGet, http.MethodHead))
	mux.Handle("/v1/chat/completions", only(s.answer(chat), http.MethodPost))
	mux.Handle("/v1/completions", only(s.answer(completions), http.MethodPost))
	mux.Handle("/v1/embeddings", only(s.embeddings, http.MethodPost))
	mux.HandleFunc("/", unknownURL)
	return mux
}
