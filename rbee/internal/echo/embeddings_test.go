package echo

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestEmbeddings(t *testing.T) {
	t.Parallel()
	h := New(Options{Model: "m"})
	ask := func(body string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/embeddings", strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	status, text := ask(`{"model": "m", "input": ["busy bees", "Bees busy", "honey", ""]}`)
	var answer struct {
		Data []struct {
			Index     int
			Embedding []float64
		}
		Usage map[string]int
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK || len(answer.Data) != 4 || answer.Usage["prompt_tokens"] != 5 {
		t.Fatalf("%d %s, %v", status, text, err)
	}
	dot := func(a, b int) (sum float64) {
		for i, v := range answer.Data[a].Embedding {
			sum += v * answer.Data[b].Embedding[i]
		}
		return sum
	}
	if dot(0, 1) < 0.999 || dot(0, 2) > 0.9 || dot(3, 3) != 0 || len(answer.Data[0].Embedding) != dimensions {
		t.Errorf("%v, %v, %v", dot(0, 1), dot(0, 2), dot(3, 3))
	}
	if status, text := ask(`{"model": "m", "input": "x", "encoding_format": "base64"}`); status != http.StatusOK || !strings.Contains(text, `"embedding":"`) {
		t.Errorf("%d %s", status, text)
	}
	for body, want := range map[string]int{
		`{"model": "n", "input": "x"}`: 404, `{"model": "m"}`: 400, `{"model": "m", "input": []}`: 400, `{`: 400,
		`{"model": "m", "input": "x", "encoding_format": "int8"}`: 400,
	} {
		if status, text := ask(body); status != want {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
}
