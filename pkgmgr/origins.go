package pkgmgr

import (
	"cmp"
	"net/http"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/resolve"
)

// Origins are the places that versions and files of workers come from. The zero
// value means the public ones.
type Origins struct {
	// GitHubAPI is the base address of the release API; empty for that of
	// github.com. GitHubToken, if not empty, goes along with requests to it.
	GitHubAPI, GitHubToken string

	// ReleaseDownloads is the base address of a mirror of https://github.com. Files
	// whose address begins with that are fetched from there, here and on machines; the
	// lock keeps the original address. A user and a password in it stay on this machine,
	// which then sends the files to the others. Empty for no mirror.
	ReleaseDownloads string

	// PythonIndex is the base address of the package index; empty for that of
	// pypi.org.
	PythonIndex string

	// TorchIndex is the base address of a mirror of PyTorch's indexes: what is below
	// it is called after the backend, such as cu130. Empty for those of pytorch.org.
	TorchIndex string

	// HTTP makes the requests; nil is [http.DefaultClient].
	HTTP *http.Client
}

// client asks these places.
func (o Origins) client() *fetch.Client {
	return &fetch.Client{
		HTTP: o.HTTP, API: cmp.Or(o.GitHubAPI, fetch.PublicGitHubAPI), Token: o.GitHubToken, Index: cmp.Or(o.PythonIndex, resolve.PublicPythonIndex), Torch: o.TorchIndex,
		Downloads: o.ReleaseDownloads,
	}
}
