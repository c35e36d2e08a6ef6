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

// dimensions is the length of an embedding vector.
const dimensions = 32

type embeddingsRequest struct {
	Model          string     `json:"model"`
	Input          *oneOrMany `json:"input"`
	EncodingFormat string     `json:"encoding_format"`
}

type embedding struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"` // []float32, or a string with their base64 encoding
}

// embeddings handles POST /v1/embeddings. Texts with the same words in any order have the
// same vector: each word increments one dimension.
func (s *server) embeddings(w http.ResponseWriter, r *http.Request) {
	body, apiErr := readBody(w, r)
	if apiErr != nil {
		writeError(w, apiErr)
		return
	}
	var q embeddingsRequest
	err := json.Unmarshal(body, &q)
	switch {
	case err != nil:
		apiErr = jsonError(err)
	case q.Model != s.model:
		apiErr = modelNotFound(q.Model)
	case q.Input == nil || len(*q.Input) == 0 || len(*q.Input) > maxPrompts:
		apiErr = badRequest("input", "'input' must be a string or an array of 1 to %d strings.", maxPrompts)
	case q.EncodingFormat != "" && q.EncodingFormat != "float" && q.EncodingFormat != "base64":
		apiErr = badRequest("encoding_format", "'encoding_format' must be \"float\" or \"base64\".")
	}
	if apiErr != nil {
		writeError(w, apiErr)
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

// vectorOf returns the embedding of text: a vector of length 1, or the zero vector if text
// has no words.
func vectorOf(text string) []float32 {
	counts := make([]float64, dimensions)
	for word := range strings.FieldsSeq(strings.ToLower(text)) {
		h := fnv.New32a()
		_, _ = h.Write([]byte(word)) // never fails
		counts[h.Sum32()%dimensions]++
	}
	squaredLength := 0.0
	for _, n := range counts {
		squaredLength += n * n
	}
	vector := make([]float32, dimensions)
	for i, n := range counts {
		if squaredLength > 0 {
			vector[i] = float32(n / math.Sqrt(squaredLength))
		}
	}
	return vector
}
