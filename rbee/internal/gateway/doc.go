// Package gateway serves OpenAI's API at one address. It forwards each request to a
// worker that serves the requested model.
//
//	GET  /v1/models                 list of models
//	GET  /v1/models/{id}            one model; the ID may contain slashes
//	POST /v1/chat/completions       JSON, may stream
//	POST /v1/completions            JSON, may stream
//	POST /v1/responses              JSON, may stream
//	POST /v1/embeddings             JSON
//	POST /v1/rerank                 JSON
//	POST /v1/images/generations     JSON
//	POST /v1/audio/speech           JSON
//	POST /v1/audio/transcriptions   multipart form
//	POST /v1/audio/translations     multipart form
//
// A [Router] selects the worker and lists the models. Errors of the gateway itself have
// OpenAI's format: {"error":{"message","type","param","code"}}.
//
// # Request and response bodies
//
// The gateway interprets as little as possible, so that clients can use all features of
// engines. It reads a request body into memory and locates the value of "model" without
// decoding the rest. It forwards the body unchanged, except that it
// replaces the name of the model if the worker uses another one ([Backend].Name). It
// forwards the response as it arrives, and flushes each piece of a stream.
//
// [Options].MaxBodyMemory limits the total size of the request bodies in memory. A body
// is released when the response to it starts.
//
// Headers are forwarded too, without hop-by-hop headers and without the credentials of
// the client: Authorization, X-Api-Key, Cookie. Every request has an ID in X-Request-Id,
// which the client may set. Worker and client receive the same ID.
//
// # Worker failures
//
// Before the first byte of the response, the gateway retries a failed request on another
// worker. A request fails if the worker cannot be reached, if the connection breaks
// before the first byte, if the worker responds with 502, 503 or 504, or if a hive
// reports with X-Rbee-Error that it does not run the worker. After three workers the
// client receives an error. All other responses of the engine are forwarded, including
// errors. A kept-alive connection that turns out to be closed does not count as a
// failure: the gateway tries the same worker once more on a new connection.
//
// After the first byte the gateway does not retry, because the response would mix the
// output of two workers. A broken event stream ends with an event that contains an error, and
// without "[DONE]". For any other broken response the gateway closes the connection, so
// that the client detects the truncation.
//
// # Client failures
//
// When a client disconnects, its request to the worker is canceled. The gateway
// disconnects a client that neither reads nor sends for [Options].WriteTimeout, and one
// that sends its body at less than 16 KiB per second. All of these have the status 499
// in the [Sample].
//
// # Error details
//
// The reason why no worker is available can contain names and addresses of machines. It
// is stored in [APIError].Detail, which is logged, and returned only to clients for which
// [Options].ShowDetail returns true.
//
// # Conversation affinity
//
// Engines cache the state of the beginning of a conversation. [RouteRequest].Affinity is a hash
// of all messages up to the user's first message, which later requests of the same
// conversation repeat. The hash is stable across restarts.
//
// # Authentication
//
// The handler does not authenticate clients: wrap it in a handler that does. That handler
// must also drain the body of a rejected request. Set the time limits for headers, and for
// bodies of rejected requests, in the [net/http.Server].
package gateway
