package gateway

import (
	"bufio"
	"bytes"
	"mime"
	"net/http"
	"net/textproto"
	"strings"
)

// readForm finds the model in a form. The standard library's reader of forms does
// not tell where in the body a value is, so the parts are found here.
func readForm(body []byte, contentType string) (*ask, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return nil, refusalf(http.StatusBadRequest, "", "the content type is %q, want multipart/form-data with a boundary", contentType)
	}
	a := &ask{body: body, form: true}
	fields(body, params["boundary"], func(name string, v value) {
		switch name {
		case "model":
			a.at = v
		case "stream":
			a.stream = strings.EqualFold(string(v.of(body)), "true")
		}
	})
	size := a.at.to - a.at.from
	if size == 0 {
		return nil, badModel("the form names no model")
	}
	if err := checkName(size); err != nil {
		return nil, err
	}
	a.model = string(a.at.of(body))
	return a, nil
}

// fields goes through the parts of a form that are no files. What follows a part
// that is not whole is not looked at.
func fields(body []byte, boundary string, each func(name string, v value)) {
	delimiter := []byte("\r\n--" + boundary)
	var end int // of the last delimiter
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
		part := value{from: end + n} // with the end of the delimiter's line, which may begin the empty line, too
		if part.to = nextDelimiter(body, part.from, delimiter); part.to < 0 {
			return
		}
		if name, v, ok := field(body, part); ok {
			each(name, v)
		}
		end = part.to + len(delimiter)
	}
}

// nextDelimiter finds the next delimiter, and not the beginning of a longer word.
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

// field takes a part apart: header, empty line, content.
func field(body []byte, part value) (name string, v value, ok bool) {
	n := bytes.Index(part.of(body), []byte("\r\n\r\n"))
	if n < 0 {
		return "", value{}, false
	}
	v = value{part.from + n + 4, part.to}
	lines := bufio.NewReader(bytes.NewReader(body[part.from+2 : v.from]))
	header, err := textproto.NewReader(lines).ReadMIMEHeader()
	if err != nil {
		return "", value{}, false
	}
	kind, params, err := mime.ParseMediaType(header.Get("Content-Disposition"))
	_, file := params["filename"]
	return params["name"], v, err == nil && kind == "form-data" && !file
}
