package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxNodes is the maximum number of nodes of a YAML file after alias expansion. Without this
// limit, a small file with nested aliases could exhaust the memory.
const maxNodes = 20000

// parseYAML parses the single document of a file. For a file without a document, it returns an
// empty table.
func parseYAML(data []byte) (*Node, []Problem) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &Node{Kind: Table, Pos: Pos{1, 1}}, nil
	case err != nil:
		return nil, []Problem{yamlProblem(err)}
	}
	b := &yamlBuilder{left: maxNodes}
	switch err := dec.Decode(&second); {
	case err == nil:
		b.problem(&second, "the file has more than one YAML document", "remove the --- line")
	case !errors.Is(err, io.EOF):
		return nil, []Problem{yamlProblem(err)}
	}
	root := b.node(&doc, 0)
	if root.Kind == Null {
		root.Kind = Table
	}
	if b.left < 0 {
		return nil, b.problems
	}
	return root, b.problems
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func yamlProblem(err error) Problem {
	p := Problem{Item: -1}
	text := err.Error()
	if m := yamlErrorLine.FindStringSubmatch(text); m != nil {
		p.Line, _ = strconv.Atoi(m[1]) // 0 means unknown
		text = text[len(m[0]):]
	}
	p.Message = "invalid YAML: " + text
	return p
}

// yamlBuilder converts the nodes of the parser to the tree.
type yamlBuilder struct {
	left     int // number of nodes that can be added
	problems []Problem
}

func (b *yamlBuilder) node(y *yaml.Node, depth int) *Node {
	n := &Node{Pos: Pos{y.Line, y.Column}, Text: y.Value}
	if !b.countNode(y, depth) {
		n.Kind = Other
		return n
	}
	switch y.Kind {
	case yaml.DocumentNode:
		return b.node(y.Content[0], depth)
	case yaml.AliasNode:
		return b.node(y.Alias, depth+1)
	case yaml.SequenceNode:
		n.Kind = List
		for _, item := range y.Content {
			n.Items = append(n.Items, b.node(item, depth+1))
		}
	case yaml.MappingNode:
		n.Kind = Table
		b.mapping(n, y, depth)
	default:
		b.scalar(n, y)
	}
	return n
}

// countNode counts a node. It returns false, and reports a problem once, if the tree is too
// large or too deep, for example because an alias contains itself.
func (b *yamlBuilder) countNode(y *yaml.Node, depth int) bool {
	if b.left < 0 {
		return false
	}
	b.left--
	switch {
	case depth > maxDepth:
		b.problem(y, fmt.Sprintf("values are nested more than %d levels deep", maxDepth), "")
		b.left = -1
	case b.left < 0:
		b.problem(y, fmt.Sprintf("the file has more than %d values after alias expansion", maxNodes), "")
	}
	return b.left >= 0
}

// mapping adds the entries of a mapping to n. They take precedence over the entries of merge
// keys ("<<").
func (b *yamlBuilder) mapping(n *Node, y *yaml.Node, depth int) {
	var merged []*Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], b.node(y.Content[i+1], depth+1)
		switch {
		case key.ShortTag() == "!!merge":
			merged = append(merged, value)
		case key.Kind != yaml.ScalarNode:
			b.problem(key, "invalid key", "want a string")
		case n.get(key.Value) != nil:
			b.problem(key, fmt.Sprintf("duplicate key %q", key.Value), fmt.Sprintf("first defined on line %d", n.get(key.Value).Pos.Line))
		default:
			n.put(key.Value, Pos{key.Line, key.Column}, value)
		}
	}
	for _, m := range merged {
		b.merge(n, m)
	}
}

// merge adds the entries of from, a table or a list of tables, whose keys n does not have.
func (b *yamlBuilder) merge(n, from *Node) {
	switch from.Kind {
	case Table:
		for _, e := range from.Entries {
			if n.get(e.Key) == nil {
				n.put(e.Key, e.Pos, e.Value)
			}
		}
	case List:
		for _, item := range from.Items {
			b.merge(n, item)
		}
	default:
		b.problems = append(b.problems, Problem{Pos: from.Pos, Item: -1, Message: "invalid value of merge key <<", Hint: "want a table, for example the alias *name of a table with the anchor &name"})
	}
}

func (b *yamlBuilder) scalar(n *Node, y *yaml.Node) {
	switch y.ShortTag() {
	case "!!str":
		n.Kind = String
	case "!!null":
		n.Kind = Null
	case "!!float":
		n.Kind = Float
	case "!!bool":
		n.Kind, n.Bool = Bool, strings.EqualFold(y.Value, "true")
	case "!!int":
		n.Kind = Int
		if y.Decode(&n.Int) != nil {
			b.problem(y, y.Value+" is too large for an integer", "")
		}
	default:
		n.Kind = Other
	}
}

func (b *yamlBuilder) problem(y *yaml.Node, message, hint string) {
	b.problems = append(b.problems, Problem{Pos: Pos{y.Line, y.Column}, Item: -1, Message: message, Hint: hint})
}
