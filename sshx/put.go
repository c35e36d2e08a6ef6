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

// putChecksumStatus is the exit status of put.sh for a checksum mismatch.
const putChecksumStatus = 65

// Put writes a file on the host, with one exec request. gz is the content compressed with gzip, sum is the SHA-256 of the
// uncompressed content, and mode is the permission bits. A relative path, or a path that starts with ~/, is relative to the
// home directory. Missing directories are created with mode 0700. Memory use does not depend on the size.
//
// Put writes the content to a temporary file in the same directory, verifies the checksum, and then renames the file.
// At any time, path is either the complete old file or the complete new file. A program that runs from the old file is not
// affected. A symbolic link at path is replaced. If the checksum does not match, the error wraps [ErrChecksum]. Other
// errors contain the message of the tool that failed on the host, such as "No space left on device".
//
// The host needs a POSIX shell, cat, mkdir, mv, rm and chmod. Without gzip, the content is sent uncompressed. Without
// openssl, sha256sum, shasum and sha256, the file is read back to verify it.
func (c *Client) Put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) error {
	target, temp, err := putPaths(path)
	if err != nil {
		return c.putError(path, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := newPutOutput()
	filter := stdio.NewMarkFilter(out)
	cmd := command{
		op:     "put " + path,
		argv:   []string{"put " + path},
		line:   "sh -c '" + joinScript(putSource) + "' sh " + Quote(temp, target, putMode(mode), hex.EncodeToString(sum[:])),
		stdin:  &putInput{ctx: ctx, gz: gz, tool: out.tool},
		stdout: filter,
	}
	s, err := c.startSession(ctx, cmd)
	if err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- s.wait(ctx) }()
	select {
	case err = <-exited:
		err = checkStarted(err, filter, cmd, c.target)
	case got := <-out.content:
		// The script waits until the temporary file is renamed or removed, or this session ends.
		err = c.finishPut(ctx, got == sum, temp, target)
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

// finishPut completes a Put whose content was read back. If the content is valid, finishPut renames the temporary file;
// otherwise, it removes the file.
func (c *Client) finishPut(ctx context.Context, valid bool, temp, target string) error {
	if valid {
		return c.Run(ctx, []string{"mv", "-f", temp, target}, nil, nil, nil)
	}
	if err := c.Run(ctx, []string{"rm", "-f", temp}, nil, nil, nil); err != nil {
		return err
	}
	return ErrChecksum
}

func (c *Client) putError(path string, err error) error {
	var sshErr *Error
	if errors.As(err, &sshErr) {
		return err
	}
	var exit *ExitError
	if errors.As(err, &exit) && !errors.Is(err, ErrChecksum) {
		err = &toolError{exit}
	}
	return &Error{Op: "put " + path, Target: c.target, Reason: ReasonFailed, Err: err}
}

// toolError wraps an ExitError. Its message is the message of the tool that failed.
type toolError struct{ exit *ExitError }

func (e *toolError) Error() string {
	if line := lastLine(e.exit.Stderr); line != "" {
		return line
	}
	return e.exit.Error()
}

// Unwrap returns the ExitError and, if known, the system error that the tool reports, such as [syscall.ENOSPC].
func (e *toolError) Unwrap() []error {
	if errno := systemError(lastLine(e.exit.Stderr)); errno != 0 {
		return []error{e.exit, errno}
	}
	return []error{e.exit}
}

// systemError returns the system error at the end of a tool's error message, such as "cat: write error: No space left on
// device". It returns 0 if it does not recognize one.
func systemError(line string) syscall.Errno {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES} {
		if strings.HasSuffix(strings.ToLower(line), errno.Error()) {
			return errno
		}
	}
	return 0
}

// putPaths returns the target path for the shell, which contains a slash and does not start with a dash, and the path of a
// temporary file in the same directory.
func putPaths(path string) (target, temp string, err error) {
	path = strings.TrimPrefix(path, "~/")
	if !strings.HasPrefix(path, "/") {
		path = "./" + path
	}
	slash := strings.LastIndexByte(path, '/')
	dir, base := path[:slash+1], path[slash+1:]
	if base == "" || base == "." || base == ".." {
		return "", "", fmt.Errorf("invalid path %q: want the path of a file", path)
	}
	if strings.ContainsRune(path, 0) {
		return "", "", errNUL
	}
	random := make([]byte, 8)
	rand.Read(random)
	const maxBase = 200 // the maximum length of a file name is 255 bytes
	return path, dir + "." + base[:min(len(base), maxBase)] + "." + hex.EncodeToString(random) + ".tmp", nil
}

func putMode(mode fs.FileMode) string { return fmt.Sprintf("%04o", mode.Perm()) }

// putInput is the standard input of the script. It waits until the script reports its tool, and then returns the content:
// compressed for gzip, and uncompressed otherwise.
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

// putOutput parses the output of the script: a line with the tool. If the script sends the content back, a line with the size
// and the content follow.
type putOutput struct {
	tool    chan string   // receives the tool
	content chan [32]byte // receives the SHA-256 of the content

	line      []byte
	lines     int
	remaining int64
	sum       hash.Hash
}

// putLineLimit limits the length of the script's output lines, which are a word or a number.
const putLineLimit = 64

var errUnexpectedOutput = errors.New("unexpected output of the host")

func newPutOutput() *putOutput {
	return &putOutput{tool: make(chan string, 1), content: make(chan [32]byte, 1), sum: sha256.New()}
}

func (o *putOutput) Write(p []byte) (int, error) {
	n := len(p)
	for o.lines < 2 {
		head, rest, ok := bytes.Cut(p, []byte("\n"))
		if o.line = append(o.line, head...); len(o.line) > putLineLimit {
			return 0, errUnexpectedOutput
		}
		if !ok {
			return n, nil
		}
		line := string(bytes.TrimSpace(o.line))
		o.line, p = nil, rest
		if o.lines++; o.lines == 1 {
			o.tool <- line
			continue
		}
		size, err := strconv.ParseInt(line, 10, 64)
		if err != nil || size < 0 {
			return 0, errUnexpectedOutput
		}
		o.remaining = size
		if size == 0 {
			o.finish()
		}
	}
	if o.remaining > 0 {
		part := p[:min(int64(len(p)), o.remaining)]
		o.sum.Write(part)
		if o.remaining -= int64(len(part)); o.remaining == 0 {
			o.finish()
		}
	}
	return n, nil
}

func (o *putOutput) finish() { o.content <- [32]byte(o.sum.Sum(nil)) }
