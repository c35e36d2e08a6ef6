package access_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/access"
)

// dial opens a connection to a server, with a deadline.
func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestDeniedBody checks that a client receives the denial of the guard or the handler, even
// if it reads the response only after it has sent the complete body.
func TestDeniedBody(t *testing.T) {
	t.Parallel()
	const size = 20 << 20
	lengthHeader := fmt.Sprintf("Content-Length: %d\r\n\r\n", size)
	keys, _ := newKeys(t)
	_, secret := add(t, keys, "one", access.ScopeInfer)
	s := httptest.NewServer(access.Guard(access.Options{Keys: keys, Scope: scopeByPath, MaxBody: size / 2})(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var err error
			if r.URL.Path == "/v1/reads" {
				_, err = io.Copy(io.Discard, r.Body)
			}
			if large := new(http.MaxBytesError); errors.As(err, &large) {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			w.WriteHeader(http.StatusTeapot)
		})))
	t.Cleanup(s.Close)
	key := "X-Api-Key: " + secret + "\r\n"
	for name, test := range map[string]struct {
		head   string // request line and headers, up to the body
		status int
	}{
		"too large":                    {"/v1/x HTTP/1.1\r\n" + key + lengthHeader, 413},
		"too large, chunked":           {fmt.Sprintf("/v1/reads HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n", key, size), 413},
		"no key":                       {"/v1/x HTTP/1.1\r\n" + lengthHeader, 413},
		"unknown key, chunked":         {fmt.Sprintf("/v1/x HTTP/1.1\r\nX-Api-Key: sk\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", size), 401},
		"body not read by the handler": {fmt.Sprintf("/v1/x HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n", key, size), 418},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, s)
			request, headers, _ := strings.Cut(test.head, "\r\n")
			fmt.Fprintf(conn, "POST %s\r\nHost: localhost\r\nContent-Type: application/json\r\n%s", request, headers)
			piece := []byte(strings.Repeat("x", 64<<10))
			for range size / len(piece) {
				if _, err := conn.Write(piece); err != nil {
					t.Fatalf("cannot send the body: %v", err)
				}
			}
			if strings.Contains(headers, "chunked") {
				fmt.Fprint(conn, "\r\n0\r\n\r\n")
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != test.status {
				t.Errorf("ReadResponse() = %+v, %v, want status %d", resp, err, test.status)
			}
		})
	}
}

// TestMissingBody checks that a client that announces a body and sends none receives the
// response, and that the connection is closed after the idle time of draining.
func TestMissingBody(t *testing.T) {
	t.Parallel()
	s := newGuardedServer(t, access.Options{Addr: ":8080", DrainTimeout: 300 * time.Millisecond})
	for _, length := range []string{"Content-Length: 100", "Content-Length: 999999", "Transfer-Encoding: chunked"} {
		conn := dial(t, s)
		fmt.Fprintf(conn, "POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n", length)
		response, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(response), "403 Forbidden") {
			t.Errorf("%s: response = %q, %v, want 403", length, response, err)
		}
	}
}

// TestIncompleteBody checks that the server does not wait for the rest of a body that the
// handler has stopped reading.
func TestIncompleteBody(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(access.Guard(access.Options{Addr: "localhost:80"})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := io.Copy(io.Discard, r.Body)
		_ = control.SetReadDeadline(time.Time{})
		http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
	})))
	t.Cleanup(s.Close)
	conn := dial(t, s)
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	if response, err := io.ReadAll(conn); err != nil || !strings.Contains(string(response), "400 Bad Request") {
		t.Errorf("response to an incomplete body = %q, %v, want 400", response, err)
	}
}

// TestSlowBody checks that the connection of a client that sends its body very slowly is
// closed.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	s := newGuardedServer(t, access.Options{Addr: ":8080", DrainTimeout: 300 * time.Millisecond})
	conn := dial(t, s)
	fmt.Fprint(conn, "POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := conn.Write([]byte("x")); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the server still reads the body after a minute, want the connection closed")
		} else if err != nil {
			return
		}
	}
}

// TestExpectContinue checks that a client that waits for 100 Continue receives the denial
// instead.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s := newGuardedServer(t, access.Options{MaxBody: 100})
	conn := dial(t, s)
	fmt.Fprint(conn, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
	response, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(response), "HTTP/1.1 413 ") {
		t.Errorf("response to Expect: 100-continue = %q, %v, want 413", response, err)
	}
}
