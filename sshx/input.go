package sshx

import (
	"io"
	"strings"
)

// errReader remembers why reading failed.
type errReader struct {
	r   io.Reader
	err error
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// openReader gives a text and then, instead of its end, nothing until it is closed.
type openReader struct {
	text   *strings.Reader
	closed chan struct{}
}

func newOpenReader(text string) *openReader {
	return &openReader{text: strings.NewReader(text), closed: make(chan struct{})}
}

func (o *openReader) Read(p []byte) (int, error) {
	if o.text.Len() > 0 {
		return o.text.Read(p)
	}
	<-o.closed
	return 0, io.EOF
}

// Close ends the text. It must be called once.
func (o *openReader) Close() error {
	close(o.closed)
	return nil
}
