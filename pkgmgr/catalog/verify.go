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

// verifyPlaceholders lists the placeholders of a verify command.
var verifyPlaceholders = []string{"entry", "payload", "state"}

// parseVerify parses a verify command. It returns nil if the recipe or source has none.
func (c *recipeParser) parseVerify(v *strict.Value[verifyEntry]) *wire.Verify {
	if v.Pos.Line == 0 {
		return nil
	}
	e := &v.V
	out := &wire.Verify{Matches: e.Matches.V, LimitSeconds: time.Duration(e.Limit.V).Seconds(), BeforeStart: e.BeforeStart.V}
	for i, arg := range e.Command.V {
		c.checkPlaceholders(arg, verifyPlaceholders)
		if i == 0 && arg.Set && !isVerifyProgram(arg.V) {
			c.report(arg.Pos, "want {entry}, or a path such as {payload}/bin/tool", "invalid verify program %q", arg.V)
		}
		out.Command = append(out.Command, arg.V)
	}
	if e.Command.Set && len(e.Command.V) == 0 {
		c.report(e.Command.Pos, "for example [\"{entry}\", --version]", "verify.command is empty")
	}
	if limit := time.Duration(e.Limit.V); limit > wire.MaxVerifyLimit {
		c.report(e.Limit.Pos, "want at most 30m", "invalid verify.limit %s", limit)
	}
	if e.Matches.Set {
		switch re, err := regexp.Compile(e.Matches.V); {
		case err != nil:
			c.report(e.Matches.Pos, strings.TrimPrefix(err.Error(), "error parsing regexp: "), "invalid regular expression %q", e.Matches.V)
		case re.MatchString(""):
			c.report(e.Matches.Pos, "want a part of the output, or remove it", "verify.matches %q matches empty output", e.Matches.V)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Env.V)) {
		value := e.Env.V[name]
		if !envName.MatchString(name) {
			c.report(value.Pos, "want letters, digits and underscore", "invalid environment variable name %q", name)
		}
		c.checkPlaceholders(value, verifyPlaceholders)
		if out.Env == nil {
			out.Env = map[string]string{}
		}
		out.Env[name] = value.V
	}
	return out
}

// isVerifyProgram reports whether arg, the program of a verify command, is a program of the
// worker.
func isVerifyProgram(arg string) bool {
	rest, inPayload := strings.CutPrefix(arg, "{payload}/")
	return arg == "{entry}" || inPayload && isCleanPath(rest)
}

// Verification returns the verify command of a source, or else of the recipe. It returns nil
// if neither has a verify command.
func (r *Recipe) Verification(s *Source) *wire.Verify {
	if s.Verify != nil {
		return s.Verify
	}
	return r.Verify
}
