package hive

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
)

// sum256 is a running SHA-256.
type sum256 struct{ hash.Hash }

func newHash() sum256 { return sum256{sha256.New()} }

func (s sum256) hex() string { return hex.EncodeToString(s.Sum(nil)) }
