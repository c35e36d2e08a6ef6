package access

import (
	"context"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// Cookie is the name of the cookie that may hold a secret, for the pages of the
// server itself. Set it HttpOnly and SameSite=Strict.
const Cookie = "rbee_key"

// DefaultMaxBody is how many bytes a request may have where nothing else is said.
const DefaultMaxBody = 64 << 20

// Options says who is let in. The zero value lets nobody in.
type Options struct {
	// Keys are the keys that let in. Nil: none is asked for, which works only on
	// loopback and without Hosts.
	Keys *Keys

	// Addr is the address that the server listens on, such as "127.0.0.1:8080".
	// What is not surely loopback counts as reachable by others.
	Addr string

	// Origins are the pages that may ask beside the server's own, such as
	// "https://chat.example.com". "*" is all. Where no key is asked for, they may do
	// what [ScopeInfer] may and no more.
	Origins []string

	// Hosts are names, without a port, that a server on loopback goes by beside
	// "localhost": those by which a proxy on this machine asks it. Others reach it
	// through the proxy, so with Hosts there must be Keys.
	Hosts []string

	// Scope is what a request takes; "" is open to everyone. Nil: all take
	// [ScopeAdmin]. The path is as the client sent it: one that has ".." in it does
	// not lead to where it begins.
	Scope func(*http.Request) Scope

	// MaxBody is how many bytes the body of a request may have; 0 means
	// [DefaultMaxBody].
	MaxBody int64

	// Linger is how long a client that was answered may still send its body, which is
	// thrown away; 0 means 30 s. One that pauses for a sixth of that is cut.
	Linger time.Duration

	// Refuse answers a request that is not let in, in the form that its client
	// expects. Nil: as plain text.
	Refuse func(w http.ResponseWriter, r *http.Request, status int, code, message string)

	// Log gets a line for each request that is not let in. Nil discards them.
	Log *slog.Logger
}

// Guard returns what lets only those requests through to a handler that o allows.
// The others are answered by o.Refuse, with one of these codes:
//
//	403  host_refused            the Host header is none of this server's names
//	403  origin_refused          a page that may not ask, asks
//	413  body_too_large          before it is read; later, reading it fails
//	415  unsupported_media_type  neither JSON nor, for an upload, a form
//	401  missing_api_key
//	401  invalid_api_key
//	403  insufficient_scope      the key is good, but not for this; or a named page asks without one
//	403  keys_required           others reach the server, and it has no keys
//	500  keys_unreadable
//
// What a handler, or a refusal, leaves of a body is taken and thrown away after the
// answer, within bounds, so that the client comes to read that.
func Guard(o Options) func(http.Handler) http.Handler {
	g := newGuard(o)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, next) })
	}
}

// ScopeFrom is what the one who sent a request may do, from the request's context: the
// scope of the key, or of those who need none. It is "" where a request takes no scope.
func ScopeFrom(ctx context.Context) Scope {
	g, _ := ctx.Value(contextKey{}).(grant)
	return g.scope
}

type contextKey struct{}

// grant is what a request was let in with.
type grant struct {
	key   Key // the zero one: none was asked for
	scope Scope
}

// guard is Options, made ready.
type guard struct {
	Options
	loopback bool
	open     bool     // nobody needs a key
	hosts    []string // in lower case
	origins  []string // as [parseOrigin] writes them
	all      bool     // origins are named
}

func newGuard(o Options) *guard {
	g := &guard{Options: o}
	if g.Scope == nil {
		g.Scope = func(*http.Request) Scope { return ScopeAdmin }
	}
	if g.MaxBody == 0 {
		g.MaxBody = DefaultMaxBody
	}
	if g.Linger == 0 {
		g.Linger = defaultLinger
	}
	if g.Refuse == nil {
		g.Refuse = func(w http.ResponseWriter, _ *http.Request, status int, _, message string) {
			http.Error(w, message, status)
		}
	}
	if g.Log == nil {
		g.Log = slog.New(slog.DiscardHandler)
	}
	name, ok := hostname(o.Addr)
	g.loopback = ok && isLoopback(name)
	g.open = g.Keys == nil && g.loopback && len(o.Hosts) == 0
	for _, name := range o.Hosts {
		g.hosts = append(g.hosts, strings.ToLower(name))
	}
	for _, s := range o.Origins {
		origin, ok := parseOrigin(strings.TrimSuffix(s, "/"))
		switch {
		case s == "*":
			g.all = true
		case ok:
			g.origins = append(g.origins, origin.String())
		default:
			g.Log.Warn("an origin is passed over, it is not of the form https://host:port", "origin", s)
		}
	}
	return g
}

// refusal is why a request is not let in; nil: it is.
type refusal struct {
	status  int
	code    string
	message string
}

func refusef(status int, code, format string, args ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

func (g *guard) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "SAMEORIGIN")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if len(g.Origins) > 0 {
		h.Add("Vary", "Origin")
	}

	from, no := g.source(r)
	if from.named != "" {
		h.Set("Access-Control-Allow-Origin", from.named)
		h.Del("Cross-Origin-Resource-Policy")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	if no == nil {
		no = g.checkBody(r)
	}
	var has grant
	if no == nil {
		has, no = g.admit(r, from)
	}
	rest := &body{ReadCloser: r.Body, answer: h}
	if no != nil {
		g.Log.Warn("request is refused", "status", no.status, "code", no.code, "reason", no.message,
			"method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr)
		if no.status == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", "Bearer")
		}
		if r.ContentLength != 0 {
			h.Set("Connection", "close") // so the answer does not wait for what may never come
		}
		g.Refuse(w, r, no.status, no.code, no.message)
		g.linger(w, r, rest)
		return
	}
	if has.scope != "" {
		r = r.WithContext(context.WithValue(r.Context(), contextKey{}, has))
	}
	if r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(w, rest, g.MaxBody)
	}
	next.ServeHTTP(w, r)
	g.linger(w, r, rest)
}

// checkHost refuses, on loopback, names that somebody else may have given to
// 127.0.0.1.
func (g *guard) checkHost(r *http.Request) *refusal {
	if !g.loopback {
		return nil
	}
	if name, ok := hostname(r.Host); !ok || !isLoopback(name) && !slices.Contains(g.hosts, name) {
		return refusef(http.StatusForbidden, "host_refused", "the Host header is %q, which is no name of this server", r.Host)
	}
	return nil
}

// source is where a request comes from, as far as a browser tells.
type source struct {
	named string // the origin, if it is another one and may ask
	own   bool   // surely no other page asks
}

// source refuses what pages send that may not ask.
func (g *guard) source(r *http.Request) (source, *refusal) {
	if no := g.checkHost(r); no != nil {
		return source{}, no
	}
	site := r.Header.Get("Sec-Fetch-Site")
	own := site == "same-origin" || site == "none" // none: the user typed the address
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	if sent := r.Header.Values("Origin"); len(sent) > 0 {
		refused := refusef(http.StatusForbidden, "origin_refused", "the page at %q may not ask this server", strings.Join(sent, ", "))
		origin, ok := parseOrigin(sent[0])
		switch {
		case !ok || len(sent) > 1:
			return source{}, refused
		case g.all || slices.Contains(g.origins, origin.String()):
			if !origin.of(r.Host) {
				return source{named: sent[0]}, nil
			}
		case !origin.of(r.Host):
			return source{}, refused
		}
		own = own || site == ""
	} else if site == "" {
		own = safe // a browser that says nothing here says its origin with all else
	}
	switch site {
	case "", "same-origin", "same-site", "none":
		return source{own: own}, nil
	}
	// Whoever follows a link is sent to the front page, not to a frame in another.
	dest := r.Header.Get("Sec-Fetch-Dest")
	if safe && r.Header.Get("Sec-Fetch-Mode") == "navigate" && (dest == "" || dest == "document") && r.URL.Path == "/" {
		return source{}, nil
	}
	return source{}, refusef(http.StatusForbidden, "origin_refused", "a page of another site may not ask this server")
}

// checkBody refuses bodies that a page could send without asking first, and those
// that are too large. Uploads have to be forms: there the origin alone decides.
func (g *guard) checkBody(r *http.Request) *refusal {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		sent := r.Header.Get("Content-Type")
		kind, _, err := mime.ParseMediaType(sent)
		at := path.Clean("/" + r.URL.Path)
		upload := strings.HasPrefix(at, "/v1/audio/") || strings.HasPrefix(at, "/v1/images/")
		if err != nil || kind != "application/json" && !(upload && kind == "multipart/form-data") {
			return refusef(http.StatusUnsupportedMediaType, "unsupported_media_type", "the content type is %q, want application/json", sent)
		}
	}
	if r.ContentLength > g.MaxBody {
		return refusef(http.StatusRequestEntityTooLarge, "body_too_large", "the body has %d bytes, at most %d are taken", r.ContentLength, g.MaxBody)
	}
	return nil
}

// admit refuses requests without the key that they take, and says what the others
// may do.
func (g *guard) admit(r *http.Request, from source) (grant, *refusal) {
	need := g.Scope(r)
	switch {
	case need == "":
		return grant{}, nil
	case g.open:
		return g.admitKeyless(need, from)
	case g.Keys == nil:
		return grant{}, refusef(http.StatusForbidden, "keys_required", "this server can be reached by others than its own machine and has no keys, so nobody is let in")
	}
	secret := secretIn(r, from)
	if secret == "" {
		return grant{}, refusef(http.StatusUnauthorized, "missing_api_key", "a key is needed here: Authorization: Bearer %s…", secretPrefix)
	}
	key, ok, err := g.Keys.Check(secret)
	switch {
	case err != nil:
		g.Log.Error("nobody is let in", "error", err)
		return grant{}, refusef(http.StatusInternalServerError, "keys_unreadable", "this server cannot read its keys, its log says why")
	case !ok:
		return grant{}, refusef(http.StatusUnauthorized, "invalid_api_key", "this server does not know the key")
	case !key.Scope.Includes(need):
		return grant{}, refusef(http.StatusForbidden, "insufficient_scope", "the key %s has the scope %q, this takes %q", key.Name, key.Scope, need)
	}
	return grant{key, key.Scope}, nil
}

// admitKeyless lets in whoever is on this machine. A page from elsewhere was named so
// that it may ask models, and has no key that would say more.
func (g *guard) admitKeyless(need Scope, from source) (grant, *refusal) {
	has := grant{scope: ScopeAdmin}
	if from.named != "" {
		has.scope = ScopeInfer
	}
	if !has.scope.Includes(need) {
		return grant{}, refusef(http.StatusForbidden, "insufficient_scope", "the page at %q may ask models and no more, this takes %q", from.named, need)
	}
	return has, nil
}

// secretIn is the secret in a request; "": there is none. A browser adds the cookie
// to what any page sends, so it says nothing unless this server's page asks.
func secretIn(r *http.Request, from source) string {
	if scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(secret)
	}
	if secret := r.Header.Get("X-Api-Key"); secret != "" {
		return secret
	}
	if c, err := r.Cookie(Cookie); err == nil && from.own {
		return c.Value
	}
	return ""
}
