package strict

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxDepth is the maximum nesting depth of values in TOML and YAML.
const maxDepth = 64

// parseTOML builds the tree with the low-level parser of go-toml, which reports positions. It
// also runs the decoder of go-toml, which checks the rules for duplicate tables.
func parseTOML(data []byte) (*Node, []Problem) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	b := &tomlBuilder{root: &Node{Kind: Table, Pos: Pos{1, 1}}}
	b.parser.Reset(data)
	b.table = b.root
	for b.parser.NextExpression() {
		b.expression(b.parser.Expression())
	}

	var all map[string]any
	err := toml.Unmarshal(data, &all)
	if b.parser.Error() != nil {
		return nil, append(b.problems, tomlProblem(err))
	}
	if err != nil && len(b.problems) == 0 {
		b.problems = append(b.problems, tomlProblem(err))
	}
	return b.root, b.problems
}

func tomlProblem(err error) Problem {
	p := Problem{Item: -1, Message: "invalid TOML"}
	if err == nil {
		return p
	}
	p.Message += ": " + strings.TrimPrefix(err.Error(), "toml: ")
	var de *toml.DecodeError
	if errors.As(err, &de) {
		p.Line, p.Column = de.Position()
	}
	return p
}

// tomlBuilder converts the expressions of the parser to the tree.
type tomlBuilder struct {
	parser   unstable.Parser
	root     *Node
	table    *Node // the table for the following "key = value" lines
	problems []Problem
}

func (b *tomlBuilder) expression(e *unstable.Node) {
	switch e.Kind {
	case unstable.Table:
		parent, key := b.descend(b.root, e.Key())
		b.table = b.enter(parent, key)
	case unstable.ArrayTable:
		parent, key := b.descend(b.root, e.Key())
		b.table = b.appendTable(parent, key)
	case unstable.KeyValue:
		b.keyValue(b.table, e, 0)
	}
}

// part is a part of a dotted key.
type part struct {
	name   string
	pos    Pos
	offset uint32
}

// descend follows all parts of a dotted key except the last and creates missing tables. It
// returns the table and the last part.
func (b *tomlBuilder) descend(t *Node, keys unstable.Iterator) (*Node, part) {
	var last part
	for i := 0; keys.Next(); i++ {
		if i > 0 {
			t = b.enter(t, last)
		}
		n := keys.Node()
		last = part{string(n.Data), b.pos(n), n.Raw.Offset}
	}
	return t, last
}

// enter returns the table at a key, or the last table of a list of tables. It creates the table
// if the key does not exist. If the value has another type, enter returns a table outside of the
// tree; the decoder of go-toml reports the problem.
func (b *tomlBuilder) enter(t *Node, key part) *Node {
	v := t.get(key.name)
	switch {
	case v == nil:
		v = &Node{Kind: Table, Pos: key.pos}
		t.put(key.name, key.pos, v)
		return v
	case v.Kind == Table:
		return v
	case v.Kind == List && len(v.Items) > 0 && v.Items[len(v.Items)-1].Kind == Table:
		return v.Items[len(v.Items)-1]
	default:
		return &Node{Kind: Table, Pos: key.pos}
	}
}

// appendTable appends a table to the list at a key and returns the table.
func (b *tomlBuilder) appendTable(t *Node, key part) *Node {
	item := &Node{Kind: Table, Pos: b.headerPos(key)}
	list := t.get(key.name)
	if list == nil {
		list = &Node{Kind: List, Pos: item.Pos}
		t.put(key.name, key.pos, list)
	}
	if list.Kind == List {
		list.Items = append(list.Items, item)
	}
	return item
}

func (b *tomlBuilder) keyValue(t *Node, e *unstable.Node, depth int) {
	t, key := b.descend(t, e.Key())
	v := b.value(e.Value(), key.pos, depth+1)
	if first := t.get(key.name); first != nil {
		b.problem(key.pos, fmt.Sprintf("duplicate key %q", key.name), fmt.Sprintf("first defined on line %d", first.Pos.Line))
		return
	}
	t.put(key.name, key.pos, v)
}

// value converts a value of the parser to a node. The parser does not report the positions of
// arrays; value uses keyPos, the position of the key, for them.
func (b *tomlBuilder) value(v *unstable.Node, keyPos Pos, depth int) *Node {
	n := &Node{Kind: Other, Pos: keyPos, Text: string(v.Data)}
	if v.Raw.Length > 0 {
		n.Pos = b.pos(v)
	}
	if depth > maxDepth {
		b.problem(n.Pos, fmt.Sprintf("values are nested more than %d levels deep", maxDepth), "")
		return n
	}
	switch v.Kind {
	case unstable.String:
		n.Kind = String
	case unstable.Bool:
		n.Kind, n.Bool = Bool, n.Text == "true"
	case unstable.Float:
		n.Kind = Float
	case unstable.Integer:
		n.Kind = Int
		var err error
		if n.Int, err = strconv.ParseInt(n.Text, 0, 64); err != nil {
			b.problem(n.Pos, n.Text+" is too large for an integer", "")
		}
	case unstable.Array:
		n.Kind = List
		for it := v.Children(); it.Next(); {
			n.Items = append(n.Items, b.value(it.Node(), n.Pos, depth+1))
		}
	case unstable.InlineTable:
		n.Kind = Table
		for it := v.Children(); it.Next(); {
			b.keyValue(n, it.Node(), depth)
		}
	}
	return n
}

func (b *tomlBuilder) pos(n *unstable.Node) Pos {
	s := b.parser.Shape(n.Raw).Start
	return Pos{s.Line, s.Column}
}

// headerPos returns the position of the brackets before the key of a table: the first
// character of the line that is not blank.
func (b *tomlBuilder) headerPos(key part) Pos {
	before := b.parser.Data()[:key.offset]
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	indent := len(line) - len(bytes.TrimLeft(line, " \t"))
	return Pos{key.pos.Line, indent + 1}
}

func (b *tomlBuilder) problem(pos Pos, message, hint string) {
	b.problems = append(b.problems, Problem{Pos: pos, Item: -1, Message: message, Hint: hint})
}
