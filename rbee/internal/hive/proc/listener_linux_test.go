package proc

import (
	"os"
	"path/filepath"
	"testing"
)

// TestListenerByTables holds that only what is known for sure is called known:
// that a process listens, or that none of those asked about does.
func TestListenerByTables(t *testing.T) {
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
	// 8000 is this user's, 8001 another's, 8002 both have, 8003 is a connection.
	write("net/tcp", `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 501 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 502 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 503 1 0000000000000000 100 0 0 10 0
   3: 0100007F:1F43 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 504 1 0000000000000000 100 0 0 10 0
`)
	write("net/tcp6", `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F42 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 505 1 0000000000000000 100 0 0 10 0
`)
	write("12/fd", "a directory that cannot be read")
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
		"one of them":                        {8000, []int{11, 10}, 10, true},
		"none of them":                       {8000, []int{11}, 0, true},
		"none of them, one has ended":        {8000, []int{11, 99}, 0, true},
		"one does not show its files":        {8000, []int{12, 11}, 0, false},
		"one of them, another shows nothing": {8000, []int{12, 10}, 10, true},
		"another user's":                     {8001, []int{10, 11}, 0, false},
		"both have it, and one of them":      {8002, []int{11}, 11, true},
		"both have it, and none of them":     {8002, []int{10}, 0, false},
		"a connection":                       {8003, []int{10, 11}, 0, false},
	} {
		if pid, known := listener(root, 1000, c.port, c.pids); pid != c.pid || known != c.known {
			t.Errorf("%s: %d, %t", name, pid, known)
		}
	}
}
