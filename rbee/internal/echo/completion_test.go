package echo

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestComplete(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		prompt string
		stops  []string
		limit  int
		want   completion
	}{
		{"", nil, -1, completion{"", 0, "stop"}},
		{" \n ", nil, -1, completion{"", 0, "stop"}},
		{" \n ", nil, 0, completion{"", 0, "stop"}},
		{"one", nil, 0, completion{"", 0, "length"}},
		{" one\ttwo \n", nil, -1, completion{" one\ttwo \n", 2, "stop"}},
		{"one two ", nil, 2, completion{"one two ", 2, "stop"}},
		{"one two three", nil, 2, completion{"one two", 2, "length"}},
		{"one two three", []string{"three", "wo"}, -1, completion{"one t", 2, "stop"}},
		{"one two three", []string{"three"}, 1, completion{"one", 1, "length"}},
		{"one two", []string{""}, -1, completion{"one two", 2, "stop"}},
		{"one\u00a0two", nil, 1, completion{"one", 1, "length"}},
	} {
		if got := complete(tt.prompt, tt.stops, tt.limit); got != tt.want {
			t.Errorf("complete(%q, %q, %d) = %+v, want %+v", tt.prompt, tt.stops, tt.limit, got, tt.want)
		}
	}
}

// FuzzDecode checks that the tokens of every completion are counted correctly and join to its
// text, and that no completion has more words than the prompt.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"model":"echo","messages":[{"role":"user","content":"a b"}],"max_tokens":1,"stop":"b"}`))
	f.Add([]byte(`{"model":"echo","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"stream":true,"stream_options":{"include_usage":true}}`))
	f.Add([]byte(`{"model":"echo","prompt":["a\u2003b ","` + "\xff" + `"],"stop":["",null]}`))
	f.Add([]byte(`{"model":"echo","prompt":"x","max_tokens":-1,"n":null}`))
	f.Add([]byte(`{"model":7}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for name, decode := range map[string]func([]byte) (generation, *apiError){"decodeChat": decodeChat, "decodeCompletion": decodeCompletion} {
			g, apiErr := decode(body)
			if apiErr != nil {
				if apiErr.status != 400 || apiErr.Message == "" {
					t.Errorf("%s(%q) = %+v, want status 400 and a message", name, body, apiErr)
				}
				continue
			}
			if g.model == "" || len(g.completions) == 0 {
				t.Errorf("%s(%q) = %+v, want a model and completions", name, body, g)
			}
			total := 0
			for _, c := range g.completions {
				checkTokens(t, c)
				total += c.words
			}
			if total > g.promptTokens {
				t.Errorf("%s(%q) generates %d words, want at most the %d of the prompt", name, body, total, g.promptTokens)
			}
		}
	})
}

func checkTokens(t *testing.T, c completion) {
	t.Helper()
	var joined strings.Builder
	n := 0
	for token, rest := nextToken(c.text); token != ""; token, rest = nextToken(rest) {
		joined.WriteString(token)
		n++
	}
	if joined.String() != c.text || n != c.words || n != countWords(c.text) || !utf8.ValidString(c.text) {
		t.Errorf("nextToken() returned %d tokens with the text %q, want the words and text of %+v", n, joined.String(), c)
	}
}
