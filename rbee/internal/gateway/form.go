package gateway

import (
	"bufio"
	"bytes"
	"mime"
	"net/http"
	"net/textproto"
	"strings"
)

// readForm finds the model in a multipart form. It does not use [mime/multipart], which
// does not report the position of a value in the body.
func readForm(body []byte, contentType string) (*apiRequest, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return nil, apiErrorf(http.StatusBadRequest, "", "invalid content type %q: want multipart/form-data with a boundary", contentType)
	}
	r := &apiRequest{body: body, isForm: true}
	scanFields(body, params["boundary"], func(name string, v span) {
		switch name {
		case "model":
			r.modelValue = v
		case "stream":
			r.stream = strings.EqualFold(string(v.bytes(body)), "true")
		}
	})
	size := r.modelValue.to - r.modelValue.from
	if size == 0 {
		return nil, modelError("missing required parameter: model")
	}
	if err := checkModelLength(size); err != nil {
		return nil, err
	}
	r.model = string(r.modelValue.bytes(body))
	return r, nil
}

// scanFields calls each for the fields of a form that are not files. It stops at the
// first incomplete part.
func scanFields(body []byte, boundary string, each func(name string, v span)) {
	delimiter := []byte("\r\n--" + boundary)
	var end int // end of the last delimiter
	if bytes.HasPrefix(body, delimiter[2:]) {
		end = len(delimiter) - 2
	} else if n := nextDelimiter(body, 0, delimiter); n >= 0 {
		end = n + len(delimiter)
	} else {
		return
	}
	for !bytes.HasPrefix(body[end:], []byte("--")) {
		n := bytes.Index(body[end:], []byte("\r\n"))
		if n < 0 {
			return
		}
		part := span{from: end + n} // includes the line break of the delimiter, so that a part without a header matches too
		if part.to = nextDelimiter(body, part.from, delimiter); part.to < 0 {
			return
		}
		if name, v, ok := parseField(body, part); ok {
			each(name, v)
		}
		end = part.to + len(delimiter)
	}
}

// nextDelimiter returns the position of the next delimiter, or -1. It skips
// longer words that only start with the delimiter.
func nextDelimiter(body []byte, from int, delimiter []byte) int {
	for {
		n := bytes.Index(body[from:], delimiter)
		if n < 0 {
			return -1
		}
		from += n
		if end := from + len(delimiter); end == len(body) || strings.IndexByte("-\r \t", body[end]) >= 0 {
			return from
		}
		from++
	}
}

// parseField splits a part into header and content.
func parseField(body []byte, part span) (name string, v span, ok bool) {
	n := bytes.Index(part.bytes(body), []byte("\r\n\r\n"))
	if n < 0 {
		return "", span{}, false
	}
	v = span{part.from + n + 4, part.to}
	lines := bufio.NewReader(bytes.NewReader(body[part.from+2 : v.from]))
	header, err := textproto.NewReader(lines).ReadMIMEHeader()
	if err != nil {
		return "", span{}, false
	}
	kind, params, err := mime.ParseMediaType(header.Get("Content-Disposition"))
	_, isFile := params["filename"]
	return params["name"], v, err == nil && kind == "form-data" && !isFile
}
