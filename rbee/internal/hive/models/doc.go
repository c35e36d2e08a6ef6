// Package models keeps the models of one machine: it fetches them from a model
// hub or an address, lists what is there, removes it, and estimates the memory
// that a model takes.
//
// # Where they lie
//
// In the cache of the Hugging Face hub, in its own layout
// (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so that
// every engine finds what rbee fetched, and rbee finds what other tools did:
//
//	models--org--name/blobs/<etag>               content; the etag of a large file is its SHA-256
//	models--org--name/refs/<revision>            the commit that a name stands for
//	models--org--name/snapshots/<commit>/<path>  links to blobs
//
// rbee's own beside them, which other tools pass over:
//
//	models--org--name/blobs/<etag>.rbee-part     a file that is being fetched, in its full length
//	models--org--name/blobs/<etag>.rbee-journal  which bytes of it are there
//	models--org--name/.rbee/<id>.json            what a download is about, until it is whole
//	.locks/models--org--name/rbee.lock           held while something there changes
//
// # Fetching
//
// Files are fetched in chunks over several connections. What has arrived is
// written down after it is in the file, so a download that is cut off at any
// moment, by kill -9 too, goes on where it was; after a loss of power it goes on
// from what was surely on disk: all of it if it was canceled before, else all but
// the last 128 MiB of each file or so. The checksum is computed while bytes arrive, and
// a file takes its name only when it is right.
//
// The hub's protocol is that of https://huggingface.co/docs/hub/api.
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

// Store is the models of one machine. Its fields are set before the first call;
// its methods may then be called from several goroutines, and from several
// processes for one directory.
type Store struct {
	// Dir is the cache's directory, an absolute path; it need not exist. Required.
	Dir string

	// Endpoint is the address of the model hub; empty is [model.DefaultEndpoint].
	Endpoint string

	// Token is for repositories that ask for one; empty sends none.
	Token operations.Secret

	// HTTP makes the connections; nil means a client of the store's own, which
	// takes proxies from the environment.
	HTTP *http.Client

	// UserAgent is sent with every request; empty is "rbee".
	UserAgent string

	// Parallel is how many connections a download uses; 0 means 8.
	Parallel int

	// Stall is how long a connection may give nothing before it is made anew; 0
	// means 30 seconds.
	Stall time.Duration

	chunk int64         // bytes of a chunk; 0 means 16 MiB
	pause time.Duration // before the first try after a failure; 0 means 250 ms
}

// DefaultDir is the cache's directory on this machine: HF_HUB_CACHE, HF_HOME/hub,
// XDG_CACHE_HOME/huggingface/hub, or ~/.cache/huggingface/hub. env is os.Getenv
// or the like.
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

func hubHome(env func(string) string) (string, error) {
	switch {
	case filepath.IsAbs(env("HF_HOME")):
		return env("HF_HOME"), nil
	case filepath.IsAbs(env("XDG_CACHE_HOME")):
		return filepath.Join(env("XDG_CACHE_HOME"), "huggingface"), nil
	case filepath.IsAbs(env("HOME")):
		return filepath.Join(env("HOME"), ".cache", "huggingface"), nil
	}
	return "", errors.New("neither HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME nor HOME names a directory")
}

// DefaultToken is the user's token for the hub: HF_TOKEN, or the content of
// HF_TOKEN_PATH or of HF_HOME/token; empty if there is none.
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
	return &operations.Error{Code: operations.CodeNotFound, Reason: reason, Subject: operations.SubjectModel.Named(model), Message: fmt.Sprintf(format, args...)}
}

func failure(reason operations.Reason, model string, err error, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectModel.Named(model), Message: fmt.Sprintf(format, args...), Err: err}
}

// diskFree is the space in bytes that this user can still fill at path, or where
// that would be made.
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
