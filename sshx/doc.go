// Package sshx is an SSH client for programs that manage machines. It connects like the user's own ssh, runs commands and
// scripts, and uploads files. Files are replaced atomically, so an interrupted upload does not leave a partial file.
//
// # Connecting
//
// A [Dialer] connects to a [Target] and returns a [Client]. It reads ssh_config (including Include, Match, ProxyJump and
// ProxyCommand), offers keys in the same order as ssh, and verifies host keys against known_hosts. It prompts the user only
// if it has a [Prompter]. The zero value is ready to use. Use one Dialer for many hosts: it reads each file once, asks for
// each passphrase or password once, connects to each jump host once, and limits the number of concurrent handshakes.
//
// The Dialer differs from OpenSSH in these points:
//
//   - StrictHostKeyChecking=no accepts the key of a new host, but never a changed key.
//   - If known_hosts has a key of a host and the host presents a key of another type, the key counts as changed.
//   - The supported Match criteria are all, host, originalhost, user, localuser, tagged, exec and final. A Match block with
//     another criterion, such as canonical or localnetwork, never applies; the rest of the file still applies.
//   - ControlMaster is not supported.
//
// Package sshconfig resolves the settings for a host and can be used without this package. [Dialer.Resolve] returns its
// result.
//
// # Running commands
//
// [Client] and [Local] share the following methods, so a program can use one interface for remote hosts and for the local
// machine:
//
//   - Run runs a program with arguments, quoted by [Quote].
//   - Script runs a shell script, sent over standard input. The script is terminated when the connection ends.
//   - Put writes a file. It sends the content compressed, verifies its SHA-256 and renames the file into place.
//   - Dial connects to a TCP port or a Unix socket from the host.
//   - Close closes the connection.
//
// Each command uses one exec request. If the start-up files of the login shell print text, it is removed from the standard
// output of the command. The login shell can be a POSIX shell, fish or csh.
//
// # Errors
//
// A command that does not exit with status 0 returns an [*ExitError]. All other errors are [*Error] values with a [Reason].
//
// # Cost
//
// A connection takes 8 round trips and 2 ms of CPU on the client. Run takes 2 more round trips; Script and Put take 3. On
// Linux, the package sets TCP_QUICKACK. Without it, each login would take 40 ms longer, because Nagle's algorithm in sshd
// waits for a delayed acknowledgment.
package sshx
