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

// Backend is a worker that serves a model: where to send a request.
type Backend struct {
	Worker   string // its id
	Instance string // tells it from what it was before it was started again; empty: Worker does
	Hive     string // where it runs
	Model    string // what it serves

	// URL is the base address, without a slash at its end. The request's own
	// path is put behind it.
	URL string

	// Header is added to each request, such as Authorization, in place of what the
	// client sent by these names. It may be nil.
	Header http.Header

	// Transport is the way there. It must not decompress: what comes is what the
	// client asked for.
	Transport http.RoundTripper

	// Name is what the worker calls the model, if not as the client does. Empty
	// leaves the body alone.
	Name string
}

// Wish is what a request needs of a worker.
type Wish struct {
	Model    string   // as the client named it
	Path     string   // such as /v1/chat/completions
	Affinity uint64   // hash of the beginning of the conversation; 0: there is none
	Avoid    []string // instances of workers that failed at this request

	RequestID string
}

// Lease is a backend taken for one request.
type Lease struct {
	Backend

	// Done gives it back. It is called once, with a [*WorkerError] if the worker
	// failed, otherwise with nil: a client that left is not the worker's fault.
	Done func(err error)
}

// Fleet knows models and the workers that serve them.
type Fleet interface {
	// Models lists the models that may be asked for.
	Models(ctx context.Context) []ModelInfo

	// Acquire takes a worker. It may wait while a model is loaded. A [*Refusal]
	// says what to answer instead.
	Acquire(ctx context.Context, w Wish) (*Lease, error)
}

// ModelInfo is a model that may be asked for.
type ModelInfo struct {
	ID      string
	Created time.Time
	Loaded  bool     // a worker serves it
	Workers []string // those that do
}

// Observer is told of each request, by the goroutine that served it.
type Observer interface {
	Observe(s Sample)
}

// Sample is what became of a request.
type Sample struct {
	Path      string // as the API writes it, such as /v1/models/{id}; empty: it has no such path
	Model     string // that the worker serves; as the client named it, if there is no worker below
	Hive      string // of the worker that was asked last
	Worker    string // that was asked last; empty: none was
	RequestID string

	Status int  // 499: the client left or did not read
	Stream bool // events were asked for, or came

	Start     time.Time
	FirstByte time.Duration // until a worker sent something; 0: none did
	Duration  time.Duration

	PromptTokens     int // as the engine counted them; 0: it did not say
	CompletionTokens int
	BytesIn          int64 // of bodies
	BytesOut         int64
	Retries          int   // workers that were asked after the first
	Err              error // nil: all went well here, whatever the engine answered
}

// Options says what a gateway is made of. All but Fleet may be left out.
type Options struct {
	Fleet    Fleet
	Observer Observer
	Log      *slog.Logger // gets a line for each failure of a worker

	// MayKnow reports whether the one who asks may read a [Refusal]'s Detail. Nil:
	// nobody may.
	MayKnow func(ctx context.Context) bool

	// MaxBody is how many bytes a request may have; 0 means 64 MiB.
	MaxBody int64

	// MaxBodies is how many bytes of memory the bodies of all requests may take, each
	// from when it is read until its answer begins; 0 means 1 GiB.
	MaxBodies int64

	// WriteTimeout is how long a client may neither read what it is sent nor
	// send what it announced; 0 means 1 minute. Beyond it a body must have come at
	// 16 KiB a second.
	WriteTimeout time.Duration

	// MaxInFlight is how many requests may be under way at once; 0 means 4096.
	MaxInFlight int
}

const (
	maxTries    = 3        // workers asked for one request
	bufferSize  = 32 << 10 // for answers
	eventBuffer = 4 << 10  // for streams of events: many are open, and pieces are small
	firstGrowth = 1 << 20  // of a body, before its bytes are there
	slowest     = 16 << 10 // bytes a second that a body must come at
	maxModel    = 512      // bytes of a model's name
	statusLeft  = 499      // the client left before it was answered
	requestID   = "X-Request-Id"
	hiveError   = "X-Rbee-Error" // on answers that are a hive's and not its worker's
)

// New makes the handler of all paths in /v1.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxBody == 0 {
		o.MaxBody = 64 << 20
	}
	if o.MaxBodies == 0 {
		o.MaxBodies = 1 << 30
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = time.Minute
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 4096
	}
	return &gateway{Options: o, bodies: budget{most: o.MaxBodies}, buffers: sync.Pool{New: func() any { return new([bufferSize]byte) }}}
}

type gateway struct {
	Options
	inFlight atomic.Int64
	bodies   budget
	buffers  sync.Pool // of *[bufferSize]byte
}

// ServeHTTP finds out what is asked for. There are few paths, and a mux would
// redirect those that are not clean where a client should hear of an error.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := newExchange(g, w, r)
	defer x.end()
	switch path := r.URL.Path; path {
	case "/v1/models":
		x.sample.Path = path
		if x.allow(http.MethodGet, http.MethodHead) {
			x.models()
		}
	case "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank",
		"/v1/images/generations", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations":
		x.sample.Path = path
		if x.allow(http.MethodPost) {
			x.infer()
		}
	default:
		id, ok := strings.CutPrefix(path, "/v1/models/")
		if !ok || id == "" {
			x.refuse(refusalf(http.StatusNotFound, "path_not_found", "there is nothing at %s", path))
			return
		}
		x.sample.Path = "/v1/models/{id}"
		if x.allow(http.MethodGet, http.MethodHead) {
			x.model(id)
		}
	}
}
