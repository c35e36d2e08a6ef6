package echo

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAnswerTo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		prompt string
		stops  []string
		limit  int
		want   answer
	}{
		{"", nil, -1, answer{"", 0, "stop"}},
		{" \n ", nil, -1, answer{"", 0, "stop"}},
		{" \n ", nil, 0, answer{"", 0, "stop"}},
		{"one", nil, 0, answer{"", 0, "length"}},
		{" one\ttwo \n", nil, -1, answer{" one\ttwo \n", 2, "stop"}},
		{"one two ", nil, 2, answer{"one two ", 2, "stop"}},
		{"one two three", nil, 2, answer{"one two", 2, "length"}},
		{"one two three", []string{"three", "wo"}, -1, answer{"one t", 2, "stop"}},
		{"one two three", []string{"three"}, 1, answer{"one", 1, "length"}},
		{"one two", []string{""}, -1, answer{"one two", 2, "stop"}},
		{"one\u00a0two", nil, 1, answer{"one", 1, "length"}},
	} {
		if got := answerTo(tt.prompt, tt.stops, tt.limit); got != tt.want {
			t.Errorf("answerTo(%q, %q, %d) = %+v, want %+v", tt.prompt, tt.stops, tt.limit, got, tt.want)
		}
	}
}

// Whatever a request says, decoding gives an answer that is part of the
// prompt, whose pieces join to it and whose words are counted right.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"model":"echo","messages":[{"role":"user","content":"a b"}],"max_tokens":1,"stop":"b"}`))
	f.Add([]byte(`{"model":"echo","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"stream":true,"stream_options":{"include_usage":true}}`))
	f.Add([]byte(`{"model":"echo","prompt":["a\u2003b ","` + "\xff" + `"],"stop":["",null]}`))
	f.Add([]byte(`{"model":"echo","prompt":"x","max_tokens":-1,"n":null}`))
	f.Add([]byte(`{"model":7}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, decode := range []func([]byte) (job, *apiError){decodeChat, decodeCompletion} {
			j, refusal := decode(body)
			if refusal != nil {
				if refusal.status != 400 || refusal.Message == "" {
					t.Errorf("refused with %+v", refusal)
				}
				continue
			}
			if j.model == "" || len(j.answers) == 0 {
				t.Errorf("accepted as %+v", j)
			}
			total := 0
			for _, a := range j.answers {
				checkPieces(t, a)
				total += a.words
			}
			if total > j.promptTokens {
				t.Errorf("%d words answered to %d", total, j.promptTokens)
			}
		}
	})
}

func checkPieces(t *testing.T, a answer) {
	t.Helper()
	var joined strings.Builder
	n := 0
	for piece, rest := nextPiece(a.text); piece != ""; piece, rest = nextPiece(rest) {
		joined.WriteString(piece)
		n++
	}
	if joined.String() != a.text || n != a.words || n != countWords(a.text) || !utf8.ValidString(a.text) {
		t.Errorf("%d pieces %q of %+v", n, joined.String(), a)
	}
}
