package strict

import (
	"reflect"
	"strings"
)

// field is a key that a struct knows.
type field struct {
	index    []int // as in [reflect.Value.FieldByIndex]: keys of an embedded struct belong to the one around it
	key      string
	name     string // what messages call the value
	like     string // an example of a value; may be empty
	required bool
	depth    int // how many lists deep the value lies in the field's
	typ      reflect.Type
}

// example is a hint that shows a value, or empty.
func (f field) example() string {
	if f.like == "" {
		return ""
	}
	return "such as " + f.like
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

// Keys lists the keys of a struct with key tags, and which of them are required.
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

// structOf is the struct of keys in a type: behind Values and lists; nil if none.
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

// kindOf is the kind of node that fills a type.
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
