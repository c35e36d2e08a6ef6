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

// TestReasonsReturnsAllConstants compares Reasons with the constants in the source.
func TestReasonsReturnsAllConstants(t *testing.T) {
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
		t.Errorf("Reasons() = %q, want no empty and no duplicate reasons", got)
	}
}

// codeError is an error with an ErrorCode method, like the errors of a connection.
type codeError string

func (c codeError) Error() string     { return "code error" }
func (c codeError) ErrorCode() string { return string(c) }

func TestReasonOf(t *testing.T) {
	t.Parallel()
	pathError := func(err error) error { return fmt.Errorf("x: %w", &fs.PathError{Op: "open", Path: "/x", Err: err}) }
	dialError := func(err error) error {
		return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}
	}
	for name, test := range map[string]struct {
		err                  error
		want, wantConnection ops.Reason
	}{
		"nil":                    {nil, "", ""},
		"plain error":            {errors.New("permission denied: no space left on device"), ops.ReasonFailed, ops.ReasonFailed},
		"Error":                  {fmt.Errorf("x: %w", &ops.Error{Reason: ops.ReasonLocked, Err: syscall.ENOSPC}), ops.ReasonLocked, ops.ReasonLocked},
		"Error without a reason": {&ops.Error{Err: syscall.ENOSPC}, ops.ReasonDiskFull, ops.ReasonDiskFull},
		"ErrorCode":              {fmt.Errorf("x: %w", codeError("host_key_unknown")), ops.ReasonHostKeyUnknown, ops.ReasonHostKeyUnknown},
		"unknown ErrorCode":      {codeError("moon"), "moon", "moon"},
		"ErrorCode failed":       {errors.Join(codeError("failed"), pathError(syscall.ENOSPC)), ops.ReasonDiskFull, ops.ReasonDiskFull},
		"empty ErrorCode":        {codeError(""), ops.ReasonFailed, ops.ReasonFailed},
		"canceled":               {fmt.Errorf("x: %w", context.Canceled), ops.ReasonCanceled, ops.ReasonCanceled},
		"disk full":              {pathError(syscall.ENOSPC), ops.ReasonDiskFull, ops.ReasonDiskFull},
		"quota exceeded":         {pathError(syscall.EDQUOT), ops.ReasonDiskFull, ops.ReasonDiskFull},
		"read-only":              {pathError(syscall.EROFS), ops.ReasonReadOnly, ops.ReasonReadOnly},
		"permission denied":      {pathError(syscall.EACCES), ops.ReasonPermissionDenied, ops.ReasonPermissionDenied},
		"port in use":            {dialError(syscall.EADDRINUSE), ops.ReasonPortInUse, ops.ReasonPortInUse},
		"missing file":           {pathError(syscall.ENOENT), ops.ReasonNotFound, ops.ReasonNotFound},
		"connection refused":     {dialError(syscall.ECONNREFUSED), ops.ReasonFailed, ops.ReasonRefused},
		"no route":               {dialError(syscall.EHOSTUNREACH), ops.ReasonFailed, ops.ReasonUnreachable},
		"connection timeout":     {dialError(syscall.ETIMEDOUT), ops.ReasonFailed, ops.ReasonTimeout},
		"deadline exceeded":      {context.DeadlineExceeded, ops.ReasonFailed, ops.ReasonTimeout},
		"unknown host name":      {&net.DNSError{Err: "no such host"}, ops.ReasonFailed, ops.ReasonResolve},
		"connection reset":       {dialError(syscall.ECONNRESET), ops.ReasonFailed, ops.ReasonLost},
		"joined errors":          {errors.Join(errors.New("x"), &ops.Error{Reason: ops.ReasonExists}), ops.ReasonExists, ops.ReasonExists},
	} {
		if got := ops.ReasonOf(test.err); got != test.want {
			t.Errorf("%s: ReasonOf(%v) = %q, want %q", name, test.err, got, test.want)
		}
		if got := ops.ConnectionReason(test.err); got != test.wantConnection {
			t.Errorf("%s: ConnectionReason(%v) = %q, want %q", name, test.err, got, test.wantConnection)
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
		var decoded ops.Error
		if err := json.Unmarshal(data, &decoded); err != nil || decoded.Reason != test.e.Reason || decoded.Subject != test.e.Subject {
			t.Errorf("json.Unmarshal(%s) = %+v, %v, want %+v", data, decoded, err, test.e)
		}
	}
	if got := ops.SubjectOf(fmt.Errorf("x: %w", &e)); got != e.Subject {
		t.Errorf("SubjectOf(wrapped %v) = %+v, want %+v", &e, got, e.Subject)
	}
	if got := ops.SubjectOf(errors.New("x")); got != (ops.Subject{}) {
		t.Errorf("SubjectOf(plain error) = %+v, want the zero value", got)
	}
}
