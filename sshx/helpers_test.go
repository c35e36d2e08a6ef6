package sshx_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
)

func gzipped(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.Bytes()
}

func sum(text string) [32]byte { return sha256.Sum256([]byte(text)) }
