package fetch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

// journal is the record of which bytes of a part are in its file. It only grows:
//
//	rbee-part 1 <size> <bytes of a chunk> <boot of the machine>
//	<chunk> <bytes of it that are there>
//	mark
//	sync
//
// A line is written after the bytes it speaks of are in the file. "mark" is where
// the file begins to be brought to disk, and "sync" says that it is, up to the
// mark: after the machine's end only that counts. A last line that is torn counts
// for nothing. Its methods may be called from several goroutines.
type journal struct {
	mu   sync.Mutex
	file *os.File
	err  error // of a write that failed: what would follow half a line could be misread
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

// readJournal reads what is there of a file of this size, and what of it is on
// disk for sure, which in another boot of the machine is the same; boot names this one. A journal of
// another file, or none, is fs.ErrNotExist.
func readJournal(path string, size int64, boot string) (have, sure *chunks, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	header, err := lines.ReadString('\n')
	if err != nil {
		return nil, nil, fs.ErrNotExist
	}
	var version int
	var had, length int64
	var madeIn string
	if n, _ := fmt.Sscanf(header, "rbee-part %d %d %d %s", &version, &had, &length, &madeIn); n < 3 || version != 1 || had != size || length < 1 {
		return nil, nil, fs.ErrNotExist
	}
	if size/length > 1<<24 {
		return nil, nil, fs.ErrNotExist
	}
	have, marked, sure := newChunks(size, length), newChunks(size, length), newChunks(size, length)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // the end, or half a line
		}
		switch line = strings.TrimSuffix(line, "\n"); line {
		case "mark":
			copy(marked.done, have.done)
		case "sync":
			copy(sure.done, marked.done)
		default:
			have.read(line)
		}
	}
	if boot == "" || boot != madeIn {
		copy(have.done, sure.done)
	}
	return have, sure, nil
}

// read takes in a line of a journal about one chunk; another is passed over.
func (c *chunks) read(line string) {
	number, bytes, ok := strings.Cut(line, " ")
	i, err1 := strconv.Atoi(number)
	n, err2 := strconv.ParseInt(bytes, 10, 64)
	if !ok || errors.Join(err1, err2) != nil || i < 0 || i >= len(c.done) {
		return
	}
	if from, to := c.span(i); n >= 0 && n <= to-from {
		c.done[i] = n
	}
}

// openJournal begins a journal that says what is there, and what of it is on disk
// for sure. One that was there is whole until the new one is.
func openJournal(path string, have, sure *chunks, boot string) (*journal, error) {
	var err error
	if have.total() == 0 {
		// Nothing can be lost. The old one goes first, because somebody may still
		// be bringing an earlier download to disk, and note that in it.
		if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err == nil {
			err = os.WriteFile(path, journalText(have, sure, boot), 0o600)
		}
	} else {
		err = atomicfile.WriteData(path, journalText(have, sure, boot), 0o600)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &journal{file: f}, nil
}

// journalText is a journal's beginning.
func journalText(have, sure *chunks, boot string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "rbee-part 1 %d %d %s\n", have.size, have.length, boot)
	for i, n := range sure.done {
		if n > 0 {
			fmt.Fprintf(&b, "%d %d\n", i, n)
		}
	}
	b.WriteString("mark\nsync\n")
	for i, n := range have.done {
		if n != sure.done[i] {
			fmt.Fprintf(&b, "%d %d\n", i, n)
		}
	}
	return b.Bytes()
}

func (j *journal) write(line string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		_, j.err = j.file.WriteString(line)
	}
	return j.err
}

// note says that so many bytes of a chunk are in the file.
func (j *journal) note(chunk int, done int64) error {
	return j.write(fmt.Sprintf("%d %d\n", chunk, done))
}

// sync has the file brought to disk, and says that what was noted before is there.
// Others may note more meanwhile.
func (j *journal) sync(file func() error) error {
	if err := j.write("mark\n"); err != nil {
		return err
	}
	if err := file(); err != nil {
		return err
	}
	if err := j.write("sync\n"); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(j.file.Name()))
}

func (j *journal) close() { _ = j.file.Close() }
