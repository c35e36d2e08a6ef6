// Package client does operations over HTTP: it is the client of a queen and of a hive, which serve the same API. [Client]
// is an [operations.Runner]; [Job] is what both sides say of an operation that runs. Streams of events are read with
// package sse.
package client
