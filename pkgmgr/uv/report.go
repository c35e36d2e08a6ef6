package uv

import (
	"regexp"
	"strings"
)

// report contains the parts of uv's error output. uv 0.13 prints
//
//	error: TITLE
//	  cause: CAUSE
//	         more of the cause
//
//	hint: HINT
//
// and earlier versions print a tree: "× TITLE", then "╰─▶ CAUSE". Warnings have the first form,
// with "warning" instead of "error".
type report struct {
	title       string
	causes      []string
	hints       []string
	accessError string // hint about an index that denied access; may be empty
}

var (
	ansiRegexp     = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
	passwordRegexp = regexp.MustCompile(`://[^\s"'\x60]*@`)
	markerRegexp   = regexp.MustCompile(`\{[^{}]*\}`)
	spaceRegexp    = regexp.MustCompile(`\s+`)
)

func stripANSI(s string) string { return ansiRegexp.ReplaceAllString(s, "") }

// redact removes passwords from URLs.
func redact(s string) string { return passwordRegexp.ReplaceAllString(s, "://***@") }

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// parseReport parses the error in uv's output and ignores warnings.
func parseReport(output string) report {
	var r report
	skip := false    // inside a warning
	var last *string // the text that a continuation line belongs to
	add := func(list *[]string, text string) {
		*list = append(*list, text)
		last = &(*list)[len(*list)-1]
	}
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\r\n ")
		text := strings.TrimSpace(line)
		word, rest, _ := strings.Cut(text, ": ")
		indented := strings.HasPrefix(line, " ")
		tree := strings.TrimLeft(text, "│├╰─▶╭╯× ")
		switch {
		case text == "":
			last = nil
		case !indented && word == "warning":
			skip, last = true, nil
		case !indented && word == "error":
			skip = false
			r.title, last = rest, &r.title
		case strings.HasPrefix(text, "× "):
			skip = false
			r.title, last = tree, &r.title
		case !indented && word == "hint":
			skip = false
			add(&r.hints, rest)
		case skip:
		case indented && (word == "cause" || word == "Caused by"):
			add(&r.causes, rest)
		case strings.Contains(text, "▶ "):
			add(&r.causes, tree)
		case last != nil && tree != "":
			*last += " " + tree
		}
	}
	for _, h := range r.hints {
		if strings.Contains(h, "could not be queried") || strings.Contains(h, "returned a 40") {
			r.accessError = simplify(h)
		}
	}
	return r
}

// simplify removes environment markers, backquotes and line breaks from a message of uv.
func simplify(s string) string {
	s = markerRegexp.ReplaceAllString(s, "")
	s = strings.ReplaceAll(s, "`", "")
	return strings.TrimRight(strings.TrimSpace(spaceRegexp.ReplaceAllString(s, " ")), ".")
}

// conflict returns the first reason in uv's explanation of a resolution without a solution.
func (r *report) conflict() string {
	if len(r.causes) == 0 {
		return simplify(r.title)
	}
	text := simplify(r.causes[0])
	text = strings.TrimPrefix(text, "Because ")
	for _, end := range []string{", we can conclude", " we can conclude", " and you require", " And because "} {
		text, _, _ = strings.Cut(text, end)
	}
	if _, only, ok := strings.Cut(text, " has no usable wheels and only "); ok && only != "" {
		text, _, _ = strings.Cut(text, " and only ")
	}
	for _, h := range r.hints {
		if platforms, ok := strings.CutPrefix(simplify(h), "Wheels are available for "); ok {
			return text + "; wheels exist for " + strings.Replace(platforms, " on the following platforms: ", " on ", 1)
		}
	}
	return text
}

// failure returns the innermost cause, followed by the operation that failed.
func (r *report) failure() string {
	if len(r.causes) == 0 {
		return simplify(r.title)
	}
	inner := simplify(r.causes[len(r.causes)-1])
	outer := simplify(r.title)
	if strings.HasPrefix(outer, "Request failed after ") {
		outer = simplify(r.causes[0])
	}
	if inner == outer || strings.Contains(inner, outer) {
		return inner
	}
	return inner + ": " + outer
}
