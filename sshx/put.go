package sshx

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // the script
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"github.com/rbee-keeper/rbee/sshx/internal/stdio"
)

//go:embed put.sh
var putSource string

// putChecksumStatus is the exit status of put.sh for a wrong sum.
const putChecksumStatus = 65

// Put writes a file on the host, in one exec. gz is the content compressed with gzip, sum the SHA-256 of the uncompressed
// content, and mode the permissions. A relative path, or one that begins with ~/, starts in the home directory; missing
// folders are made (0700). Memory use does not depend on the size.
//
// The content goes to a temporary file in the same folder, is verified, and only then renamed: path is the old file or
// the new one, whole, whatever happens, and a program that runs from the old file goes on. A symbolic link at path is
// replaced. A wrong sum gives an error that wraps [ErrChecksum]; other errors carry the words of the host's tools, such
// as "No space left on device".
//
// Needed on the host: a POSIX shell, cat, mkdir, mv, rm, chmod. Without gzip the content travels uncompressed; without openssl,
// sha256sum, shasum and sha256 it is read back to be verified.
func (c *Client) Put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) error {
	target, temp, err := putPaths(path)
	if err != nil {
		return c.putError(path, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := newPutOutput()
	after := stdio.NewMarkFilter(out)
	cmd := command{
		op:     "put " + path,
		argv:   []string{"put " + path},
		line:   "sh -c '" + joinScript(putSource) + "' sh " + Quote(temp, target, putMode(mode), hex.EncodeToString(sum[:])),
		stdin:  &putInput{ctx: ctx, gz: gz, tool: out.tool},
		stdout: after,
	}
	s, err := c.startSession(ctx, cmd)
	if err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- s.wait(ctx) }()
	select {
	case err = <-exited:
		err = notStarted(err, after, cmd, c.target)
	case got := <-out.content:
		// The script waits for the verdict. It ends when it sees it, or when this session is given up.
		err = c.settle(ctx, got == sum, temp, target)
	}
	var exit *ExitError
	if errors.As(err, &exit) && exit.Status == putChecksumStatus {
		err = fmt.Errorf("%w: %s", ErrChecksum, lastLine(exit.Stderr))
	}
	if err != nil {
		return c.putError(path, err)
	}
	return nil
}

// settle ends a Put whose content was read back.
func (c *Client) settle(ctx context.Context, ok bool, temp, target string) error {
	if ok {
		return c.Run(ctx, []string{"mv", "-f", temp, target}, nil, nil, nil)
	}
	if err := c.Run(ctx, []string{"rm", "-f", temp}, nil, nil, nil); err != nil {
		return err
	}
	return ErrChecksum
}

func (c *Client) putError(path string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	var exit *ExitError
	if errors.As(err, &exit) && !errors.Is(err, ErrChecksum) {
		err = &toolError{exit}
	}
	return &Error{Op: "put " + path, Target: c.target, Reason: ReasonFailed, Err: err}
}

// toolError shows an ExitError as the words of the tool that failed.
type toolError struct{ exit *ExitError }

func (e *toolError) Error() string {
	if words := lastLine(e.exit.Stderr); words != "" {
		return words
	}
	return e.exit.Error()
}

// Unwrap returns the exit status and, if it is known, the error of the system that the
// tool reports, such as [syscall.ENOSPC].
func (e *toolError) Unwrap() []error {
	if errno := systemError(lastLine(e.exit.Stderr)); errno != 0 {
		return []error{e.exit, errno}
	}
	return []error{e.exit}
}

// systemError returns the error of the system that a line of a tool ends with, as tools
// report it: "cat: write error: No space left on device". It returns 0 for any other line.
func systemError(line string) syscall.Errno {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES} {
		if strings.HasSuffix(strings.ToLower(line), errno.Error()) {
			return errno
		}
	}
	return 0
}

// putPaths gives the path for the shell, which always has a / in it and begins with no -, and the temporary file beside it.
func putPaths(path string) (target, temp string, err error) {
	path = strings.TrimPrefix(path, "~/")
	if !strings.HasPrefix(path, "/") {
		path = "./" + path
	}
	slash := strings.LastIndexByte(path, '/')
	dir, base := path[:slash+1], path[slash+1:]
	if base == "" || base == "." || base == ".." {
		return "", "", fmt.Errorf("%q names no file", path)
	}
	if strings.ContainsRune(path, 0) {
		return "", "", errNUL
	}
	random := make([]byte, 8)
	rand.Read(random)
	const room = 200 // of the 255 bytes that a file name may have
	return path, dir + "." + base[:min(len(base), room)] + "." + hex.EncodeToString(random) + ".tmp", nil
}

func putMode(mode fs.FileMode) string { return fmt.Sprintf("%04o", mode.Perm()) }

// putInput is what goes to the script: it waits for the word on gzip and then gives gz as it is, or decompressed.
type putInput struct {
	ctx  context.Context
	gz   io.Reader
	tool <-chan string
	src  io.Reader
}

func (p *putInput) Read(b []byte) (int, error) {
	if p.src == nil {
		select {
		case tool := <-p.tool:
			p.src = p.gz
			if tool != "gzip" {
				plain, err := gzip.NewReader(p.gz)
				if err != nil {
					return 0, err
				}
				p.src = plain
			}
		case <-p.ctx.Done():
			return 0, p.ctx.Err()
		}
	}
	return p.src.Read(b)
}

// putOutput reads what the script says: a line with the tool; then, only when it sends the content back, a line with its
// size, and the content.
type putOutput struct {
	tool    chan string   // takes the tool
	content chan [32]byte // takes the SHA-256 of what came back

	line  []byte
	lines int
	left  int64
	sum   hash.Hash
}

// putLineLimit bounds the script's lines, which are a word or a number.
const putLineLimit = 64

func newPutOutput() *putOutput {
	return &putOutput{tool: make(chan string, 1), content: make(chan [32]byte, 1), sum: sha256.New()}
}

func (o *putOutput) Write(p []byte) (int, error) {
	n := len(p)
	for o.lines < 2 {
		head, rest, ok := bytes.Cut(p, []byte("\n"))
		if o.line = append(o.line, head...); len(o.line) > putLineLimit {
			return 0, errors.New("the host answered something unexpected")
		}
		if !ok {
			return n, nil
		}
		word := string(bytes.TrimSpace(o.line))
		o.line, p = nil, rest
		if o.lines++; o.lines == 1 {
			o.tool <- word
			continue
		}
		size, err := strconv.ParseInt(word, 10, 64)
		if err != nil || size < 0 {
			return 0, errors.New("the host answered something unexpected")
		}
		o.left = size
		if size == 0 {
			o.finish()
		}
	}
	if o.left > 0 {
		part := p[:min(int64(len(p)), o.left)]
		o.sum.Write(part)
		if o.left -= int64(len(part)); o.left == 0 {
			o.finish()
		}
	}
	return n, nil
}

func (o *putOutput) finish() { o.content <- [32]byte(o.sum.Sum(nil)) }
