package operations_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	ops "github.com/rbee-keeper/rbee/operations"
)

// TestReasonsListsEveryConstant compares Reasons with the constants in the source.
func TestReasonsListsEveryConstant(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(gotoken.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var want []ops.Reason
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Reason" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, ops.Reason(text))
		}
		return true
	})
	got := ops.Reasons()
	slices.Sort(got)
	slices.Sort(want)
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("Reasons() = %q, want the constants %q", got, want)
	}
	if slices.Contains(got, "") || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("Reasons() = %q, want each once and none empty", got)
	}
}

// coded is an error of a connection of another package.
type coded string

func (c coded) Error() string     { return "coded" }
func (c coded) ErrorCode() string { return string(c) }

func TestReasonOf(t *testing.T) {
	t.Parallel()
	path := func(err error) error { return fmt.Errorf("x: %w", &fs.PathError{Op: "open", Path: "/x", Err: err}) }
	dial := func(err error) error { return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)} }
	for name, test := range map[string]struct {
		err                error
		want, ofConnection ops.Reason
	}{
		"nil":                        {nil, "", ""},
		"no reason":                  {errors.New("permission denied: no space left on device"), ops.ReasonFailed, ops.ReasonFailed},
		"own":                        {fmt.Errorf("x: %w", &ops.Error{Reason: ops.ReasonLocked, Err: syscall.ENOSPC}), ops.ReasonLocked, ops.ReasonLocked},
		"own without reason":         {&ops.Error{Err: syscall.ENOSPC}, ops.ReasonDiskFull, ops.ReasonDiskFull},
		"coded":                      {fmt.Errorf("x: %w", coded("host_key_unknown")), ops.ReasonHostKeyUnknown, ops.ReasonHostKeyUnknown},
		"coded, of another program":  {coded("moon"), "moon", "moon"},
		"coded as failed":            {errors.Join(coded("failed"), path(syscall.ENOSPC)), ops.ReasonDiskFull, ops.ReasonDiskFull},
		"coded without a code":       {coded(""), ops.ReasonFailed, ops.ReasonFailed},
		"canceled":                   {fmt.Errorf("x: %w", context.Canceled), ops.ReasonCanceled, ops.ReasonCanceled},
		"full":                       {path(syscall.ENOSPC), ops.ReasonDiskFull, ops.ReasonDiskFull},
		"quota":                      {path(syscall.EDQUOT), ops.ReasonDiskFull, ops.ReasonDiskFull},
		"read-only":                  {path(syscall.EROFS), ops.ReasonReadOnly, ops.ReasonReadOnly},
		"permission":                 {path(syscall.EACCES), ops.ReasonPermissionDenied, ops.ReasonPermissionDenied},
		"port":                       {dial(syscall.EADDRINUSE), ops.ReasonPortInUse, ops.ReasonPortInUse},
		"no file":                    {path(syscall.ENOENT), ops.ReasonNotFound, ops.ReasonNotFound},
		"refused":                    {dial(syscall.ECONNREFUSED), ops.ReasonFailed, ops.ReasonRefused},
		"no route":                   {dial(syscall.EHOSTUNREACH), ops.ReasonFailed, ops.ReasonUnreachable},
		"time out":                   {dial(syscall.ETIMEDOUT), ops.ReasonFailed, ops.ReasonTimeout},
		"deadline":                   {context.DeadlineExceeded, ops.ReasonFailed, ops.ReasonTimeout},
		"name":                       {&net.DNSError{Err: "no such host"}, ops.ReasonFailed, ops.ReasonResolve},
		"reset":                      {dial(syscall.ECONNRESET), ops.ReasonFailed, ops.ReasonLost},
		"first of those that joined": {errors.Join(errors.New("x"), &ops.Error{Reason: ops.ReasonExists}), ops.ReasonExists, ops.ReasonExists},
	} {
		if got := ops.ReasonOf(test.err); got != test.want {
			t.Errorf("%s: ReasonOf(%v) = %q, want %q", name, test.err, got, test.want)
		}
		if got := ops.ConnectionReason(test.err); got != test.ofConnection {
			t.Errorf("%s: ConnectionReason(%v) = %q, want %q", name, test.err, got, test.ofConnection)
		}
	}
}

func TestErrorJSON(t *testing.T) {
	t.Parallel()
	e := ops.Error{Code: ops.CodeNotFound, Reason: ops.ReasonModelNotFound, Subject: ops.SubjectModel.Named("org/repo"), Hive: "gpu-1", Message: "m", Detail: "d"}
	for _, test := range []struct {
		e    ops.Error
		want string
	}{
		{e, `{"code":"not_found","reason":"model_not_found","subject":{"kind":"model","name":"org/repo"},"hive":"gpu-1","message":"m","detail":"d"}`},
		{ops.Error{Code: ops.CodeFailed, Reason: ops.ReasonFailed, Message: "m"}, `{"code":"failed","reason":"failed","message":"m"}`},
	} {
		data, err := json.Marshal(&test.e)
		if err != nil || string(data) != test.want {
			t.Errorf("json.Marshal(%v) = %s, %v, want %s", &test.e, data, err, test.want)
		}
		var back ops.Error
		if err := json.Unmarshal(data, &back); err != nil || back.Reason != test.e.Reason || back.Subject != test.e.Subject {
			t.Errorf("json.Unmarshal(%s) = %+v, %v, want %+v", data, back, err, test.e)
		}
	}
	if got := ops.SubjectOf(fmt.Errorf("x: %w", &e)); got != e.Subject {
		t.Errorf("SubjectOf = %+v, want %+v", got, e.Subject)
	}
	if got := ops.SubjectOf(errors.New("x")); got != (ops.Subject{}) {
		t.Errorf("SubjectOf = %+v, want none", got)
	}
}
