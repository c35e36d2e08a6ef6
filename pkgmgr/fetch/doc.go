// Package fetch downloads files over HTTP, resumes interrupted downloads, and verifies the
// checksum of every file before the file appears at its path.
//
// A [Client] knows the servers that rbee downloads from, their mirrors, and the credentials
// for them. It sends the credentials of a server only to that server. The zero value has no
// credentials and uses [net/http.DefaultClient].
//
// There are two ways to download:
//
//   - [Client.Download] uses one connection. It works with every server and does not need
//     the size of the file. It stores the received data in a file with the suffix
//     [PartSuffix]. It resumes an interrupted download as long as each request returns more
//     data.
//   - [Client.DownloadFiles] fetches large files of known size in chunks, over several
//     connections. A journal records which bytes have been received and which have been
//     synced to disk: a killed process loses no data, and a power failure loses about the
//     last 128 MiB. Failed requests are repeated with exponential backoff.
//
// A request fails if the server sends no data for [Client.Stall]. A [StatusError] reports an
// error status, a [MismatchError] reports wrong content, and a [StallError] reports a server
// that sends no data. Errors about missing files match [ErrNotFound]. [IsDiskFull] reports
// whether a full disk caused an error.
package fetch
