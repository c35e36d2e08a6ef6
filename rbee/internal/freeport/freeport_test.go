package freeport_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
)

func TestFind(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 100 {
		port, err := freeport.Find(func(port int) bool { return seen[port] })
		if err != nil {
			t.Fatalf("Find() = %v, want a port", err)
		}
		if seen[port] || port < 1024 || port >= 32768 {
			t.Errorf("Find() = %d, want an unused port between 1024 and 32767", port)
		}
		seen[port] = true
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Errorf("Find() = %d, which is in use: %v", port, err)
			continue
		}
		t.Cleanup(func() { ln.Close() })
	}
	if port, err := freeport.Find(func(int) bool { return true }); err == nil {
		t.Errorf("Find() with all ports taken = %d, want an error", port)
	}
}
