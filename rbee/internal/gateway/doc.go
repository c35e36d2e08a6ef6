// Package gateway is the front of a fleet of workers: one address that speaks
// OpenAI's API and passes each request to a worker that serves its model.
//
//	GET  /v1/models                 the models there are
//	GET  /v1/models/{id}            one of them; an id may hold slashes
//	POST /v1/chat/completions       JSON, may stream
//	POST /v1/completions            JSON, may stream
//	POST /v1/responses              JSON, may stream
//	POST /v1/embeddings             JSON
//	POST /v1/rerank                 JSON
//	POST /v1/images/generations     JSON
//	POST /v1/audio/speech           JSON
//	POST /v1/audio/transcriptions   a form
//	POST /v1/audio/translations     a form
//
// Which worker that is, a [Fleet] says; which models there are, too. Errors of
// the gateway's own have OpenAI's shape: {"error":{"message","type","param","code"}}.
//
// # Byte for byte
//
// The gateway understands as little as it can, so engines may know more than it
// does. It reads a body into memory and finds the value of "model" in it without
// decoding the rest; what it sends on is what it was sent. The only change it
// ever makes is another name for the model, where a worker calls it otherwise
// ([Backend].Name). The answer is passed on as it comes, each piece at once if it
// is a stream.
//
// Bodies are the memory that a gateway takes: those of all requests together have a
// limit, [Options].MaxBodies, and each is let go of when its answer begins.
//
// Headers are passed on too, without those that concern one connection only and
// without those that let the client in here: Authorization, X-Api-Key, Cookie.
// Every request has an id in X-Request-Id, the client's or a new one; worker and
// client see the same.
//
// # When a worker fails
//
// Until the client has been sent the first byte, another worker can be asked
// instead, and is: when a worker cannot be reached, breaks off before its
// first byte, answers 502, 503 or 504, or a hive on the way says with X-Rbee-Error
// that the worker is not there. After three workers the client is told. All other
// answers, errors too, are the engine's own and the client's to see. A connection that
// was kept and turns out to be closed says nothing of its worker, which is asked once
// more before it counts as failed.
//
// Later it is too late: an answer must not have two authors. A stream of events
// then ends with an event that holds an error and without "[DONE]"; from any other
// answer the connection is cut, so that nobody takes a half for the whole.
//
// # When a client fails
//
// A client that leaves takes its request with it: the worker sees it canceled and
// can stop. One that stays but does not read, or send, is cut after
// [Options].WriteTimeout, and one whose body comes slower than 16 KiB a second, too.
// All have the status 499 in the [Sample].
//
// # What is told
//
// Why there is no worker may take many words, with the names and addresses of
// machines. Those go into [Refusal].Detail: to the log, and to those of whom
// [Options].MayKnow says so.
//
// # Staying close
//
// Engines keep what they computed for the beginning of a conversation. To let a
// fleet send a conversation where its beginning is, [Wish].Affinity is a hash of
// all up to the first message of the user, which each later request repeats. It is
// the same after a restart.
//
// # Guarding
//
// There is no authentication here: wrap the handler. What is left of a body that was
// refused is the wrapper's to take. Limits on the time to read a request's header, and
// the body of one that is refused unread, are the [net/http.Server]'s.
package gateway
