package sshx

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/sshx/internal/stdio"
)

// putScript receives a file. Its arguments are the temporary file, the target, the mode and the SHA-256. It says first
// whether there is gzip, then reads the content. Exit status 65 means that the sum is wrong. Where no tool can tell the
// sum, it sends the file back and waits for a while until somebody has renamed or removed it. The last rm is shielded from
// signals, which often come in pairs when a connection ends.
//
// openssl goes first because it is three times as fast as the others. There is no newline, no ! and no ' in it, because
// it stands in single quotes in a command line for any login shell.
const putScript = `t=$1; p=$2; m=$3; s=$4; umask 077; ` +
	`clean() { trap "" HUP INT PIPE TERM; rm -f "$t"; }; trap clean EXIT; trap "exit 1" HUP INT PIPE TERM; ` +
	`fail() { echo "$2" >&2; exit $1; }; ` +
	`z=cat; if command -v gzip >/dev/null 2>&1; then z=gzip; fi; ` +
	stdio.PrintMark + `; echo $z; ` +
	`if test -d "$p"; then fail 1 "$p: is a directory"; fi; ` +
	`mkdir -p "${p%/*}/" || exit 1; set -C; ` +
	`if test $z = gzip; then gzip -dc >"$t" || exit 1; else cat >"$t" || exit 1; fi; ` +
	`sum() { case $1 in openssl) openssl dgst -sha256 -r;; sha256sum) sha256sum;; shasum) shasum -a 256;; sha256) sha256 -q;; esac; }; ` +
	`a=; for h in openssl sha256sum shasum sha256; do ` +
	`if command -v $h >/dev/null 2>&1; then a=$(sum $h <"$t" 2>/dev/null); if test -n "$a"; then break; fi; fi; done; ` +
	`chmod "$m" "$t" || exit 1; ` +
	`if test -n "$a"; then ` +
	`case $a in "$s"*) mv -f "$t" "$p" || exit 1;; *) fail 65 "sha256 is ${a%% *}, not $s";; esac; exit 0; fi; ` +
	`set -- $(wc -c <"$t"); echo $1; cat "$t" || exit 1; ` +
	`i=0; while test -e "$t" && test $i -lt 30; do sleep 1; i=$((i+1)); done`

// putChecksumStatus is the exit status of putScript for a wrong sum.
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
		line:   "sh -c '" + putScript + "' sh " + Quote(temp, target, putMode(mode), hex.EncodeToString(sum[:])),
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

func (e *toolError) Unwrap() error { return e.exit }

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
