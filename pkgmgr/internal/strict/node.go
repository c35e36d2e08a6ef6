package strict

// Kind is the type of a node.
type Kind int

// The kinds. Other is what neither syntax's files need: dates, binary data.
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

// String names the kind, with its article, as a message does.
func (k Kind) String() string {
	return [...]string{"empty", "a string", "an integer", "a decimal number", "true or false", "a list", "a table", "a value of another type"}[k]
}

// Node is one value of a file.
type Node struct {
	Kind Kind
	Pos  Pos

	Text    string // a String's value; the spelling of any other scalar
	Int     int64
	Bool    bool
	Items   []*Node // of a List
	Entries []Entry // of a Table, in the order of the file, keys unique
}

// Entry is a key of a table with its value.
type Entry struct {
	Key   string
	Pos   Pos
	Value *Node
}

// get is the value of a key, or nil.
func (n *Node) get(key string) *Node {
	for _, e := range n.Entries {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

// put appends an entry whose key is not there yet.
func (n *Node) put(key string, pos Pos, v *Node) {
	n.Entries = append(n.Entries, Entry{key, pos, v})
}
