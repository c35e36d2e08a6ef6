// Package hive documents the part of rbee that runs on a hive. It contains no code; its
// subpackages are:
//
//	home       paths, lock, log and settings in the rbee directory
//	installed  reads the installed components
//	control    finds, starts and stops the daemon
//	verify     runs verify commands
//	inspect    reads the state of the machine
//	install    applies the steps of a request
//	archive    unpacks archives
//	progress   reports the progress of a step
//	daemon     the daemon: an HTTP server
//	workers    manages worker processes
//	engine     starts and probes one worker process
//	models     downloads, lists and deletes models
//	machine    reports the hardware of the machine
//	proc       identifies and signals processes
//
// The client side is package pkgmgr. Package wire defines the protocol between them.
//
// # Files
//
// All files of rbee are in one directory:
//
//	bin/rbee, rbee.json                the rbee binary of the hive and its record
//	bin/rbee.prev, rbee.prev.json      the previous binary, which a rollback restores
//	workers/rbee-worker-<type>         link to <type>/<version>/entry
//	workers/<type>/<version>/          manifest.json, files.json, entry (a link), payload/
//	workers/<type>/<version>@2/        another build of the same version
//	workers/<type>/<version>/verified.json  the boot in which the verify command last passed
//	tools/<name>-<version>-<digest>/   programs that install and run workers, such as uv and Python
//	cache/uv/, cache/wheels/           unpacked wheels, which environments link to
//	run/                               token, settings.json, hive.json, hive.lock, supervisor.json
//	run/workers/<id>.json              record of a worker process
//	logs/hive.log, hive.log.1          output of the daemon, and the rotated log
//	logs/workers/<id>.log, <id>.log.1  output of a worker process
//	lock                               locked (flock) while a request is applied
//
// JSON files that rbee rewrites contain their schema; see package statefile. rbee never
// replaces a file that needs a newer rbee. The files.json lists have no schema, because they
// are written once, together with their manifest or record.
//
// # Atomic changes
//
// A new version is built next to the old one, on the same filesystem, and replaces it with
// one rename or one exchange. If the process is killed, either the old or the new version is
// installed completely. The next request removes leftover files. This is safe, because only
// the holder of the lock creates builds.
//
// # The daemon
//
// The daemon listens only on loopback. Clients authenticate with the token in run/token,
// which only the user can read. The daemon runs runtime operations as jobs (package jobs) on
// worker processes (package workers) and models (package models). It forwards requests below
// /v1/workers/{id}/proxy/ to the worker with this ID.
//
// Its record run/hive.json contains the PID, the start time of the process and the boot ID
// of the machine, so that rbee never signals another process that reuses the PID.
package hive
