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

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// Cookie is the name of the cookie that may contain a secret, for the server's own pages.
// Set it HttpOnly and SameSite=Strict.
const Cookie = "rbee_key"

// DefaultMaxBody is the default of [Options].MaxBody in bytes.
const DefaultMaxBody = 64 << 20

// Options configure [Guard]. With the zero value, all requests are denied.
type Options struct {
	// Keys holds the accepted keys. If Keys is nil, a server on loopback without Hosts
	// requires no key; other servers deny all requests that require a scope.
	Keys *Keys

	// Addr is the address that the server listens on, such as "127.0.0.1:8080". An
	// address that is not certainly loopback counts as reachable by other machines.
	Addr string

	// Origins are the additional allowed origins of pages, such as
	// "https://chat.example.com"; "*" allows all. If no key is required, pages of these
	// origins have [ScopeInfer].
	Origins []string

	// Hosts are the accepted names of a server on loopback, without a port, in addition
	// to "localhost", such as the public name of a proxy on this machine. Other machines
	// can use the proxy, so Hosts requires Keys.
	Hosts []string

	// Scope returns the scope that a request requires; "" means none. If Scope is nil, all
	// requests require [ScopeAdmin]. The path is not cleaned: it may contain "..".
	Scope func(*http.Request) Scope

	// MaxBody is the maximum size of a request body in bytes; 0 means [DefaultMaxBody].
	MaxBody int64

	// DrainTimeout is the maximum time for which the rest of a request body is read and
	// discarded after the response; 0 means 30 s. Reading also ends if no data arrives for
	// a sixth of this time.
	DrainTimeout time.Duration

	// WriteDenial writes the response to a denied request in the format that the client
	// expects. If WriteDenial is nil, the message is written as plain text.
	WriteDenial func(w http.ResponseWriter, r *http.Request, status int, code, message string)

	// Log receives a line for each denied request; nil discards the lines.
	Log *slog.Logger
}

// Guard returns middleware that passes only authorized requests to a handler. For other
// requests it calls o.WriteDenial with these statuses and codes:
//
//	403  host_refused            the Host header is not a name of this server
//	403  origin_refused          the origin of the page is not allowed
//	413  body_too_large          Content-Length exceeds the limit; a longer body without it fails on reading
//	415  unsupported_media_type  neither JSON nor, for an upload, a form
//	401  missing_api_key
//	401  invalid_api_key
//	403  insufficient_scope      the key, or the allowed origin without a key, lacks the required scope
//	403  keys_required           other machines can reach the server, and it has no keys
//	500  keys_unreadable
//
// After the response, the guard reads and discards the rest of the request body, within
// limits, so that the client can read the response.
func Guard(o Options) func(http.Handler) http.Handler {
	g := newGuard(o)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, next) })
	}
}

// ScopeFrom returns the scope of a request from the request's context: the scope of its
// key, or the scope of clients that need no key. It returns "" if the request needs no
// scope.
func ScopeFrom(ctx context.Context) Scope {
	g, _ := ctx.Value(contextKey{}).(grant)
	return g.scope
}

type contextKey struct{}

// grant is the authorization of a request.
type grant struct {
	key   Key // the zero Key if none was required
	scope Scope
}

// guard holds the Options with their defaults, and values that are derived from them.
type guard struct {
	Options
	loopback  bool
	keyless   bool     // no key is required
	hosts     []string // Options.Hosts in lower case
	origins   []string // in the form of [origin.String]
	anyOrigin bool     // all origins are allowed
}

// newGuard applies the defaults of options and parses the allowed origins.
func newGuard(o Options) *guard {
	g := &guard{Options: o}
	if g.Scope == nil {
		g.Scope = func(*http.Request) Scope { return ScopeAdmin }
	}
	if g.MaxBody == 0 {
		g.MaxBody = DefaultMaxBody
	}
	if g.DrainTimeout == 0 {
		g.DrainTimeout = defaultDrainTimeout
	}
	if g.WriteDenial == nil {
		g.WriteDenial = func(w http.ResponseWriter, _ *http.Request, status int, _, message string) {
			http.Error(w, message, status)
		}
	}
	if g.Log == nil {
		g.Log = slog.New(slog.DiscardHandler)
	}
	name, ok := hostname(o.Addr)
	g.loopback = ok && isLoopback(name)
	g.keyless = g.Keys == nil && g.loopback && len(o.Hosts) == 0
	for _, name := range o.Hosts {
		g.hosts = append(g.hosts, strings.ToLower(name))
	}
	for _, s := range o.Origins {
		origin, ok := parseOrigin(strings.TrimSuffix(s, "/"))
		switch {
		case s == "*":
			g.anyOrigin = true
		case ok:
			g.origins = append(g.origins, origin.String())
		default:
			g.Log.Warn("invalid origin ignored", "origin", s, "want", "https://host:port")
		}
	}
	return g
}

// denial is the reason to deny a request; nil means that the request is authorized.
type denial struct {
	status  int
	code    string
	message string
}

func denyf(status int, code, format string, args ...any) *denial {
	return &denial{status, code, fmt.Sprintf(format, args...)}
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

	src, denied := g.checkSource(r)
	if src.allowedOrigin != "" {
		h.Set("Access-Control-Allow-Origin", src.allowedOrigin)
		h.Del("Cross-Origin-Resource-Policy")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	if denied == nil {
		denied = g.checkBody(r)
	}
	var granted grant
	if denied == nil {
		granted, denied = g.authorize(r, src)
	}
	body := &trackedBody{ReadCloser: r.Body, responseHeader: h}
	if denied != nil {
		g.Log.Warn("request denied", "status", denied.status, "code", denied.code, "reason", denied.message,
			"method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr)
		if denied.status == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", "Bearer")
		}
		if r.ContentLength != 0 {
			h.Set("Connection", "close") // otherwise the server reads the body before it sends the response
		}
		g.WriteDenial(w, r, denied.status, denied.code, denied.message)
		g.drainBody(w, r, body)
		return
	}
	if granted.scope != "" {
		r = r.WithContext(context.WithValue(r.Context(), contextKey{}, granted))
	}
	if r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(w, body, g.MaxBody)
	}
	next.ServeHTTP(w, r)
	g.drainBody(w, r, body)
}

// checkHost denies requests to a server on loopback whose Host header is not a name of this
// server: with DNS rebinding, the host name of a page can resolve to 127.0.0.1.
func (g *guard) checkHost(r *http.Request) *denial {
	if !g.loopback {
		return nil
	}
	if name, ok := hostname(r.Host); !ok || !isLoopback(name) && !slices.Contains(g.hosts, name) {
		return denyf(http.StatusForbidden, "host_refused", "invalid Host header %q: want a name of this server", r.Host)
	}
	return nil
}

// source describes the page that sent a request, according to the headers of the browser.
type source struct {
	allowedOrigin string // the Origin header, if it is an allowed origin other than this server
	sameOrigin    bool   // the headers prove that no page of another origin sent the request
}

// checkSource denies requests of pages whose origin is not allowed.
func (g *guard) checkSource(r *http.Request) (source, *denial) {
	if denied := g.checkHost(r); denied != nil {
		return source{}, denied
	}
	site := r.Header.Get("Sec-Fetch-Site")
	sameOrigin := site == "same-origin" || site == "none" // none: the user entered the address
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	if sent := r.Header.Values("Origin"); len(sent) > 0 {
		denied := denyf(http.StatusForbidden, "origin_refused", "the origin %q is not allowed", strings.Join(sent, ", "))
		origin, ok := parseOrigin(sent[0])
		switch {
		case !ok || len(sent) > 1:
			return source{}, denied
		case g.anyOrigin || slices.Contains(g.origins, origin.String()):
			if !origin.matchesHost(r.Host) {
				return source{allowedOrigin: sent[0]}, nil
			}
		case !origin.matchesHost(r.Host):
			return source{}, denied
		}
		sameOrigin = sameOrigin || site == ""
	} else if site == "" {
		sameOrigin = safe // browsers that do not send Sec-Fetch-Site send Origin with unsafe methods
	}
	switch site {
	case "", "same-origin", "same-site", "none":
		return source{sameOrigin: sameOrigin}, nil
	}
	// A link from another site may open the front page, but not in a frame.
	dest := r.Header.Get("Sec-Fetch-Dest")
	if safe && r.Header.Get("Sec-Fetch-Mode") == "navigate" && (dest == "" || dest == "document") && r.URL.Path == "/" {
		return source{}, nil
	}
	return source{}, denyf(http.StatusForbidden, "origin_refused", "requests from pages of other sites are not allowed")
}

// checkBody denies bodies that a page can send without a preflight request, and bodies that
// are too large. Uploads must be forms, for which only the origin is checked.
func (g *guard) checkBody(r *http.Request) *denial {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		sent := r.Header.Get("Content-Type")
		kind, _, err := mime.ParseMediaType(sent)
		cleanPath := path.Clean("/" + r.URL.Path)
		upload := strings.HasPrefix(cleanPath, "/v1/audio/") || strings.HasPrefix(cleanPath, "/v1/images/")
		if err != nil || kind != "application/json" && !(upload && kind == "multipart/form-data") {
			return denyf(http.StatusUnsupportedMediaType, "unsupported_media_type", "invalid content type %q: want application/json", sent)
		}
	}
	if r.ContentLength > g.MaxBody {
		return denyf(http.StatusRequestEntityTooLarge, "body_too_large", "request body too large: want at most %s", bytesize.Format(g.MaxBody))
	}
	return nil
}

// authorize returns the key and the scope of a request. It denies requests without a key
// that has the required scope.
func (g *guard) authorize(r *http.Request, src source) (grant, *denial) {
	required := g.Scope(r)
	switch {
	case required == "":
		return grant{}, nil
	case g.keyless:
		return g.authorizeKeyless(required, src)
	case g.Keys == nil:
		return grant{}, denyf(http.StatusForbidden, "keys_required", "API keys are required because other machines can reach this server, but the server has no keys")
	}
	secret := requestSecret(r, src)
	if secret == "" {
		return grant{}, denyf(http.StatusUnauthorized, "missing_api_key", "missing API key: send the header Authorization: Bearer %s…", secretPrefix)
	}
	key, ok, err := g.Keys.Check(secret)
	switch {
	case err != nil:
		g.Log.Error("cannot read keys", "error", err)
		return grant{}, denyf(http.StatusInternalServerError, "keys_unreadable", "the server cannot read its API keys; see its log")
	case !ok:
		return grant{}, denyf(http.StatusUnauthorized, "invalid_api_key", "invalid API key: it is unknown or was revoked")
	case !key.Scope.Includes(required):
		return grant{}, denyf(http.StatusForbidden, "insufficient_scope", "API key %s has the scope %q, but the request needs %q", key.Name, key.Scope, required)
	}
	return grant{key, key.Scope}, nil
}

// authorizeKeyless grants [ScopeAdmin] to clients on this machine, but only [ScopeInfer] to
// pages of other allowed origins.
func (g *guard) authorizeKeyless(required Scope, src source) (grant, *denial) {
	granted := grant{scope: ScopeAdmin}
	if src.allowedOrigin != "" {
		granted.scope = ScopeInfer
	}
	if !granted.scope.Includes(required) {
		return grant{}, denyf(http.StatusForbidden, "insufficient_scope", "the origin %q may only use models, but the request needs the scope %q", src.allowedOrigin, required)
	}
	return granted, nil
}

// requestSecret returns the secret in a request, or "". It ignores the cookie unless the
// request comes from the server's own page, because a browser sends cookies with the
// requests of all pages.
func requestSecret(r *http.Request, src source) string {
	if scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(secret)
	}
	if secret := r.Header.Get("X-Api-Key"); secret != "" {
		return secret
	}
	if c, err := r.Cookie(Cookie); err == nil && src.sameOrigin {
		return c.Value
	}
	return ""
}
