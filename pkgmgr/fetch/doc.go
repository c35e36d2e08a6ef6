// Package fetch downloads files over HTTP, resumes interrupted downloads, and verifies
// every file by its checksum before it appears under its name.
//
// A [Client] knows the servers that rbee downloads from, their mirrors, and the
// credentials for them, which it sends to no other server. Its zero value has no
// credentials and uses [net/http.DefaultClient].
//
// There are two ways to download:
//
//   - [Client.Download] uses one connection and works with every server, also if nobody
//     knows the size of a file. What has arrived is stored in the file with [PartSuffix], from
//     its beginning. A download that is cut off is continued as long as that brings more.
//   - [Client.DownloadFiles] fetches large files of a known size in chunks, over several
//     connections. A journal records which bytes have arrived and which are on disk, so
//     that a download survives kill -9, and a loss of power but for the last 128 MiB or so. Failed
//     requests are repeated after a pause that doubles each time.
//
// A server that sends nothing for [Client.Stall] is given up. Errors have types: a
// [StatusError] is a refused request, [ErrNotFound] matches the one for a missing file, a
// [MismatchError] is wrong content, a [StallError] a silent server, and [IsDiskFull] tells
// a full disk from other failures.
package fetch
