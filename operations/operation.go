package operations

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee/operations/internal/strictjson"
)

// Kind names an operation on the wire, in snake_case.
type Kind string

// The kinds of operations. Package kinds change or describe what is installed,
// hive kinds concern the daemon on a machine, worker and model kinds what runs
// and lies there.
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

// Operation is one thing to do. The types of this package are the only
// operations there are; their zero values are valid where no field is required.
type Operation interface {
	json.Marshaler

	// Kind says which operation this is.
	Kind() Kind

	// Validate checks the fields by themselves, without looking at any
	// machine. It returns an [*Error] with [CodeBadOperation], or nil.
	Validate() error
}

// Handler receives the events of one operation. Its calls never overlap, but
// they may come from different goroutines. It must not block for long: the
// operation waits for it. A nil Handler discards events.
type Handler func(Event)

// Send passes an event with the current time to the handler, unless it is nil.
func (h Handler) Send(e Event) {
	if h != nil {
		e.Time = time.Now()
		h(e)
	}
}

// Runner performs operations. Run returns once the operation has ended; it
// never calls events after that. Where work was begun, a report is returned
// even when some of it failed: what failed is in the report, and the error is
// nil. An error means that the operation as a whole could not be done.
//
// Canceling ctx ends the operation cleanly: nothing is left half-done, and the
// report, where there is one, tells what was done before.
type Runner interface {
	Run(ctx context.Context, op Operation, events Handler) (Report, error)
}

// ShouldForwardToHive reports whether an operation is done on the hive itself.
//
// Forwarded are worker process operations and model operations. The queen
// handles package operations, hive operations and [Infer].
func ShouldForwardToHive(op Operation) bool {
	switch op.Kind() {
	case KindWorkerSpawn, KindWorkerProcessList, KindWorkerProcessGet, KindWorkerProcessDelete,
		KindWorkerProcessLogs, KindModelDownload, KindModelList, KindModelGet, KindModelDelete:
		return true
	default:
		return false
	}
}

// Kinds lists every kind of operation, in the order of their definition.
func Kinds() []Kind {
	kinds := make([]Kind, len(all))
	for i, e := range all {
		kinds[i] = e.kind
	}
	return kinds
}

// entry ties a kind to the Go types of its operation and its report.
type entry struct {
	kind   Kind
	read   func(data []byte) (Operation, error)
	report func() Report // an empty one, of the type that the operation ends with
}

var all = []entry{
	reader[PackageSync, SyncReport](),
	reader[PackageStatus, StatusReport](),
	reader[PackageInstall, SyncReport](),
	reader[PackageUninstall, UninstallReport](),
	reader[PackageValidate, ValidateReport](),
	reader[PackageMigrate, MigrateReport](),
	reader[PackageRollback, RollbackReport](),
	reader[PackageBundle, BundleReport](),
	reader[HiveStart, HiveDaemonReport](),
	reader[HiveStop, HiveDaemonReport](),
	reader[HiveList, HiveListReport](),
	reader[HiveGet, HiveGetReport](),
	reader[HiveStatus, HiveDaemonReport](),
	reader[HiveCapabilities, HiveCapabilitiesReport](),
	reader[WorkerSpawn, WorkerSpawnReport](),
	reader[WorkerProcessList, WorkerListReport](),
	reader[WorkerProcessGet, WorkerGetReport](),
	reader[WorkerProcessDelete, WorkerDeleteReport](),
	reader[WorkerProcessLogs, WorkerLogsReport](),
	reader[ModelDownload, ModelDownloadReport](),
	reader[ModelList, ModelListReport](),
	reader[ModelGet, ModelGetReport](),
	reader[ModelDelete, ModelDeleteReport](),
	reader[Infer, InferReport](),
}

// reader makes the entry of operation T, which ends in a *R.
func reader[T Operation, R any, P interface {
	*R
	Report
}]() entry {
	var zero T
	read := func(data []byte) (Operation, error) {
		var op T
		if err := strictjson.Read(data, &op); err != nil {
			return nil, badOperation("%s: %v", zero.Kind(), err)
		}
		return op, op.Validate()
	}
	return entry{zero.Kind(), read, func() Report { return P(new(R)) }}
}

// Parse reads one operation from its wire form and validates it. Every error is
// an [*Error]: [CodeBadOperation] for JSON that is no operation, an unknown
// operation, an unknown or repeated field, or a value that does not fit;
// [CodeRemovedOperation] for an operation that rbee no longer has.
func Parse(data []byte) (Operation, error) {
	var tag struct {
		Operation *string `json:"operation"`
	}
	if err := json.Unmarshal(data, &tag); err != nil {
		return nil, badOperation("not a JSON object with a key \"operation\": %v", err)
	}
	if tag.Operation == nil {
		return nil, badOperation("the key \"operation\" is missing")
	}
	for _, e := range all {
		if string(e.kind) == *tag.Operation {
			return e.read(data)
		}
	}
	if by, ok := Replacement(*tag.Operation); ok {
		return nil, &Error{
			Code: CodeRemovedOperation, Reason: ReasonRemovedOperation,
			Message: fmt.Sprintf("operation %q was removed: use %q", *tag.Operation, by),
		}
	}
	return nil, badOperation("unknown operation %q%s", *tag.Operation, strictjson.DidYouMean(*tag.Operation, Kinds()))
}

// Replacement says which operation took the place of a removed one. ok is false
// for a name that rbee never had or still has.
func Replacement(name string) (by Kind, ok bool) {
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

// tagged writes fields, a struct, as a JSON object that begins with the tag.
func tagged(kind Kind, fields any) ([]byte, error) {
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
