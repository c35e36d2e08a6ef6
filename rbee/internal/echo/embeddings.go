package echo

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"math"
	"net/http"
	"strings"
)

// dimensions is the length of a vector.
const dimensions = 32

type embeddingsRequest struct {
	Model          string     `json:"model"`
	Input          *oneOrMany `json:"input"`
	EncodingFormat string     `json:"encoding_format"`
}

type embedding struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"` // numbers, or base64 of them
}

// embeddings answers POST /v1/embeddings with vectors that texts of the same words
// share, in whatever order: each word adds to one dimension.
func (s *server) embeddings(w http.ResponseWriter, r *http.Request) {
	body, refusal := readBody(w, r)
	if refusal != nil {
		writeError(w, refusal)
		return
	}
	var q embeddingsRequest
	err := json.Unmarshal(body, &q)
	switch {
	case err != nil:
		refusal = badJSON(err)
	case q.Model != s.model:
		refusal = modelNotFound(q.Model)
	case q.Input == nil || len(*q.Input) == 0 || len(*q.Input) > maxPrompts:
		refusal = badRequest("input", "'input' must be a text or an array of 1 to %d.", maxPrompts)
	case q.EncodingFormat != "" && q.EncodingFormat != "float" && q.EncodingFormat != "base64":
		refusal = badRequest("encoding_format", "'encoding_format' must be \"float\" or \"base64\".")
	}
	if refusal != nil {
		writeError(w, refusal)
		return
	}
	list, tokens := []embedding{}, 0
	for i, text := range *q.Input {
		vector := vectorOf(text)
		tokens += countWords(text)
		e := embedding{Object: "embedding", Index: i, Embedding: vector}
		if q.EncodingFormat == "base64" {
			var packed []byte
			for _, v := range vector {
				packed = binary.LittleEndian.AppendUint32(packed, math.Float32bits(v))
			}
			e.Embedding = base64.StdEncoding.EncodeToString(packed)
		}
		list = append(list, e)
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"object": "list", "data": list, "model": s.model,
		"usage": map[string]int{"prompt_tokens": tokens, "total_tokens": tokens},
	})
}

// vectorOf is a vector of length 1; of no words, of length 0.
func vectorOf(text string) []float32 {
	sums := make([]float64, dimensions)
	for word := range strings.FieldsSeq(strings.ToLower(text)) {
		h := fnv.New32a()
		_, _ = h.Write([]byte(word)) // never fails
		sums[h.Sum32()%dimensions]++
	}
	length := 0.0
	for _, v := range sums {
		length += v * v
	}
	vector := make([]float32, dimensions)
	for i, v := range sums {
		if length > 0 {
			vector[i] = float32(v / math.Sqrt(length))
		}
	}
	return vector
}
