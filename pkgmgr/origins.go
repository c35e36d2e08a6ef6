package pkgmgr

import (
	"cmp"
	"net/http"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/resolve"
)

// Origins are the sources of worker versions and files. The zero value means the public
// sources.
type Origins struct {
	// GitHubAPI is the base URL of the release API; empty means the API of github.com.
	// GitHubToken is sent with requests to this API; empty means no token.
	GitHubAPI, GitHubToken string

	// ReleaseDownloads is the base URL of a mirror of https://github.com; empty means
	// no mirror. This machine and the hives fetch files of github.com from the mirror;
	// the lockfile contains the original URLs. If the URL contains a user and a password,
	// hives do not receive them: this machine downloads the files and sends them to the
	// hives.
	ReleaseDownloads string

	// PythonIndex is the base URL of the package index; empty means pypi.org.
	PythonIndex string

	// TorchIndex is the base URL of a mirror of PyTorch's indexes, which has one
	// subdirectory per backend, such as cu130; empty means pytorch.org.
	TorchIndex string

	// HTTP sends the requests; nil means [http.DefaultClient].
	HTTP *http.Client
}

// client returns a client for these sources.
func (o Origins) client() *fetch.Client {
	return &fetch.Client{
		HTTP: o.HTTP, API: cmp.Or(o.GitHubAPI, fetch.PublicGitHubAPI), Token: o.GitHubToken, Index: cmp.Or(o.PythonIndex, resolve.PublicPythonIndex), Torch: o.TorchIndex,
		Downloads: o.ReleaseDownloads,
	}
}
