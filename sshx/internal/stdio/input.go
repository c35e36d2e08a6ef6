package stdio

import (
	"io"
	"strings"
)

// ErrReader records the error of the underlying reader.
type ErrReader struct {
	r   io.Reader
	err error
}

// NewErrReader returns an ErrReader that reads from r.
func NewErrReader(r io.Reader) *ErrReader { return &ErrReader{r: r} }

// Err returns the read error other than io.EOF, or nil.
func (e *ErrReader) Err() error { return e.err }

func (e *ErrReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// OpenReader reads a text. After the end of the text, reads block until Close is called.
type OpenReader struct {
	text   *strings.Reader
	closed chan struct{}
}

// NewOpenReader returns an OpenReader that reads text.
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

// Close makes blocked and future reads return io.EOF. It must be called only once.
func (o *OpenReader) Close() error {
	close(o.closed)
	return nil
}
