// Package sshconfig reads ssh_config(5) files and returns the settings for a host, like `ssh -G`.
//
// [Load] reads the files of the user, including Include directives. [Config.Resolve] evaluates Host and Match blocks, expands
// tokens, ~ and environment variables, applies the defaults of OpenSSH, and resolves ProxyJump to a list of jump hosts.
// [Config.Hosts] lists the host names in the files, for example for shell completion.
//
// The package supports the keywords that have a field in [Settings] and ignores all others. It differs from OpenSSH in two
// points:
//
//   - StrictHostKeyChecking=no is resolved to accept-new.
//   - A Match block with an unsupported criterion, such as canonical or localnetwork, never applies; the rest of the file
//     still applies.
//
// The lexer is github.com/kevinburke/ssh_config. This package evaluates blocks, patterns and tokens itself, because that
// module rejects a file that contains an unknown Match criterion.
package sshconfig
