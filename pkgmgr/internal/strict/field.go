package strict

import (
	"reflect"
	"strings"
)

// field describes a key of a struct.
type field struct {
	index    []int // for [reflect.Value.FieldByIndex], because the field can be part of an embedded struct
	key      string
	name     string // name of the value in messages
	like     string // an example of a value; may be empty
	required bool
	depth    int // number of lists around the value; 0 for the field itself
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

// Keys returns all keys and the required keys of v, a struct with key tags.
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

// structOf returns the struct type that t, a Value or a list contains, or nil if it does not
// contain a struct.
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
