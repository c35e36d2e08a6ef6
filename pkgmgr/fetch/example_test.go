package fetch_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
)

// serve starts a server with one file, and returns the server and the checksum of the file.
func serve(content string) (server *httptest.Server, sum string) {
	digest := sha256.Sum256([]byte(content))
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/engine" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	})), hex.EncodeToString(digest[:])
}

// A file appears at its path once its checksum is verified.
func ExampleClient_Download() {
	server, sum := serve("honey")
	defer server.Close()
	dir, err := os.MkdirTemp("", "fetch")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	client := &fetch.Client{UserAgent: "example/1.0"}
	file := fetch.File{URL: server.URL + "/engine", Path: filepath.Join(dir, "engine"), Sum: sum, Size: 5, Mode: 0o755}
	if err := client.Download(context.Background(), file); err != nil {
		fmt.Println(err)
		return
	}
	content, err := os.ReadFile(file.Path)
	fmt.Println(string(content), err)

	file.URL, file.Path = server.URL+"/missing", filepath.Join(dir, "missing")
	err = client.Download(context.Background(), file)
	fmt.Println(errors.Is(err, fetch.ErrNotFound))
	// Output:
	// honey <nil>
	// true
}

// Large files are downloaded in chunks over several connections. The next call resumes an
// interrupted download.
func ExampleClient_DownloadFiles() {
	content := strings.Repeat("honey", 100)
	server, sum := serve(content)
	defer server.Close()
	dir, err := os.MkdirTemp("", "fetch")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	client := &fetch.Client{HTTP: fetch.NewHTTPClient()}
	files := []fetch.File{{
		Name: "engine", URL: server.URL + "/engine", Path: filepath.Join(dir, "engine"), Sum: sum, Size: int64(len(content)),
	}}
	if err := client.DownloadFiles(context.Background(), files, fetch.Options{Connections: 4, ChunkSize: 128}); err != nil {
		fmt.Println(err)
		return
	}
	got, err := fetch.Sum(context.Background(), files[0].Path)
	fmt.Println(got == sum, err)
	// Output: true <nil>
}
