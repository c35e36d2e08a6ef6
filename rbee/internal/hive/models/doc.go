// Package models manages the models of one machine: it downloads them from a model
// hub or a URL, lists them, and removes them.
//
// # Files
//
// Models are stored in the cache of the Hugging Face hub, in its layout
// (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so that
// rbee, engines and other tools find each other's downloads:
//
//	models--org--name/blobs/<etag>               content; the etag of a large file is its SHA-256
//	models--org--name/refs/<revision>            the commit of a revision
//	models--org--name/snapshots/<commit>/<path>  links to blobs
//
// rbee adds files that other tools ignore:
//
//	models--org--name/blobs/<etag>.rbee-part     a file during its download, with its final size
//	models--org--name/blobs/<etag>.rbee-journal  the byte ranges of the file that were received
//	models--org--name/.rbee/<id>.json            the plan of a download, until it is complete
//	.locks/models--org--name/rbee.lock           locked while the repository changes
//
// # Downloads
//
// Files are downloaded in chunks over several connections. The journal records
// received bytes after they are written. A download that is interrupted at any
// point, even by SIGKILL, can be resumed without loss. After a power failure it
// resumes from the last flush to disk: all bytes of a canceled download, otherwise
// all but about the last 128 MiB of each file. The checksum is computed while bytes
// arrive, and a file gets its final name only if the checksum is correct.
//
// The protocol of the hub is described in https://huggingface.co/docs/hub/api.
package models

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/operations"
)

// Store accesses the models of one machine. Set its fields before the first call. Its
// methods may be called concurrently, also by several processes with the same directory.
type Store struct {
	// Dir is the absolute path of the cache directory, which need not exist. Required.
	Dir string

	// Endpoint is the URL of the model hub; empty means [model.DefaultEndpoint].
	Endpoint string

	// Token is sent to the hub for repositories that require a token; empty sends none.
	Token operations.Secret

	// HTTP sends the requests; nil means a separate client that uses the proxies from
	// the environment.
	HTTP *http.Client

	// UserAgent is sent with every request; empty means "rbee".
	UserAgent string

	// Connections is the number of connections of a download; 0 means 8.
	Connections int

	// StallTimeout is the maximum time without data before a connection is closed and opened
	// again; 0 means 30 seconds.
	StallTimeout time.Duration

	chunk      int64         // bytes of a chunk; 0 means 16 MiB
	retryDelay time.Duration // before the first retry after a failure; 0 means 250 ms
}

// DefaultDir returns the cache directory of this machine: HF_HUB_CACHE, HF_HOME/hub,
// XDG_CACHE_HOME/huggingface/hub, or ~/.cache/huggingface/hub. env looks up environment
// variables like os.Getenv.
func DefaultDir(env func(string) string) (string, error) {
	if dir := env("HF_HUB_CACHE"); filepath.IsAbs(dir) {
		return filepath.Clean(dir), nil
	}
	home, err := hubHome(env)
	if err != nil {
		return "", err
	}
	return filepath.Join(home, "hub"), nil
}

// hubHome returns the directory of the hub's settings.
func hubHome(env func(string) string) (string, error) {
	switch {
	case filepath.IsAbs(env("HF_HOME")):
		return env("HF_HOME"), nil
	case filepath.IsAbs(env("XDG_CACHE_HOME")):
		return filepath.Join(env("XDG_CACHE_HOME"), "huggingface"), nil
	case filepath.IsAbs(env("HOME")):
		return filepath.Join(env("HOME"), ".cache", "huggingface"), nil
	}
	return "", errors.New("cannot find the model directory: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME are not set to absolute paths")
}

// DefaultToken returns the user's token for the hub: HF_TOKEN, or the content of the file
// HF_TOKEN_PATH or HF_HOME/token. It returns "" if none of them exists.
func DefaultToken(env func(string) string) operations.Secret {
	if token := strings.TrimSpace(env("HF_TOKEN")); token != "" {
		return operations.Secret(token)
	}
	path := env("HF_TOKEN_PATH")
	if path == "" {
		home, err := hubHome(env)
		if err != nil {
			return ""
		}
		path = filepath.Join(home, "token")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return operations.Secret(strings.TrimSpace(string(data)))
}

func notFound(reason operations.Reason, model, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeNotFound, Reason: reason, Subject: operations.SubjectModel.WithName(model), Message: fmt.Sprintf(format, args...)}
}

func failure(reason operations.Reason, model string, err error, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectModel.WithName(model), Message: fmt.Sprintf(format, args...), Err: err}
}

// diskFree returns the free space in bytes for this user on the filesystem of path, which
// need not exist.
func diskFree(path string) (n int64, known bool) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == nil {
			return int64(st.Bavail) * int64(st.Bsize), true
		}
		parent := filepath.Dir(path)
		if parent == path || !errors.Is(err, fs.ErrNotExist) {
			return 0, false
		}
		path = parent
	}
}
