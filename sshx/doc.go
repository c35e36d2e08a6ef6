// Package sshx is an SSH client for programs that manage machines. It connects like the user's own ssh, and runs
// commands, scripts and uploads. An interrupted upload does not leave a partial file.
//
// # Connecting
//
// A [Dialer] connects to a [Target] and returns a [Client]. It reads ssh_config (including Include, Match, ProxyJump and
// ProxyCommand), offers keys in the same order as ssh, and verifies host keys against known_hosts. It prompts the user only
// if it has a [Prompter]. The zero value is ready to use. Use one Dialer for many hosts: it reads each file once, asks for
// each passphrase or password once, connects to each jump host once, and limits the number of concurrent handshakes.
//
// The Dialer differs from OpenSSH in these points: StrictHostKeyChecking=no accepts new hosts but never a changed key. If a
// host is known by one key type and presents another type, its key counts as changed. A Match block with an unsupported
// criterion never applies. ControlMaster is not supported.
//
// The supported Match criteria are all, host, originalhost, user, localuser, tagged, exec and final. A block with another
// criterion, such as canonical or localnetwork, is ignored; the rest of the file still applies. Package sshconfig
// implements the resolution and can be used without this package. [Dialer.Resolve] returns its result.
//
// # Running commands
//
// [Client] and [Local] have the same five methods, so a program can use one interface for remote hosts and for the local
// machine:
//
//   - Run runs a program with arguments, quoted by [Quote].
//   - Script runs a shell script, sent over standard input. The script is terminated when the connection ends.
//   - Put writes a file. It sends the content compressed, verifies its SHA-256 and renames it into place.
//   - Dial connects to a port as seen from the host.
//   - Close closes the connection.
//
// Each command uses one exec request. Output of the start-up files of the login shell is removed from standard output. The
// login shell can be a POSIX shell, fish or csh.
//
// # Errors
//
// All errors are [*Error] values with a [Reason], except the exit status of a command, which is an [*ExitError].
//
// # Cost
//
// A connection takes 8 round trips and 2 ms of CPU on the client. Each command takes 2 more round trips. On Linux, the
// package sets TCP_QUICKACK, which avoids a delay of 40 ms per login from sshd's Nagle algorithm and delayed
// acknowledgments.
package sshx
