package strict

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations/suggest"
)

// filler is a [Value] of any type.
type filler interface {
	fill(c *checker, n *Node, f field)
}

// checker fills structs from a tree and collects problems.
type checker struct {
	syntax   Syntax
	item     int                 // as Problem.Item
	parents  map[string][]string // paths of the tables that each known key belongs to
	problems []Problem
}

func newChecker(s Syntax, dst any) *checker {
	c := &checker{syntax: s, item: -1, parents: map[string][]string{}}
	c.addKeys(reflect.TypeOf(dst).Elem(), "")
	return c
}

// addKeys records the keys of a struct and of the structs inside it. path is the path of the
// struct's table.
func (c *checker) addKeys(t reflect.Type, path string) {
	for _, f := range fieldsOf(t) {
		c.parents[f.key] = append(c.parents[f.key], path)
		if inner := structOf(f.typ); inner != nil {
			c.addKeys(inner, strings.TrimPrefix(path+"."+f.key, "."))
		}
	}
}

func (c *checker) root(n *Node, dst any) {
	if n.Kind != Table {
		c.report(n.Pos, "the file is "+n.Kind.String(), "want keys with values")
		return
	}
	c.table(n, reflect.ValueOf(dst).Elem(), "the file")
}

func (c *checker) report(at Pos, message, hint string) {
	c.problems = append(c.problems, Problem{Pos: at, Item: c.item, Message: message, Hint: hint})
}

// fill sets the value from a node. It reports a problem if the node has another type.
func (v *Value[T]) fill(c *checker, n *Node, f field) {
	v.Pos = n.Pos
	before := len(c.problems)
	c.value(n, reflect.ValueOf(&v.V).Elem(), f)
	v.Set = len(c.problems) == before
}

func (c *checker) value(n *Node, dst reflect.Value, f field) {
	switch d := dst.Addr().Interface().(type) {
	case filler:
		d.fill(c, n, f)
		return
	case Decoder:
		if err := d.DecodeNode(n); err != nil {
			c.report(n.Pos, f.name+": "+err.Error(), f.example())
		}
		return
	}
	want := kindOf(dst.Type())
	if n.Kind != want {
		c.mismatch(n, want, f)
		return
	}
	switch dst.Kind() {
	case reflect.String:
		dst.SetString(n.Text)
	case reflect.Int64:
		dst.SetInt(n.Int)
	case reflect.Bool:
		dst.SetBool(n.Bool)
	case reflect.Slice:
		c.list(n, dst, f)
	case reflect.Map:
		c.dict(n, dst, f)
	default:
		c.table(n, dst, f.name)
	}
}

// mismatch reports a value of the wrong type, with the correct spelling in the hint if
// possible.
func (c *checker) mismatch(n *Node, want Kind, f field) {
	hint := "want " + want.String()
	switch {
	case want == String && (n.Kind == Int || n.Kind == Float || n.Kind == Bool):
		hint = fmt.Sprintf("want a string in quotes: %q", n.Text)
	case want == Int && n.Kind == String && isInt(n.Text):
		hint = "want an integer without quotes: " + n.Text
	case want == Bool && n.Kind == String:
		hint = "want true or false, without quotes"
	case want == List && n.Kind == Table && c.syntax == TOML && f.depth == 0:
		hint = fmt.Sprintf("want a list: write [[%s]] with two brackets", f.key)
	case f.like != "":
		hint += ", for example " + f.like
	}
	c.report(n.Pos, f.name+" is "+n.Kind.String(), hint)
}

func isInt(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func (c *checker) list(n *Node, dst reflect.Value, f field) {
	for i, item := range n.Items {
		outermost := c.item < 0
		if outermost {
			c.item = i
		}
		element := f
		element.depth++
		element.name = fmt.Sprintf("%s %d", f.name, i+1)
		v := reflect.New(dst.Type().Elem()).Elem()
		c.value(item, v, element)
		dst.Set(reflect.Append(dst, v))
		if outermost {
			c.item = -1
		}
	}
}

func (c *checker) dict(n *Node, dst reflect.Value, f field) {
	dst.Set(reflect.MakeMap(dst.Type()))
	for _, e := range n.Entries {
		element := f
		element.name, element.like = f.name+"."+e.Key, ""
		v := reflect.New(dst.Type().Elem()).Elem()
		c.value(e.Value, v, element)
		dst.SetMapIndex(reflect.ValueOf(e.Key), v)
	}
}

// table fills a struct. name is the name of the table in messages.
func (c *checker) table(n *Node, dst reflect.Value, name string) {
	if p := dst.FieldByName("Pos"); p.IsValid() {
		p.Set(reflect.ValueOf(n.Pos))
	}
	fields := fieldsOf(dst.Type())
	if c.syntax == YAML {
		for i := range fields { // examples are in TOML
			fields[i].like = strings.ReplaceAll(fields[i].like, " = ", ": ")
		}
	}
	for _, e := range n.Entries {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == e.Key })
		if i < 0 {
			c.reportUnknownKey(e, fields)
			continue
		}
		c.value(e.Value, dst.FieldByIndex(fields[i].index), fields[i])
	}
	for _, f := range fields {
		if f.required && n.get(f.key) == nil {
			c.report(n.Pos, fmt.Sprintf("%s has no %s", name, f.key), f.example())
		}
	}
}

// reportUnknownKey reports a key that no field has, with the most similar one as a hint.
func (c *checker) reportUnknownKey(e Entry, fields []field) {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	hint := "known keys: " + strings.Join(keys, ", ")
	if parents := c.parents[e.Key]; len(parents) > 0 {
		hint = "it belongs " + location(parents[0])
	} else if near := suggest.Nearest(e.Key, keys); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	c.report(e.Pos, fmt.Sprintf("unknown key %q", e.Key), hint)
}

func location(path string) string {
	if path == "" {
		return "at the top level"
	}
	return "in " + path
}
