// Package wire defines the protocol between pkgmgr (the client) and the rbee on a machine
// (the server).
//
// # Transport
//
// The client runs a program on the machine, usually over SSH, and exchanges data through
// the program's standard streams. There are two programs:
//
//   - `rbee hive inspect [--devices] [--deep]` reads no input and writes one [State]. With
//     --devices, the State includes the accelerators. With --deep, the machine also verifies
//     the checksums of all installed files.
//   - `rbee hive apply` reads one [Request], changes the machine, writes any number of
//     [Message] values while it works, and writes a message with a [Result] last.
//
// rbee is installed at <home>/bin/rbee, where <home> is [State.Home]. If it is not
// installed, the shell script of package probe writes the State, with Schema 0.
//
// A hive daemon also serves the State as plain JSON at [StatePath], with GET. The query
// parameters "devices" and "deep" correspond to the flags above.
//
// # Records
//
// All output of the machine is a sequence of JSON records as in RFC 7464: a record is the
// byte 0x1E, one JSON value and a newline. A reader ignores all bytes between records, such
// as the output of a shell's startup files, and a record that is interrupted by another
// 0x1E. A record has at most 32 MiB. [Reader] and [Writer] implement this format.
//
// # Applying a request
//
// The client writes the Request to stdin as one line of JSON, at most 32 MiB long, without
// the byte 0x1E. It must keep stdin open: the end of stdin cancels the run. The machine then
// stops the current step, removes its temporary files, keeps the completed steps and exits.
//
// The machine checks the schema of the request, acquires its lock, stores the settings and runs
// the steps in order. Steps are identified by their index in [Request.Steps]. Each message
// has exactly one field:
//
//   - waiting: another run holds the lock. The machine waits for at most
//     [Request.LockWait].
//   - step: a step has started, or has finished if Done is set.
//   - progress: the progress of the current phase of a step; see [Progress].
//   - need: the machine requests an artifact; see below.
//   - result: the run is complete. No message follows.
//
// If a step fails, the machine continues with the next step, except after a failed
// [ActionInstallSelf]. The exit status is 0 if the machine has sent a Result and the run was
// not canceled, even if steps failed. If the machine does not understand the request, it
// sends a Result with Error and Cause and exits with another status.
//
// To install or update rbee, the client first uploads the binary to a file that matches
// [UploadGlob] and starts `hive apply` from that file. The first step of the request is
// [ActionInstallSelf], which moves the running program to bin/rbee. The uploaded file is
// removed when the program exits.
//
// # Artifacts
//
// The machine downloads each artifact that has a URL. It requests each other artifact, one
// at a time, with a need message that has the index of the step and the SHA-256 of the
// artifact; it does not request an artifact that it already has. The client responds on stdin
// with one blob:
//
//   - one byte: 0 for the content as it is, 1 for the content compressed with gzip,
//   - any number of chunks: the length in bytes (1 to 1 MiB) as an unsigned 32-bit integer
//     in big-endian byte order, then that many bytes,
//   - the length 0 (end of the blob), or 0xFFFFFFFF if the client cannot send the rest. In
//     the second case the step fails, and the machine continues with the next step.
//
// The first byte has no time limit. After that, the machine cancels the run if no byte arrives
// for 60 seconds. [SendBlob] and [BlobReader] implement this format.
//
// # Compatibility
//
// State and Request have the fields schema, the version of the protocol that the sender
// uses, and min_reader, the oldest version whose readers understand the value. Both sides
// ignore unknown fields. A side understands a value if schema is at least its own
// [MinReader] and min_reader is at most its own [Schema]. If the rbee on a machine is too old
// for the client's requests, the client first installs its own version there.
package wire
