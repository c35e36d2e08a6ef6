package model

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// errGGUF reports that a file is not a valid GGUF file.
var errGGUF = errors.New("invalid GGUF file")

// Limits for the header of a GGUF file. Real headers contain vocabularies of several hundred
// thousand tokens.
const (
	maxKeys   = 1 << 16
	maxString = 1 << 24 // bytes
	maxArray  = 1 << 26 // elements

	maxArrayDepth = 4 // of nested arrays
)

// ggufInfo contains the values in the header of a GGUF file that determine the memory usage.
type ggufInfo struct {
	Architecture string
	Layers       int64 // block_count
	Embedding    int64 // embedding_length
	Heads        int64 // attention.head_count
	KVHeads      int64 // attention.head_count_kv; the maximum if layers differ
	KeyLength    int64 // attention.key_length
	ValueLength  int64 // attention.value_length
	Context      int64 // context_length
}

// readGGUF reads the header of the GGUF file at path.
func readGGUF(path string) (ggufInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return ggufInfo{}, err
	}
	defer f.Close()
	return parseGGUF(f)
}

// parseGGUF reads the metadata in the header of a GGUF file, version 2 or 3, see
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
func parseGGUF(r io.Reader) (info ggufInfo, err error) {
	g := &ggufReader{r: bufio.NewReaderSize(r, 64<<10)}
	defer func() {
		if g.err != nil {
			info, err = ggufInfo{}, g.err
		}
	}()
	if magic := g.bytes(4); string(magic) != "GGUF" {
		return ggufInfo{}, errGGUF
	}
	if version := g.u32(); g.err == nil && version != 2 && version != 3 {
		return ggufInfo{}, fmt.Errorf("%w: unknown version %d", errGGUF, version)
	}
	g.u64() // number of tensors
	keys := g.u64()
	if keys > maxKeys {
		return ggufInfo{}, fmt.Errorf("%w: %d keys, want at most %d", errGGUF, keys, maxKeys)
	}
	for range keys {
		if g.err != nil {
			break
		}
		key := g.text()
		kind := g.u32()
		if key == "general.architecture" && kind == ggufString {
			info.Architecture = g.text()
			continue
		}
		field := info.field(key)
		n := g.number(kind, 0)
		if field != nil && n > *field {
			*field = n
		}
	}
	return info, nil
}

// field returns a pointer to the field for a key, or nil if the key is not needed.
func (i *ggufInfo) field(key string) *int64 {
	_, name, ok := strings.Cut(key, ".")
	if !ok || i.Architecture == "" || !strings.HasPrefix(key, i.Architecture+".") {
		return nil
	}
	return map[string]*int64{
		"block_count": &i.Layers, "embedding_length": &i.Embedding, "attention.head_count": &i.Heads,
		"attention.head_count_kv": &i.KVHeads, "attention.key_length": &i.KeyLength,
		"attention.value_length": &i.ValueLength, "context_length": &i.Context,
	}[name]
}

// Value types in a GGUF header.
const (
	ggufU8 = iota
	ggufI8
	ggufU16
	ggufI16
	ggufU32
	ggufI32
	ggufF32
	ggufBool
	ggufString
	ggufArray
	ggufU64
	ggufI64
	ggufF64
)

// ggufReader reads the values of a GGUF header. After the first error, it returns zero values.
type ggufReader struct {
	r   *bufio.Reader
	err error
}

func (g *ggufReader) bytes(n int) []byte {
	b := make([]byte, n)
	if g.err == nil {
		_, g.err = io.ReadFull(g.r, b)
	}
	return b
}

func (g *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(g.bytes(4)) }
func (g *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(g.bytes(8)) }

func (g *ggufReader) skip(n int64) {
	if g.err == nil {
		_, g.err = io.CopyN(io.Discard, g.r, n)
	}
}

func (g *ggufReader) text() string {
	n := g.u64()
	if n > maxString {
		g.fail("string of %s, want at most %s", bytesize.Format(n), bytesize.Format(maxString))
		return ""
	}
	if n > 1024 { // all needed names are shorter
		g.skip(int64(n))
		return ""
	}
	return string(g.bytes(int(n)))
}

// number reads a value of the given type. It returns the largest number of an array, and 0
// for a value that is not a number.
func (g *ggufReader) number(kind uint32, depth int) int64 {
	switch kind {
	case ggufU8, ggufI8, ggufBool:
		return int64(g.bytes(1)[0])
	case ggufU16, ggufI16:
		return int64(binary.LittleEndian.Uint16(g.bytes(2)))
	case ggufU32:
		return int64(g.u32())
	case ggufI32:
		return int64(int32(g.u32())) //nolint:gosec // the bits of a signed number
	case ggufF32:
		g.skip(4)
	case ggufU64, ggufI64:
		return max(0, int64(g.u64())) //nolint:gosec // larger values are invalid
	case ggufF64:
		g.skip(8)
	case ggufString:
		g.text()
	case ggufArray:
		return g.array(depth)
	default:
		g.fail("unknown value type %d", kind)
	}
	return 0
}

// array reads an array and returns its largest number.
func (g *ggufReader) array(depth int) (largest int64) {
	kind, n := g.u32(), g.u64()
	if n > maxArray || depth > maxArrayDepth {
		g.fail("array of %d values at depth %d, want at most %d values and depth %d", n, depth, maxArray, maxArrayDepth)
		return 0
	}
	for range n {
		if g.err != nil {
			break
		}
		largest = max(largest, g.number(kind, depth+1))
	}
	return largest
}

// fail sets the error of the reader unless it has one.
func (g *ggufReader) fail(format string, args ...any) {
	if g.err == nil {
		g.err = fmt.Errorf("%w: %s", errGGUF, fmt.Sprintf(format, args...))
	}
}
