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
	post := func(body string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/embeddings", strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	status, text := post(`{"model": "m", "input": ["busy bees", "Bees busy", "honey", ""]}`)
	var response struct {
		Data []struct {
			Index     int
			Embedding []float64
		}
		Usage map[string]int
	}
	if err := json.Unmarshal([]byte(text), &response); err != nil || status != http.StatusOK || len(response.Data) != 4 || response.Usage["prompt_tokens"] != 5 {
		t.Fatalf("POST /v1/embeddings: status %d, body %s, %v, want 4 vectors and 5 tokens", status, text, err)
	}
	dot := func(a, b int) (sum float64) {
		for i, v := range response.Data[a].Embedding {
			sum += v * response.Data[b].Embedding[i]
		}
		return sum
	}
	if dot(0, 1) < 0.999 || dot(0, 2) > 0.9 || dot(3, 3) != 0 || len(response.Data[0].Embedding) != dimensions {
		t.Errorf("dot products = %v, %v, %v, want about 1, less than 0.9 and 0", dot(0, 1), dot(0, 2), dot(3, 3))
	}
	if status, text := post(`{"model": "m", "input": "x", "encoding_format": "base64"}`); status != http.StatusOK || !strings.Contains(text, `"embedding":"`) {
		t.Errorf("base64 request: status %d, body %s, want 200 and a string", status, text)
	}
	for body, want := range map[string]int{
		`{"model": "n", "input": "x"}`: 404, `{"model": "m"}`: 400, `{"model": "m", "input": []}`: 400, `{`: 400,
		`{"model": "m", "input": "x", "encoding_format": "int8"}`: 400,
	} {
		if status, text := post(body); status != want {
			t.Errorf("request %s: status %d, body %s, want %d", body, status, text, want)
		}
	}
}
