package models

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// journal is the record of which bytes of a part are in its file. It only grows:
//
//	rbee-part 1 <size> <bytes of a chunk> <boot of the machine>
//	<chunk> <bytes of it that are there>
//	sync
//
// A line is written after the bytes it speaks of are in the file, and "sync"
// after everything before it is on disk: after the machine's end only what stands
// before the last one counts. A last line that is torn counts for nothing.
type journal struct {
	file *os.File
}

// chunks are the bytes that are there of each chunk of a file.
type chunks struct {
	size, length int64 // of the file, of a chunk
	done         []int64
}

func newChunks(size, length int64) *chunks {
	return &chunks{size, length, make([]int64, (size+length-1)/length)}
}

// span is the place of a chunk.
func (c *chunks) span(i int) (from, to int64) {
	from = int64(i) * c.length
	return from, min(from+c.length, c.size)
}

func (c *chunks) whole(i int) bool {
	from, to := c.span(i)
	return c.done[i] == to-from
}

// missing lists the chunks that are not whole.
func (c *chunks) missing() (list []int) {
	for i := range c.done {
		if !c.whole(i) {
			list = append(list, i)
		}
	}
	return list
}

// total is how many bytes are there.
func (c *chunks) total() (n int64) {
	for _, d := range c.done {
		n += d
	}
	return n
}

// frontier is where the bytes end that are there without a gap.
func (c *chunks) frontier() int64 {
	for i := range c.done {
		if from, _ := c.span(i); !c.whole(i) {
			return from + c.done[i]
		}
	}
	return c.size
}

// boot names this boot of the machine; empty where it has no name, so that only
// what was surely on disk counts.
func boot() string {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return ""
	}
	return self.BootID
}

// readJournal reads what is there of a file of this size. A journal of another
// file, or none, is fs.ErrNotExist.
func readJournal(path string, size int64) (*chunks, error) {
	f, err := os.Open(path) //nolint:gosec // the store's own file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	header, err := lines.ReadString('\n')
	if err != nil {
		return nil, fs.ErrNotExist
	}
	var version int
	var had, length int64
	var madeIn string
	if n, _ := fmt.Sscanf(header, "rbee-part %d %d %d %s", &version, &had, &length, &madeIn); n < 3 || version != 1 || had != size || length < 1 {
		return nil, fs.ErrNotExist
	}
	if size/length > 1<<24 {
		return nil, fs.ErrNotExist
	}
	now, sure := newChunks(size, length), newChunks(size, length)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // the end, or half a line
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "sync" {
			copy(sure.done, now.done)
			continue
		}
		number, bytes, ok := strings.Cut(line, " ")
		i, err1 := strconv.Atoi(number)
		n, err2 := strconv.ParseInt(bytes, 10, 64)
		if !ok || errors.Join(err1, err2) != nil || i < 0 || i >= len(now.done) {
			continue
		}
		if from, to := now.span(i); n >= 0 && n <= to-from {
			now.done[i] = n
		}
	}
	if here := boot(); here == "" || here != madeIn {
		return sure, nil
	}
	return now, nil
}

// openJournal begins a journal that says what c says.
func openJournal(path string, c *chunks) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // the store's own file
	if err != nil {
		return nil, err
	}
	j := &journal{f}
	var b strings.Builder
	fmt.Fprintf(&b, "rbee-part 1 %d %d %s\n", c.size, c.length, boot())
	for i, n := range c.done {
		if n > 0 {
			fmt.Fprintf(&b, "%d %d\n", i, n)
		}
	}
	if _, err := f.WriteString(b.String()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) note(chunk int, done int64) error {
	_, err := fmt.Fprintf(j.file, "%d %d\n", chunk, done) // one write
	return err
}

// synced says that everything noted so far is on disk.
func (j *journal) synced() error {
	_, err := j.file.WriteString("sync\n")
	return err
}

func (j *journal) close() { _ = j.file.Close() }
