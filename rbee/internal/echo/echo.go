// Package echo implements the built-in worker "echo": a small server with the OpenAI HTTP
// API that returns the text of the prompt. The worker needs no GPU, no model and no
// download, so it is suitable for testing a machine end to end: installing, starting,
// probing and routing.
//
// # Endpoints
//
//	GET  /health               {"status":"ok"}
//	GET  /v1/models            a list of one model, Options.Model
//	GET  /v1/models/{model}    this model
//	POST /v1/chat/completions  the text of the last user message
//	POST /v1/completions       the text of the prompt, one choice per prompt
//	POST /v1/embeddings        a vector of word counts per input
//
// A token is a word with the white space before it, so the concatenated tokens of a
// stream are exactly the prompt. The numbers in usage count words. max_tokens,
// max_completion_tokens, stop, stream and stream_options are supported; other
// parameters, such as temperature, are ignored. Errors have the format and status of
// OpenAI.
//
// The formats are described in https://platform.openai.com/docs/api-reference/chat and
// https://platform.openai.com/docs/api-reference/completions.
//
// The server has no authentication: listen on loopback and let the hive daemon
// authorize requests.
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

// Limits of the server. They prevent a slow client from occupying memory or a connection
// forever.
const (
	maxBody       = 8 << 20          // bytes of a request's body
	headerTimeout = 10 * time.Second // for a request's header
	bodyTimeout   = 60 * time.Second // for a request's body
	writeTimeout  = 30 * time.Second // for one chunk of a response
	idleTimeout   = 2 * time.Minute  // between requests on a connection
	defaultGrace  = 5 * time.Second  // see Options.Grace
	defaultModel  = "echo"           // see Options.Model
)

// Options configure the worker. The zero value is valid.
type Options struct {
	// Host is the address to listen on; empty means 127.0.0.1.
	Host string
	// Port is the TCP port; 0 means any free port.
	Port int
	// Model is the name of the model; empty means "echo".
	Model string
	// Delay is the time to wait before each word, streamed or not, to simulate a real
	// engine.
	Delay time.Duration
	// Grace is the maximum time for requests in flight after the context of Serve has
	// ended; 0 means 5 seconds.
	Grace time.Duration
}

// Serve listens and serves until ctx ends. Then it accepts no new connections, waits at
// most Grace for requests in flight, and returns nil. When Serve accepts connections, it
// calls ready, if not nil, in the caller's goroutine with the address, such as
// "127.0.0.1:43121".
func Serve(ctx context.Context, o Options, ready func(addr string)) error {
	host := o.Host
	if host == "" {
		host = "127.0.0.1"
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(o.Port)))
	if err != nil {
		return fmt.Errorf("cannot start the echo worker: %w", err)
	}
	// Requests may outlive ctx by the grace period, so they need a separate context.
	requestCtx, cancelRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelRequests()
	srv := &http.Server{
		Handler:           New(o),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return requestCtx },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	if ready != nil {
		ready(ln.Addr().String())
	}
	select {
	case err := <-done:
		return fmt.Errorf("cannot serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	return stop(srv, cancelRequests, o.Grace)
}

// stop shuts srv down. It cancels requests that take longer than grace.
func stop(srv *http.Server, cancelRequests context.CancelFunc, grace time.Duration) error {
	if grace <= 0 {
		grace = defaultGrace
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		cancelRequests()
		err = srv.Close()
	}
	if err != nil {
		return fmt.Errorf("cannot stop the echo worker: %w", err)
	}
	return nil
}

// New returns the HTTP handler of the worker. New ignores Host, Port and Grace.
func New(o Options) http.Handler {
	if o.Model == "" {
		o.Model = defaultModel
	}
	s := &server{model: o.Model, delay: o.Delay, started: time.Now().Unix()}
	mux := http.NewServeMux()
	mux.Handle("/health", allowMethods(s.health, http.MethodGet, http.MethodHead))
	mux.Handle("/v1/models", allowMethods(s.models, http.MethodGet, http.MethodHead))
	mux.Handle("/v1/models/{model...}", allowMethods(s.oneModel, http.MethodGet, http.MethodHead))
	mux.Handle("/v1/chat/completions", allowMethods(s.generate(chat), http.MethodPost))
	mux.Handle("/v1/completions", allowMethods(s.generate(completions), http.MethodPost))
	mux.Handle("/v1/embeddings", allowMethods(s.embeddings, http.MethodPost))
	mux.HandleFunc("/", unknownURL)
	return mux
}
