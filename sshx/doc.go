// Package sshx is SSH as a program needs it that manages machines: it connects the way the user's own ssh would, and runs
// commands, scripts and uploads so that a cut line leaves nothing half-done.
//
// # Connecting
//
// A [Dialer] turns a [Target] into a [Client]. It honors ssh_config (with Include, Match, ProxyJump and ProxyCommand), offers
// the keys that ssh would offer in the same order, verifies host keys against known_hosts, and asks through a [Prompter] only
// if it is given one. Its zero value is ready. Use one Dialer for many hosts: files are read once, a passphrase or
// password is asked for once, a jump host is connected to once, and handshakes are bounded.
//
// Differences to OpenSSH, on purpose: StrictHostKeyChecking=no accepts new hosts but never a changed key; a host that is
// known by one key type and shows another one counts as changed; a Match block with a criterion that is not known here
// never applies (see below); ControlMaster is not used.
//
// Match understands all, host, originalhost, user, localuser, tagged, exec and final. With any other criterion, such as
// canonical or localnetwork, the block is passed over and the rest of the file stays in force. Package sshconfig resolves
// the file and can be used alone; [Dialer.Resolve] returns its result.
//
// # Working
//
// [Client] and [Local] have the same five methods, so that a host and this machine can stand behind one interface:
//
//   - Run starts a program with arguments. They are quoted in one place, [Quote].
//   - Script sends a shell script over standard input. It ends with the connection.
//   - Put writes a file: compressed on the way, verified by SHA-256, renamed into place.
//   - Dial connects to a port on the far side.
//   - Close ends the connection.
//
// Every command costs one exec. What the start-up files of a login shell print is kept out of standard output, and a
// login shell such as fish or csh does no harm.
//
// # Errors
//
// Everything that goes wrong is an [*Error] with a [Reason], except a command's own exit status, which is an [*ExitError].
//
// # Cost
//
// A connection takes 8 round trips and 2 ms of CPU here; a command on it takes 2 more. On Linux, TCP_QUICKACK is kept set,
// which saves the 40 ms that sshd's Nagle algorithm and delayed acknowledgements otherwise cost every login.
package sshx
