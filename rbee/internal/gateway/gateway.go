package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Backend describes a worker that serves a model, and how to send requests to it.
type Backend struct {
	Worker   string // worker ID
	Instance string // differs after a restart of the worker; empty means the same as Worker
	Hive     string // hive that runs the worker
	Model    string // model that the worker serves

	// URL is the base address, without a trailing slash. The request's own path is
	// appended to it.
	URL string

	// Header is added to each request, such as Authorization. It replaces the client's
	// values of these headers. It may be nil.
	Header http.Header

	// Transport sends the request. It must not decompress the response: the client
	// receives the content encoding that it requested.
	Transport http.RoundTripper

	// Name is the worker's name for the model. If it is empty, the body is forwarded
	// unchanged.
	Name string
}

// RouteRequest describes a request for which a [Router] selects a worker.
type RouteRequest struct {
	Model    string   // name in the client's request
	Path     string   // such as /v1/chat/completions
	Affinity uint64   // hash of the beginning of the conversation; 0 if unknown
	Exclude  []string // instances of workers that failed for this request

	RequestID string
}

// Lease is a backend that is acquired for one request.
type Lease struct {
	Backend

	// Release releases the backend. It is called once: with a [*WorkerError] if the worker
	// failed, and with nil otherwise. A client that disconnects is not a failure of the worker.
	Release func(err error)
}

// Router selects workers for requests.
type Router interface {
	// Models lists the models that clients can request.
	Models(ctx context.Context) []ModelInfo

	// Acquire selects a worker. It may block while a model is loaded. If it returns an
	// [*APIError], the client receives that error.
	Acquire(ctx context.Context, req RouteRequest) (*Lease, error)
}

// ModelInfo is a model that clients can request.
type ModelInfo struct {
	ID      string
	Created time.Time
	Loaded  bool     // a worker serves the model
	Workers []string // IDs of the workers that serve the model
}

// Observer receives a [Sample] of each request, from the goroutine that served it.
type Observer interface {
	Observe(s Sample)
}

// Sample describes a completed request.
type Sample struct {
	Path      string // pattern, such as /v1/models/{id}; empty for an unknown path
	Model     string // model that the worker serves; without a worker the name in the request
	Hive      string // hive of Worker
	Worker    string // last worker that received the request; empty if none did
	RequestID string

	Status int  // 499 if the client disconnected or did not read
	Stream bool // the client requested events, or the worker sent events

	Start     time.Time
	FirstByte time.Duration // time to the first byte from a worker; 0 without one
	Duration  time.Duration

	PromptTokens     int // as reported by the engine; 0 if unknown
	CompletionTokens int
	BytesIn          int64 // size of the request body
	BytesOut         int64
	Retries          int   // workers tried after the first one
	Err              error // nil if the gateway forwarded a response, regardless of its status
}

// Options configure the gateway. All fields except Router are optional.
type Options struct {
	Router   Router
	Observer Observer
	Log      *slog.Logger // receives a line for each failure of a worker

	// ShowDetail reports whether the client may see the Detail of an [APIError]. Nil means
	// that no client may.
	ShowDetail func(ctx context.Context) bool

	// MaxBody limits the size of a request body in bytes; 0 means 64 MiB.
	MaxBody int64

	// MaxBodyMemory limits the memory for the bodies of all requests in bytes. A body
	// counts until its response starts. 0 means 1 GiB.
	MaxBodyMemory int64

	// WriteTimeout limits how long a client may neither read the response nor send the
	// rest of its body; 0 means 1 minute. After it, a body must have arrived at 16 KiB per
	// second or more.
	WriteTimeout time.Duration

	// MaxInFlight limits the number of requests in progress; 0 means 4096.
	MaxInFlight int
}

const (
	maxTries           = 3        // workers tried for one request
	bufferSize         = 32 << 10 // bytes, for responses
	eventBuffer        = 4 << 10  // bytes, for event streams: many are open at once
	maxInitialBody     = 1 << 20  // bytes allocated for a body before any of it arrives
	minBodyRate        = 16 << 10 // bytes per second at which a body must arrive
	maxModelName       = 512      // bytes
	statusClientClosed = 499      // the client disconnected before the response
	requestIDHeader    = "X-Request-Id"
	hiveErrorHeader    = "X-Rbee-Error" // set on responses that come from a hive and not from its worker
)

// New returns a handler for all paths below /v1.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxBody == 0 {
		o.MaxBody = 64 << 20
	}
	if o.MaxBodyMemory == 0 {
		o.MaxBodyMemory = 1 << 30
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = time.Minute
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 4096
	}
	return &gateway{Options: o, bodies: budget{limit: o.MaxBodyMemory}, buffers: sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

type gateway struct {
	Options
	inFlight atomic.Int64
	bodies   budget
	buffers  sync.Pool // of *[bufferSize]byte
}

// ServeHTTP dispatches the request by its path. It does not use a [http.ServeMux], which
// redirects unclean paths instead of rejecting them.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := newExchange(g, w, r)
	defer x.finish()
	switch path := r.URL.Path; path {
	case "/v1/models":
		x.sample.Path = path
		if x.checkMethod(http.MethodGet, http.MethodHead) {
			x.models()
		}
	case "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank",
		"/v1/images/generations", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations":
		x.sample.Path = path
		if x.checkMethod(http.MethodPost) {
			x.infer()
		}
	default:
		id, ok := strings.CutPrefix(path, "/v1/models/")
		if !ok || id == "" {
			x.writeError(apiErrorf(http.StatusNotFound, "path_not_found", "unknown path %s", path))
			return
		}
		x.sample.Path = "/v1/models/{id}"
		if x.checkMethod(http.MethodGet, http.MethodHead) {
			x.model(id)
		}
	}
}
