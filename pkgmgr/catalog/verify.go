package catalog

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

type verifyEntry struct {
	Command     strict.Value[[]strict.Value[string]]          `key:"command,required" like:"[\"{entry}\", --version]"`
	Env         strict.Value[map[string]strict.Value[string]] `key:"env" like:"{ NAME: value }"`
	Matches     strict.Value[string]                          `key:"matches" like:"'CUDA[0-9]+:'"`
	Limit       strict.Value[span]                            `key:"limit" like:"60s"`
	BeforeStart strict.Value[bool]                            `key:"before_start" like:"true"`
}

// verifyWords are the placeholders of a verify command.
var verifyWords = []string{"entry", "payload", "state"}

// verify checks a verify command; nil if there is none.
func (c *recipeCheck) verify(v *strict.Value[verifyEntry]) *wire.Verify {
	if v.Pos.Line == 0 {
		return nil
	}
	e := &v.V
	out := &wire.Verify{Matches: e.Matches.V, LimitSeconds: time.Duration(e.Limit.V).Seconds(), BeforeStart: e.BeforeStart.V}
	for i, arg := range e.Command.V {
		c.placeholders(arg, verifyWords)
		if i == 0 && arg.Set && !verifyProgram(arg.V) {
			c.report(arg.Pos, "expected {entry}, or a path such as {payload}/bin/tool", "verify runs %q, which is no program of the worker", arg.V)
		}
		out.Command = append(out.Command, arg.V)
	}
	if e.Command.Set && len(e.Command.V) == 0 {
		c.report(e.Command.Pos, "such as [\"{entry}\", --version]", "verify.command is empty")
	}
	if limit := time.Duration(e.Limit.V); limit > wire.MaxVerifyLimit {
		c.report(e.Limit.Pos, "expected at most 30m", "verify.limit is %s", limit)
	}
	if e.Matches.Set {
		switch re, err := regexp.Compile(e.Matches.V); {
		case err != nil:
			c.report(e.Matches.Pos, strings.TrimPrefix(err.Error(), "error parsing regexp: "), "%q is not a regular expression", e.Matches.V)
		case re.MatchString(""):
			c.report(e.Matches.Pos, "expected a part of the output, or remove it", "verify.matches %q also matches no output", e.Matches.V)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Env.V)) {
		value := e.Env.V[name]
		if !envName.MatchString(name) {
			c.report(value.Pos, "expected letters, digits and underscore", "%q is not the name of a variable", name)
		}
		c.placeholders(value, verifyWords)
		if out.Env == nil {
			out.Env = map[string]string{}
		}
		out.Env[name] = value.V
	}
	return out
}

// verifyProgram reports whether a command begins with a program of the worker.
func verifyProgram(arg string) bool {
	rest, below := strings.CutPrefix(arg, "{payload}/")
	return arg == "{entry}" || below && cleanPath(rest)
}

// Verification returns the verify command for a source; nil for none.
func (r *Recipe) Verification(s *Source) *wire.Verify {
	if s.Verify != nil {
		return s.Verify
	}
	return r.Verify
}
