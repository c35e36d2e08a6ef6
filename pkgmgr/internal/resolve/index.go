package resolve

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/wheel"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

// index is a client of a Python package index that responds with JSON (PEP 691) or HTML (PEP
// 503):
// https://packaging.python.org/en/latest/specifications/simple-repository-api/
type index struct {
	client *fetch.Client // its Index is the URL of the index, such as https://pypi.org/simple
}

// project describes a package: the files that its index page lists.
type project struct {
	files []projectFile
}

// projectFile is a file of a package.
type projectFile struct {
	name     string
	uploaded time.Time // zero if the index does not record the time
	yanked   bool
}

// acceptedTypes is the value of the Accept header in requests to an index.
const acceptedTypes = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"

// project fetches the page of a package. The error is [fetch.ErrNotFound] if the index does
// not contain the package.
func (x *index) project(ctx context.Context, name string) (*project, error) {
	address := strings.TrimSuffix(x.client.Index, "/") + "/" + wheel.NormalizeName(name) + "/"
	p := &project{}
	err := x.client.GetOK(ctx, address, http.Header{"Accept": {acceptedTypes}}, func(resp *http.Response) (err error) {
		switch contentType := resp.Header.Get("Content-Type"); {
		case strings.Contains(contentType, "json"):
			p.files, err = parseJSONPage(resp)
		case strings.Contains(contentType, "html"):
			p.files, err = parseHTMLPage(io.LimitReader(resp.Body, fetch.MaxResponse))
		default:
			err = fmt.Errorf("invalid response of type %q: want a package index page as JSON (PEP 691) or HTML (PEP 503)", contentType)
		}
		return err
	})
	return p, err
}

// parseJSONPage parses the files of a JSON page.
func parseJSONPage(resp *http.Response) ([]projectFile, error) {
	var page struct {
		Files []struct {
			Filename string          `json:"filename"`
			Uploaded string          `json:"upload-time"` // since version 1.1 (PEP 700)
			Yanked   json.RawMessage `json:"yanked"`      // true, false or a reason
		} `json:"files"`
	}
	if err := fetch.DecodeJSON(resp, &page); err != nil {
		return nil, err
	}
	var files []projectFile
	for _, f := range page.Files {
		yanked := len(f.Yanked) > 0 && string(f.Yanked) != "false" && string(f.Yanked) != "null"
		uploaded, _ := time.Parse(time.RFC3339, f.Uploaded) // zero if missing
		files = append(files, projectFile{f.Filename, uploaded, yanked})
	}
	return files, nil
}

// parseHTMLPage parses the links of an HTML page, which has no upload times.
func parseHTMLPage(r io.Reader) ([]projectFile, error) {
	d := xml.NewDecoder(r)
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var files []projectFile
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot parse HTML page: %w", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok || !strings.EqualFold(start.Name.Local, "a") {
			continue
		}
		var f projectFile
		for _, attr := range start.Attr {
			switch strings.ToLower(attr.Name.Local) {
			case "href":
				if u, err := url.Parse(attr.Value); err == nil {
					f.name = path.Base(u.Path)
				}
			case "data-yanked":
				f.yanked = true
			}
		}
		if f.name != "" {
			files = append(files, f)
		}
	}
}

// versions returns the versions that have at least one wheel that is not yanked.
func (p *project) versions() []string {
	var versions []string
	for _, f := range p.files {
		w, ok := wheel.Parse(f.name)
		if ok && !f.yanked && version.Valid(w.Version) && !slices.Contains(versions, w.Version) {
			versions = append(versions, w.Version)
		}
	}
	return versions
}

// releaseTime returns the upload time of the first file of a version. It is zero if the index
// does not record the upload time of all files of the version.
func (p *project) releaseTime(exact string) (first time.Time) {
	for _, f := range p.files {
		if w, ok := wheel.Parse(f.name); !ok || version.Compare(w.Version, exact) != 0 {
			continue
		}
		if f.uploaded.IsZero() {
			return time.Time{}
		}
		if first.IsZero() || f.uploaded.Before(first) {
			first = f.uploaded
		}
	}
	return first
}

// hasUploadTimes reports whether the index records the upload time of all files.
func (p *project) hasUploadTimes() bool {
	return !slices.ContainsFunc(p.files, func(f projectFile) bool { return f.uploaded.IsZero() })
}
