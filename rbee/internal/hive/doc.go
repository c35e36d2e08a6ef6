// Package hive holds the documentation of this machine's side of rbee, and nothing
// else. The packages below it do the work:
//
//	home       rbee's directory: paths, lock, log, settings
//	installed  reads what is installed; changes nothing
//	control    finds, starts and stops the daemon
//	verify     runs verify commands
//	inspect    reads the state of the machine
//	install    applies the steps of a request
//	archive    unpacks archives
//	progress   reports how far a step is
//	daemon     the daemon: an HTTP server
//	workers    the worker processes; engine starts and probes one
//	models, machine, proc
//
// The other side is package pkgmgr; between them lies package wire.
//
// # Files
//
// Everything of rbee lies in one directory:
//
//	bin/rbee, rbee.json                the hive's own rbee and its record
//	bin/rbee.prev, rbee.prev.json      the previous one, which a rollback restores
//	workers/rbee-worker-<type>         link to <type>/<version>/entry
//	workers/<type>/<version>/          manifest.json, files.json, entry (a link), payload/
//	workers/<type>/<version>@2/        other content of it, that came while the one before was there
//	workers/<type>/<version>/verified.json  in which boot the verify command passed last
//	tools/<name>-<version>-<digest>/   what workers are installed and run with
//	cache/uv/, cache/wheels/           unpacked wheels, which environments are linked from
//	run/                               token, settings.json, hive.json, hive.lock, supervisor.json
//	run/workers/<id>.json              the record of a worker process
//	logs/hive.log, hive.log.1          the daemon's output, and what it was before the last rotation
//	logs/workers/<id>.log, <id>.log.1  what a worker process wrote
//	lock                               held with flock while a request is applied
//
// JSON files that are rewritten carry their schema, see package statefile; a file of a
// newer rbee that this one cannot read is never replaced. The lists files.json have none:
// they are written once, with the manifest or record beside them.
//
// # Whole or not at all
//
// A new thing is built beside the old one, on the same filesystem, and takes its
// place with one rename or one exchange. A process that is killed at any point
// leaves the old or the new; what it left beside them is removed by the next
// request, which is safe because only the holder of the lock builds anything.
//
// # The daemon
//
// It listens on loopback alone and wants the token in run/token, which only the
// machine's user can read. It does runtime operations as jobs (package jobs):
// worker processes (package workers), models (package models). What it is asked
// for below /v1/workers/{id}/proxy/ goes to that worker.
//
// Its record in run/hive.json holds its pid together
// with the start time of that process and the boot of the machine, so a pid that
// now belongs to somebody else is never signaled.
package hive
