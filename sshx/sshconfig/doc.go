// Package sshconfig resolves ssh_config(5): for a host, it returns as a value what `ssh -G` prints as text.
//
// [Load] reads the user's files, with Include. [Config.Resolve] applies Host and Match blocks, expands tokens, ~ and
// environment variables, fills in OpenSSH's defaults, and follows ProxyJump to the list of hops. [Config.Hosts] lists the
// names that a file defines, for completion or for a first configuration.
//
// Only the keywords that [Settings] has fields for are read; all others are ignored. Differences to OpenSSH, on purpose:
// StrictHostKeyChecking=no is resolved to accept-new, and a Match block with a criterion that is not known here, such as
// canonical or localnetwork, never applies, while the rest of the file stays in force.
//
// A file is lexed by github.com/kevinburke/ssh_config; blocks, patterns and tokens are evaluated here, as that package
// rejects a complete file for one Match criterion that it does not know.
package sshconfig
