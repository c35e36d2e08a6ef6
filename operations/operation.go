package operations

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee/operations/internal/strictjson"
)

// Kind identifies an operation on the wire, in snake_case.
type Kind string

// The kinds of operations. Package kinds change or report the installed state of
// hives. Hive kinds list hives, describe one hive, and start and stop its daemon. Worker
// and model kinds concern the worker processes and the models of a hive.
const (
	KindPackageSync         Kind = "package_sync"
	KindPackageStatus       Kind = "package_status"
	KindPackageInstall      Kind = "package_install"
	KindPackageUninstall    Kind = "package_uninstall"
	KindPackageValidate     Kind = "package_validate"
	KindPackageMigrate      Kind = "package_migrate"
	KindPackageRollback     Kind = "package_rollback"
	KindPackageBundle       Kind = "package_bundle"
	KindHiveStart           Kind = "hive_start"
	KindHiveStop            Kind = "hive_stop"
	KindHiveList            Kind = "hive_list"
	KindHiveGet             Kind = "hive_get"
	KindHiveStatus          Kind = "hive_status"
	KindHiveCapabilities    Kind = "hive_capabilities"
	KindWorkerSpawn         Kind = "worker_spawn"
	KindWorkerProcessList   Kind = "worker_process_list"
	KindWorkerProcessGet    Kind = "worker_process_get"
	KindWorkerProcessDelete Kind = "worker_process_delete"
	KindWorkerProcessLogs   Kind = "worker_process_logs"
	KindModelDownload       Kind = "model_download"
	KindModelList           Kind = "model_list"
	KindModelGet            Kind = "model_get"
	KindModelDelete         Kind = "model_delete"
	KindInfer               Kind = "infer"
)

// Operation is a request to a [Runner]. Its implementations are the operation types of
// this package. The zero value of a type without required fields is valid.
type Operation interface {
	json.Marshaler

	// Kind returns the kind of the operation.
	Kind() Kind

	// Validate checks the fields without contacting a machine. It returns an
	// [*Error] with [CodeBadOperation], or nil.
	Validate() error
}

// Handler receives the events of one operation. Calls never overlap, but may be
// made from different goroutines. The operation waits for each call, so a Handler
// must not block for long. A nil Handler discards events.
type Handler func(Event)

// Send sets the time of e to the current time and passes e to h. It does nothing if
// h is nil.
func (h Handler) Send(e Event) {
	if h != nil {
		e.Time = time.Now()
		h(e)
	}
}

// Runner runs operations. Run returns when the operation has ended; it does not call
// events after it has returned. If only a part of the operation fails, Run returns a
// report that lists the failures, and a nil error. A non-nil error means that the complete
// operation failed.
//
// Canceling ctx stops the operation without leaving a step half-finished. The report,
// if Run returns one, lists the steps that were completed.
type Runner interface {
	Run(ctx context.Context, op Operation, events Handler) (Report, error)
}

// ShouldForwardToHive reports whether the queen forwards op to the hive.
//
// Worker process operations and model operations are forwarded. The queen runs
// package operations, hive operations and [Infer] itself.
func ShouldForwardToHive(op Operation) bool {
	switch op.Kind() {
	case KindWorkerSpawn, KindWorkerProcessList, KindWorkerProcessGet, KindWorkerProcessDelete,
		KindWorkerProcessLogs, KindModelDownload, KindModelList, KindModelGet, KindModelDelete:
		return true
	default:
		return false
	}
}

// Kinds returns all kinds of operations, in the order of the constants.
func Kinds() []Kind {
	kinds := make([]Kind, len(registry))
	for i, e := range registry {
		kinds[i] = e.kind
	}
	return kinds
}

// entry maps a kind to the Go types of its operation and its report.
type entry struct {
	kind      Kind
	parse     func(data []byte) (Operation, error)
	newReport func() Report // returns an empty report of the operation's type
}

var registry = []entry{
	newEntry[PackageSync, SyncReport](),
	newEntry[PackageStatus, StatusReport](),
	newEntry[PackageInstall, SyncReport](),
	newEntry[PackageUninstall, UninstallReport](),
	newEntry[PackageValidate, ValidateReport](),
	newEntry[PackageMigrate, MigrateReport](),
	newEntry[PackageRollback, RollbackReport](),
	newEntry[PackageBundle, BundleReport](),
	newEntry[HiveStart, HiveDaemonReport](),
	newEntry[HiveStop, HiveDaemonReport](),
	newEntry[HiveList, HiveListReport](),
	newEntry[HiveGet, HiveGetReport](),
	newEntry[HiveStatus, HiveDaemonReport](),
	newEntry[HiveCapabilities, HiveCapabilitiesReport](),
	newEntry[WorkerSpawn, WorkerSpawnReport](),
	newEntry[WorkerProcessList, WorkerListReport](),
	newEntry[WorkerProcessGet, WorkerGetReport](),
	newEntry[WorkerProcessDelete, WorkerDeleteReport](),
	newEntry[WorkerProcessLogs, WorkerLogsReport](),
	newEntry[ModelDownload, ModelDownloadReport](),
	newEntry[ModelList, ModelListReport](),
	newEntry[ModelGet, ModelGetReport](),
	newEntry[ModelDelete, ModelDeleteReport](),
	newEntry[Infer, InferReport](),
}

// newEntry returns the entry of operation T, whose report is a *R.
func newEntry[T Operation, R any, P interface {
	*R
	Report
}]() entry {
	var zero T
	parse := func(data []byte) (Operation, error) {
		var op T
		if err := strictjson.Unmarshal(data, &op); err != nil {
			return nil, badOperation("%s: %v", zero.Kind(), err)
		}
		return op, op.Validate()
	}
	return entry{zero.Kind(), parse, func() Report { return P(new(R)) }}
}

// Parse parses and validates one operation in its wire form. Every error is an
// [*Error]. Its code is [CodeRemovedOperation] for an operation that was removed from
// rbee, and [CodeBadOperation] for malformed JSON, an unknown operation, an unknown or
// duplicate field, or an invalid value.
func Parse(data []byte) (Operation, error) {
	var tag struct {
		Operation *string `json:"operation"`
	}
	if err := json.Unmarshal(data, &tag); err != nil {
		return nil, badOperation("invalid operation: want a JSON object with a key \"operation\": %v", err)
	}
	if tag.Operation == nil {
		return nil, badOperation("missing key \"operation\"")
	}
	for _, e := range registry {
		if string(e.kind) == *tag.Operation {
			return e.parse(data)
		}
	}
	if kind, ok := Replacement(*tag.Operation); ok {
		return nil, &Error{
			Code: CodeRemovedOperation, Reason: ReasonRemovedOperation,
			Message: fmt.Sprintf("operation %q was removed: use %q", *tag.Operation, kind),
		}
	}
	return nil, badOperation("unknown operation %q%s", *tag.Operation, strictjson.DidYouMean(*tag.Operation, Kinds()))
}

// Replacement returns the operation that replaces the removed operation name. ok is
// false if name is not a removed operation.
func Replacement(name string) (kind Kind, ok bool) {
	switch name {
	case "hive_install", "worker_download", "worker_build", "worker_binary_delete":
		return KindPackageSync, true
	case "hive_uninstall":
		return KindPackageUninstall, true
	case "worker_binary_list", "worker_binary_get":
		return KindPackageStatus, true
	}
	return "", false
}

// marshal returns fields, a struct, as a JSON object whose first key is "operation".
func marshal(kind Kind, fields any) ([]byte, error) {
	body, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"operation":%q`, kind)
	if body = body[1:]; len(body) > 1 {
		out.WriteByte(',')
	}
	out.Write(body)
	return out.Bytes(), nil
}

func badOperation(format string, args ...any) *Error {
	return &Error{Code: CodeBadOperation, Reason: ReasonInvalidOperation, Message: fmt.Sprintf(format, args...)}
}
