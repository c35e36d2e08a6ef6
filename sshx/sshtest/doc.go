// Package sshtest starts temporary SSH hosts on the loopback interface, for tests and demonstrations.
//
// [New] starts a [Host] inside this process. It has a real shell with a separate home directory, and can simulate faults:
// closed connections, unresponsive hosts, latency and changed host keys. [OpenSSH] starts the sshd of this machine instead,
// so that the same tests can run with OpenSSH.
//
// Commands run as the current user on this machine. A host is not a sandbox.
package sshtest
