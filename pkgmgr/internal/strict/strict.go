// Package strict reads the files that people write, and tells them everything
// that is wrong with one at once, with its place.
//
// TOML and YAML become the same tree of nodes with positions. [Read] then fills
// a struct from the tree and reports what does not fit: unknown, missing and
// repeated keys, and values of another type. The struct says what a file may
// hold:
//
//	type file struct {
//		Pos  strict.Pos                // where the table begins
//		Name strict.Value[string]      `key:"name,required" like:"\"box-1\""`
//		Port strict.Value[int64]       `key:"port"`
//		Jobs strict.Value[[]job]       `key:"job"`
//	}
//
// A [Value] knows its place and whether it was there, so that whoever checks what
// values mean can report just as well. All of it is pure: no file is opened here.
package strict

import (
	"cmp"
	"sort"
)

// Pos is a place in a file. Lines and columns count from 1; 0 is not known.
type Pos struct{ Line, Column int }

// Problem is one thing wrong with a file.
type Problem struct {
	Pos

	// Item is the index of the element of the outermost list that it lies
	// in, or -1 outside of any.
	Item int

	// Message says what is wrong, Hint what would be right (may be empty).
	Message, Hint string
}

// Syntax is a language a file is written in.
type Syntax int

// The syntaxes.
const (
	TOML Syntax = iota
	YAML
)

// Value is a value of a file. T is string, int64, bool, a struct with key tags,
// a type whose pointer has [Decoder], or a list, map or Value of such.
type Value[T any] struct {
	V   T
	Set bool // the file has it, and with the right type
	Pos Pos
}

// Decoder is a type with a notation of its own. Its error says what is wrong
// with the value, without naming the key.
type Decoder interface {
	DecodeNode(n *Node) error
}

// Read fills dst, a pointer to a struct with key tags, from data. It gives
// every problem found, in the order of the file; none means that the file is
// well-formed and dst complete. A file whose syntax is broken gives only that.
func Read(s Syntax, data []byte, dst any) []Problem {
	root, problems := parse(s, data)
	if root != nil {
		c := newChecker(s, dst)
		c.root(root, dst)
		problems = append(problems, c.problems...)
	}
	Sort(problems)
	return problems
}

// Sort puts problems in the order of the file.
func Sort(problems []Problem) {
	sort.SliceStable(problems, func(i, j int) bool {
		a, b := &problems[i], &problems[j]
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) < 0
	})
}

// parse turns data into a tree. The tree is nil if the syntax is broken.
func parse(s Syntax, data []byte) (*Node, []Problem) {
	if s == YAML {
		return parseYAML(data)
	}
	return parseTOML(data)
}
