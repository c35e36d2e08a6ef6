// Package fetch downloads files over HTTP, resumes interrupted downloads, and verifies
// every file by its SHA-256 before it appears under its name.
//
// A [Client] knows the servers that rbee downloads from, their mirrors, and the
// credentials for them, which it sends to no other server. Its zero value has no
// credentials and uses [net/http.DefaultClient].
package fetch
