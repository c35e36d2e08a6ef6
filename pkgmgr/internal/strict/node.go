package strict

// Kind is the type of a node.
type Kind int

// The kinds of nodes. Other is for values that rbee does not use, such as dates and binary
// data.
const (
	Null Kind = iota
	String
	Int
	Float
	Bool
	List
	Table
	Other
)

// String returns the name of the kind with its article, for messages.
func (k Kind) String() string {
	return [...]string{"empty", "a string", "an integer", "a decimal number", "true or false", "a list", "a table", "a value of another type"}[k]
}

// Node is one value of a file.
type Node struct {
	Kind Kind
	Pos  Pos

	Text    string // the value of a String; the source text of other scalars
	Int     int64
	Bool    bool
	Items   []*Node // of a List
	Entries []Entry // of a Table, in the order of the file, with unique keys
}

// Entry is a key of a table and its value.
type Entry struct {
	Key   string
	Pos   Pos
	Value *Node
}

// get returns the value of a key, or nil.
func (n *Node) get(key string) *Node {
	for _, e := range n.Entries {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

// put appends an entry. The table must not have the key.
func (n *Node) put(key string, pos Pos, v *Node) {
	n.Entries = append(n.Entries, Entry{key, pos, v})
}
