// Package access decides who may speak to an rbee server over HTTP.
//
//	keys := access.OpenKeys(filepath.Join(dir, "keys.json"))
//	key, secret, err := keys.Add("laptop", access.ScopeInfer) // the secret is shown once
//	...
//	handler = access.Guard(access.Options{Keys: keys, Addr: addr, Scope: needed})(handler)
//
// # Two kinds of strangers
//
// One is somebody else on the network. Against those there are keys, and TLS so
// that nobody on the way reads them.
//
// The other is a web page that is open in the user's own browser. It can send
// requests to any server that the browser reaches, this machine's loopback too,
// where a server may ask for no key. [Guard] tells such requests by what a page
// cannot choose, and refuses them whether there are keys or not:
//
//   - Host. A name of the page's own that suddenly means 127.0.0.1 (DNS rebinding)
//     is none that a server on loopback goes by.
//   - Origin and Sec-Fetch-Site. The browser writes them, and they say which page
//     asks. Another page than this server's own must be named in [Options].Origins.
//     A link to "/" may be followed from anywhere.
//   - Content-Type. JSON from another page takes a preflight, which is answered for
//     named origins only. Forms take none and are understood by uploads alone, so
//     there Origin has to suffice.
//
// Programs that are no browsers send neither Origin nor Sec-Fetch-Site, and need
// only their key.
//
// Where no key is asked for, whoever is on this machine may do everything, and a page
// that was named may do what a key of [ScopeInfer] may: it was named to ask models,
// and there is no key to say that it may do more. A proxy on this machine makes
// everybody who reaches the proxy look like this machine, so a server that goes by
// further names asks for keys, also on loopback. [ScopeFrom] tells a handler what the
// one who asks may do.
//
// # Keys
//
// A [Key] has a name, an id and a [Scope]; its secret is "rbee_", the id, "_" and
// 256 random bits. A client sends it as "Authorization: Bearer SECRET" or as
// X-Api-Key. A page of the server's own may have it in a cookie, [Cookie], which
// counts only where the browser shows that no other page asks.
//
// The file holds the SHA-256 of each secret, plain: salt and slow hashes protect
// what can be guessed, and nobody guesses 256 bits. A file that cannot be
// understood lets nobody in.
//
// # Answers that arrive
//
// Many clients send all of a body before they look for an answer, and see nothing but
// a broken connection if the server closes it meanwhile. So [Guard] sends the answer
// at once and then takes the rest of a body that was refused, by itself or by the
// handler behind it, for [Options].Linger and 256 MiB at most. Handlers need not care.
//
// # Certificates
//
// [Certificate] makes a certificate that nobody signed, and its fingerprint.
// Whoever has that from a trustworthy place, such as a line over SSH, needs no
// authority: [PinnedClient] accepts this one certificate and no other.
// [LoadCertificate] reads one that was made elsewhere.
package access
