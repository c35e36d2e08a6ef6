// Package client is an HTTP client for queens and hives, which serve the same API. [Client] is an [operations.Runner]. Each
// operation runs on the server as a [Job].
package client
