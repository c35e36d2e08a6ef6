// Package access authorizes HTTP requests to an rbee server.
//
//	keys := access.OpenKeys(filepath.Join(dir, "keys.json"))
//	key, secret, err := keys.Add("laptop", access.ScopeInfer) // the secret is returned only here
//	...
//	handler = access.Guard(access.Options{Keys: keys, Addr: addr, Scope: requiredScope})(handler)
//
// # Threats
//
// The first threat is an unauthenticated client on the network. API keys protect
// against it, and TLS keeps the keys secret in transit.
//
// The second threat is a web page in the user's own browser. A page can send requests
// to any server that the browser reaches, including this machine's loopback, where a
// server may require no key. [Guard] recognizes such requests by headers that a page
// cannot set, and denies them whether or not a key is required:
//
//   - Host. With DNS rebinding, a page makes its own host name resolve to 127.0.0.1.
//     A server on loopback accepts only its own names.
//   - Origin and Sec-Fetch-Site. The browser sets them to identify the page that sends
//     the request. A page of another origin must be listed in [Options].Origins. A link
//     to "/" may be followed from any page.
//   - Content-Type. JSON from another origin requires a preflight request, which
//     succeeds only for listed origins. Forms require none; they are accepted only for
//     uploads, where the check of Origin has to suffice.
//
// Clients other than browsers send neither Origin nor Sec-Fetch-Site and need only a key.
//
// If no key is required, every process on this machine has [ScopeAdmin], and a page of a
// listed origin has [ScopeInfer], which suffices to use models. Requests through a proxy on
// this machine appear to come from this machine. Therefore a server with additional host
// names requires keys, even on loopback. [ScopeFrom] returns the scope of a request.
//
// # Keys
//
// A [Key] has a name, an ID and a [Scope]. Its secret consists of "rbee_", the ID, "_"
// and 256 random bits. A client sends it as "Authorization: Bearer SECRET" or as
// X-Api-Key. A page of the server itself may use the cookie [Cookie]. The cookie is
// accepted only if the headers of the browser prove that no other page sent the request.
//
// The file contains the SHA-256 of each secret. Salt and slow hashes are unnecessary,
// because 256 random bits cannot be guessed. If the file is invalid, all requests that
// need a key are denied.
//
// # Request bodies
//
// Many clients send the complete body before they read the response. If the server
// closes the connection earlier, they report a broken connection instead of the
// response. Therefore [Guard] sends the response immediately and then reads and
// discards the rest of the body, for at most [Options].DrainTimeout and 256 MiB. This
// applies to denials of the guard and to responses of the handler.
//
// # Certificates
//
// [Certificate] creates a self-signed certificate and returns its fingerprint. A client
// that gets the fingerprint from a trusted source, such as an SSH connection, needs no
// certificate authority: [PinnedClient] accepts only this certificate.
// [LoadCertificate] loads a certificate from files.
package access
