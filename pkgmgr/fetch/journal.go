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

// journal records which bytes of a part have been written to its file. It is append-only:
//
//	rbee-part 1 <file size> <chunk size> <boot ID>
//	<chunk> <number of bytes of the chunk that have been written>
//	mark
//	sync
//
// A line is appended after its bytes have been written to the file. "mark" is appended before
// a sync of the file starts, and "sync" after it has succeeded: the bytes recorded before the
// mark are on disk. After a reboot, only these bytes are valid. An incomplete last line is
// ignored. A journal is safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	file *os.File
	err  error // of a failed write; a line after an incomplete one could be misread
}

// chunks contains the number of valid bytes of each chunk of a file.
type chunks struct {
	size, length int64   // sizes of the file and of a chunk
	done         []int64 // valid bytes at the start of each chunk
}

func newChunks(size, length int64) *chunks {
	return &chunks{size, length, make([]int64, (size+length-1)/length)}
}

// span returns the start and end offsets of a chunk in the file.
func (c *chunks) span(i int) (from, to int64) {
	from = int64(i) * c.length
	return from, min(from+c.length, c.size)
}

// isComplete reports whether all bytes of a chunk are valid.
func (c *chunks) isComplete(i int) bool {
	from, to := c.span(i)
	return c.done[i] == to-from
}

// missingChunks returns the indexes of the incomplete chunks.
func (c *chunks) missingChunks() (list []int) {
	for i := range c.done {
		if !c.isComplete(i) {
			list = append(list, i)
		}
	}
	return list
}

// total returns the number of valid bytes.
func (c *chunks) total() (n int64) {
	for _, d := range c.done {
		n += d
	}
	return n
}

// contiguous returns the number of valid bytes at the start of the file, before the first gap.
func (c *chunks) contiguous() int64 {
	for i := range c.done {
		if from, _ := c.span(i); !c.isComplete(i) {
			return from + c.done[i]
		}
	}
	return c.size
}

// readJournal returns the received and the synced bytes of a file of the given size. boot is
// the ID of the current boot; if the journal contains another boot ID, only the synced bytes
// count as received. If the journal does not exist, is invalid or belongs to a file of another
// size, the error is [fs.ErrNotExist].
func readJournal(path string, size int64, boot string) (received, synced *chunks, err error) {
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
	var journalSize, length int64
	var journalBoot string
	if n, _ := fmt.Sscanf(header, "rbee-part %d %d %d %s", &version, &journalSize, &length, &journalBoot); n < 3 || version != 1 || journalSize != size || length < 1 {
		return nil, nil, fs.ErrNotExist
	}
	if size/length > 1<<24 {
		return nil, nil, fs.ErrNotExist
	}
	received, marked, synced := newChunks(size, length), newChunks(size, length), newChunks(size, length)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // the end or an incomplete line
		}
		switch line = strings.TrimSuffix(line, "\n"); line {
		case "mark":
			copy(marked.done, received.done)
		case "sync":
			copy(synced.done, marked.done)
		default:
			received.parseLine(line)
		}
	}
	if boot == "" || boot != journalBoot {
		copy(received.done, synced.done)
	}
	return received, synced, nil
}

// parseLine applies a journal line about a chunk to c. It ignores invalid lines.
func (c *chunks) parseLine(line string) {
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

// openJournal creates a journal with the received and the synced bytes. It replaces an
// existing journal atomically.
func openJournal(path string, received, synced *chunks, boot string) (*journal, error) {
	var err error
	if received.total() == 0 {
		// No data can be lost. The old journal is removed first, because an earlier
		// download may still be syncing in the background and writing to it.
		if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err == nil {
			err = os.WriteFile(path, journalText(received, synced, boot), 0o600)
		}
	} else {
		err = atomicfile.WriteData(path, journalText(received, synced, boot), 0o600)
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

// journalText returns the initial content of a journal.
func journalText(received, synced *chunks, boot string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "rbee-part 1 %d %d %s\n", received.size, received.length, boot)
	for i, n := range synced.done {
		if n > 0 {
			fmt.Fprintf(&b, "%d %d\n", i, n)
		}
	}
	b.WriteString("mark\nsync\n")
	for i, n := range received.done {
		if n != synced.done[i] {
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

// record records that the first done bytes of a chunk have been written to the file.
func (j *journal) record(chunk int, done int64) error {
	return j.write(fmt.Sprintf("%d %d\n", chunk, done))
}

// sync calls syncFile and records that the bytes recorded before the call are on disk. More
// bytes can be recorded during the sync.
func (j *journal) sync(syncFile func() error) error {
	if err := j.write("mark\n"); err != nil {
		return err
	}
	if err := syncFile(); err != nil {
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
