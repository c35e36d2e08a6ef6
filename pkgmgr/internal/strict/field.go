package strict

import (
	"reflect"
	"strings"
)

// field describes a key of a struct.
type field struct {
	index    []int // as in [reflect.Value.FieldByIndex]: keys of an embedded struct belong to the one around it
	key      string
	name     string // of the value, in messages
	like     string // an example of a value; may be empty
	required bool
	depth    int // nesting depth of the value in lists of the field
	typ      reflect.Type
}

// example returns a hint with an example of a value, or "".
func (f field) example() string {
	if f.like == "" {
		return ""
	}
	return "for example " + f.like
}

func fieldsOf(t reflect.Type) []field {
	var fields []field
	for _, f := range reflect.VisibleFields(t) {
		tag, ok := f.Tag.Lookup("key")
		if !ok {
			continue
		}
		key, option, _ := strings.Cut(tag, ",")
		fields = append(fields, field{
			index: f.Index, key: key, name: key, typ: f.Type,
			like: f.Tag.Get("like"), required: option == "required",
		})
	}
	return fields
}

// Keys returns all keys and the required keys of a struct with key tags.
func Keys(v any) (known, required []string) {
	for _, f := range fieldsOf(reflect.TypeOf(v)) {
		known = append(known, f.key)
		if f.required {
			required = append(required, f.key)
		}
	}
	return known, required
}

var (
	fillerType  = reflect.TypeFor[filler]()
	decoderType = reflect.TypeFor[Decoder]()
)

// structOf returns the struct with keys that a type contains in Values and lists, or nil.
func structOf(t reflect.Type) reflect.Type {
	switch {
	case reflect.PointerTo(t).Implements(decoderType):
		return nil
	case reflect.PointerTo(t).Implements(fillerType):
		return structOf(t.Field(0).Type)
	case t.Kind() == reflect.Slice:
		return structOf(t.Elem())
	case t.Kind() == reflect.Struct:
		return t
	default:
		return nil
	}
}

// kindOf returns the kind of node that a type is decoded from.
func kindOf(t reflect.Type) Kind {
	switch t.Kind() {
	case reflect.String:
		return String
	case reflect.Int64:
		return Int
	case reflect.Bool:
		return Bool
	case reflect.Slice:
		return List
	default:
		return Table
	}
}
