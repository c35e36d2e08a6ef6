// Package origintest provides download origins of workers for tests: a release API like
// GitHub's, a Python package index, and the programs that create a Python environment.
//
// A [Server] listens on the loopback interface. Tests add releases and wheels to it and set
// its URLs in pkgmgr.Origins:
//
//	s := origintest.New(t)
//	s.AddRelease("owner/name", origintest.Release{Tag: "v1", Assets: map[string][]byte{"x.tar.gz": data}})
//	origins := pkgmgr.Origins{GitHubAPI: s.API(), PythonIndex: s.Index()}
//
// [UV] is a replacement for uv that runs in the test binary: TestMain calls [Main] first, and
// [Server.AddTools] adds releases of uv and Python whose programs run the test binary.
//
// The formats follow https://docs.github.com/en/rest/releases/releases, PEP 503 and PEP 691
// (package index), PEP 427 (wheels) and PEP 751 (lockfiles of uv).
package origintest
