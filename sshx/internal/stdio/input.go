package stdio

import (
	"io"
	"strings"
)

// ErrReader remembers why reading failed.
type ErrReader struct {
	r   io.Reader
	err error
}

// NewErrReader returns a reader of r.
func NewErrReader(r io.Reader) *ErrReader { return &ErrReader{r: r} }

// Err returns the error, other than io.EOF, that ended reading.
func (e *ErrReader) Err() error { return e.err }

func (e *ErrReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// OpenReader gives a text and then, instead of its end, nothing until it is closed.
type OpenReader struct {
	text   *strings.Reader
	closed chan struct{}
}

// NewOpenReader returns a reader of text.
func NewOpenReader(text string) *OpenReader {
	return &OpenReader{text: strings.NewReader(text), closed: make(chan struct{})}
}

func (o *OpenReader) Read(p []byte) (int, error) {
	if o.text.Len() > 0 {
		return o.text.Read(p)
	}
	<-o.closed
	return 0, io.EOF
}

// Close ends the text. It must be called once.
func (o *OpenReader) Close() error {
	close(o.closed)
	return nil
}
