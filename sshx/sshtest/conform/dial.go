package conform

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echoServer starts a server that sends received data back. It returns its address.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func testDial(t *testing.T, open Open) {
	m := open(t, Options{})
	address := echoServer(t)
	c, err := m.Host.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("read %q, error %v from the echo server, want %q", got, err, "hello")
	}
	// The connection is usable after a deadline.
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read() after the deadline returned %v, want %v", err, os.ErrDeadlineExceeded)
	}
	c.SetReadDeadline(time.Time{})
	io.WriteString(c, "again")
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "again" {
		t.Errorf("read %q, error %v from the echo server, want %q", got, err, "again")
	}
	c.Close()
	if _, err := c.Read(got); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read() after Close returned %v, want %v", err, net.ErrClosed)
	}
	if _, err := c.Write(got); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write() after Close returned %v, want %v", err, net.ErrClosed)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	_, err = m.Host.Dial(t.Context(), "tcp", closed)
	wantCode(t, "Dial() of a closed port", err, "refused")
}

func testHalfClose(t *testing.T, open Open) {
	m := open(t, Options{})
	c, err := m.Host.Dial(t.Context(), "tcp", echoServer(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data := pattern(5<<19 + 1)
	go func() {
		c.Write(data)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, error %v from the echo server, want the %d bytes sent", len(got), err, len(data))
	}
}
