// Package origintest plays, for tests, the places that workers are installed from:
// a release API as GitHub's, a Python package index, and the programs that a
// Python environment takes.
//
// A [Server] answers on loopback. Releases and wheels are put into it, and its
// addresses go into [pkgmgr.Origins]:
//
//	s := origintest.New(t)
//	s.AddRelease("owner/name", origintest.Release{Tag: "v1", Assets: map[string][]byte{"x.tar.gz": data}})
//	origins := pkgmgr.Origins{GitHubAPI: s.API(), PythonIndex: s.Index()}
//
// [UV] stands for uv. A test binary becomes one: [Main] is called first in
// TestMain, and [Server.AddTools] puts releases of uv and of Python into the
// server whose programs run that binary.
//
// The shapes are those of https://docs.github.com/en/rest/releases/releases, PEP
// 691 (the index), PEP 427 (wheels), PEP 658 (their metadata) and PEP 751 (what uv
// writes).
package origintest
