// Package strict decodes config and recipe files and reports all problems of a file at once,
// with their positions.
//
// TOML and YAML are parsed to the same tree of nodes with positions. [Read] then fills a
// struct from the tree and reports unknown, missing and duplicate keys, and values of the
// wrong type. The struct defines the permitted keys:
//
//	type file struct {
//		Pos  strict.Pos                // start of the table
//		Name strict.Value[string]      `key:"name,required" like:"\"box-1\""`
//		Port strict.Value[int64]       `key:"port"`
//		Jobs strict.Value[[]job]       `key:"job"`
//	}
//
// A [Value] records its position and whether it was set, so that later checks of the values
// can report positions, too.
package strict

import (
	"cmp"
	"sort"
)

// Pos is a position in a file. Lines and columns count from 1; 0 means unknown.
type Pos struct{ Line, Column int }

// Problem is a problem of a file.
type Problem struct {
	Pos

	// Item is the index of the element of the outermost list that contains the problem,
	// or -1 if it is not in a list.
	Item int

	// Message describes the problem and Hint the fix; Hint may be empty.
	Message, Hint string
}

// Syntax is the syntax of a file.
type Syntax int

// The syntaxes.
const (
	TOML Syntax = iota
	YAML
)

// Value is a value of a file. T is string, int64, bool, a struct with key tags, a type whose
// pointer implements [Decoder], or a slice, map or Value of these.
type Value[T any] struct {
	V   T
	Set bool // the file contains a value of the right type
	Pos Pos
}

// Decoder is implemented by types with a custom syntax. The error describes the problem of
// the value without the name of the key.
type Decoder interface {
	DecodeNode(n *Node) error
}

// Read decodes data into dst, a pointer to a struct with key tags. It returns all problems in
// the order of the file. If the syntax is invalid, it returns only the syntax error.
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

// Sort sorts problems by position.
func Sort(problems []Problem) {
	sort.SliceStable(problems, func(i, j int) bool {
		a, b := &problems[i], &problems[j]
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) < 0
	})
}

// parse returns the tree of data. The tree is nil if the syntax is invalid.
func parse(s Syntax, data []byte) (*Node, []Problem) {
	if s == YAML {
		return parseYAML(data)
	}
	return parseTOML(data)
}
