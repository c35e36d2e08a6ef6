package proc

import (
	"os"
	"path/filepath"
	"testing"
)

// TestListenerInProcFS checks that listener returns known = true only if procfs proves
// which of the given processes listens, or that none of them does.
func TestListenerInProcFS(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Port 8000 belongs to this user, 8001 to another user, 8002 to both; 8003 is a connection.
	write("net/tcp", `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 501 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 502 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 503 1 0000000000000000 100 0 0 10 0
   3: 0100007F:1F43 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 504 1 0000000000000000 100 0 0 10 0
`)
	write("net/tcp6", `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F42 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 505 1 0000000000000000 100 0 0 10 0
`)
	write("12/fd", "a file, so that reading the directory fails")
	for pid, socket := range map[string]string{"10": "socket:[501]", "11": "socket:[505]"} {
		dir := filepath.Join(root, pid, "fd")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(socket, filepath.Join(dir, "3")); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		port  int
		pids  []int
		pid   int
		known bool
	}{
		"listening process":                         {8000, []int{11, 10}, 10, true},
		"other process":                             {8000, []int{11}, 0, true},
		"other process and exited process":          {8000, []int{11, 99}, 0, true},
		"unreadable process and other process":      {8000, []int{12, 11}, 0, false},
		"unreadable process and listening process":  {8000, []int{12, 10}, 10, true},
		"port of another user":                      {8001, []int{10, 11}, 0, false},
		"port of two users, listening process":      {8002, []int{11}, 11, true},
		"port of two users, process not listening":  {8002, []int{10}, 0, false},
		"port of a connection that does not listen": {8003, []int{10, 11}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if pid, known := listener(root, 1000, c.port, c.pids); pid != c.pid || known != c.known {
				t.Errorf("listener(%d, %v) = %d, %t, want %d, %t", c.port, c.pids, pid, known, c.pid, c.known)
			}
		})
	}
}
