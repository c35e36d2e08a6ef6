package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
)

func TestReadJSON(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		model  string
		stream bool
		err    string
	}{
		`{"model":"a"}`: {model: "a"},
		" {\n\t\"model\" : \"org/a:7b\" , \"stream\" : true } trailing": {model: "org/a:7b", stream: true},
		`{"mod\u0065l":"\u0061\"\\"}`:                                   {model: `a"\`},
		`{"model":"a","model":"b","stream":true,"stream":false}`:        {model: "b"},
		`{"x":{"model":"no"},"y":["model","no",{}],"model":"ü"}`:        {model: "ü"},
		`{"x":"\\\"","y":"\\\\","z":-1.5e+7,"n":null,"model":"a"}`:      {model: "a"},
		`{"MODEL":"no","model":"a","stream":"true"}`:                    {model: "a"},
		`{"temperature":NaN,"model":"a"}`:                               {model: "a"}, // of some clients, for some engines

		``:                           {err: "not a whole JSON object"},
		`[]`:                         {err: "not a whole JSON object"},
		`"model"`:                    {err: "not a whole JSON object"},
		`{`:                          {err: "not a whole JSON object"},
		`{"model":"a"`:               {err: "not a whole JSON object"},
		`{"model":"a",}`:             {err: "not a whole JSON object"},
		`{"model":"a" "x":1}`:        {err: "not a whole JSON object"},
		`{"model" "a"}`:              {err: "not a whole JSON object"},
		`{"model":}`:                 {err: "not a whole JSON object"},
		`{"model":"a\"}`:             {err: "not a whole JSON object"},
		`{"model":"a","x":[[]}`:      {err: "not a whole JSON object"},
		`{model:"a"}`:                {err: "not a whole JSON object"},
		`{"m\x":1,"model":"a"}`:      {err: "not a whole JSON object"},
		`{}`:                         {err: "names no model"},
		`{"model":7}`:                {err: "not a string"},
		`{"model":"a","model":null}`: {err: "not a string"},
		`{"model":""}`:               {err: "no name"},
		`{"model":"\x"}`:             {err: "no name"},
	} {
		a, err := readJSON([]byte(body))
		if want.err != "" {
			if no := asRefusal(err); err == nil || !strings.Contains(no.Message, want.err) || no.Status != 400 || no.param != "model" {
				t.Errorf("%s: %v, want %q", body, err, want.err)
			}
			continue
		}
		if err != nil || a.model != want.model || a.stream != want.stream {
			t.Errorf("%s: %+v, %v", body, a, err)
		}
	}
}

// Where encoding/json reads an object, the scanner sees the same in it. Where it
// does not, the scanner at least comes to an end.
func FuzzReadJSON(f *testing.F) {
	for _, seed := range []string{
		`{"model":"a","stream":true,"messages":[{"role":"user","content":"hi"}]}`,
		`{"mod\u0065l":"\ud83d\ude00","model":"\\","x":[1,2,{"a":"}"}],"y":"\"","prompt":"p"}`,
		` { "model" : null , "stream":false,"":{},"a":[] } `, `{"input":[[1,2],"x"],"model":"` + "\xff" + `"}`, `{"a`, `{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readJSON(body)
		var want map[string]json.RawMessage
		if json.Unmarshal(body, &want) != nil || want == nil {
			return
		}
		var model string
		if raw := want["model"]; len(raw) > 0 && raw[0] == '"' {
			_ = json.Unmarshal(raw, &model)
		}
		if model == "" || len(model) > maxModel {
			if err == nil {
				t.Fatalf("%q: model %q, want none", body, a.model)
			}
			return
		}
		if err != nil || a.model != model || a.stream != (string(want["stream"]) == "true") {
			t.Fatalf("%q: %+v, %v; want model %q, stream %s", body, a, err, model, want["stream"])
		}

		// Another name changes the model and nothing else.
		var renamed map[string]json.RawMessage
		if err := json.Unmarshal(renamedTo(a, "an\"other"), &renamed); err != nil {
			t.Fatalf("%q renamed: %v", body, err)
		}
		want["model"] = []byte(`"an\"other"`)
		if !reflect.DeepEqual(renamed, want) {
			t.Fatalf("%q renamed: %q", body, renamedTo(a, "an\"other"))
		}
	})
}

// renamedTo is the body that a worker gets who has another name for the model.
func renamedTo(a *ask, name string) []byte {
	body, _ := io.ReadAll(&outgoing{parts: a.parts(name)})
	return body
}

// Requests that continue a conversation have its affinity, others have not.
func TestAffinity(t *testing.T) {
	t.Parallel()
	of := func(rest string) uint64 {
		a, err := readJSON([]byte(`{"model":"m",` + rest + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return a.affinity
	}
	const system, user, answer, user2 = `{"role":"system","content":"s"}`, `{"role":"user","content":"hi"}`, `{"role":"assistant","content":"yes"}`, `{"content":"and","role":"user"}`
	long := strings.Repeat("x", 2*beginning)
	for name, test := range map[string]struct {
		a, b string
		same bool
	}{
		"continued":                {`"messages":[` + system + `,` + user + `]`, `"stream":true,"messages":[` + system + `, ` + user + `,` + answer + `,` + user2 + `]`, true},
		"continued, no system":     {`"messages":[` + user + `]`, `"messages":[` + user + `,` + answer + `,` + user2 + `]`, true},
		"input is like messages":   {`"messages":[` + user + `]`, `"input":[` + user + `,` + answer + `]`, true},
		"another user":             {`"messages":[` + system + `,` + user + `]`, `"messages":[` + system + `,` + user2 + `]`, false},
		"another system":           {`"messages":[` + system + `,` + user + `]`, `"messages":[` + answer + `,` + user + `]`, false},
		"a long prompt, continued": {`"prompt":"` + long + `"`, `"prompt":"` + long + `y"`, true},
		"another prompt":           {`"prompt":"` + long + `"`, `"prompt":"y` + long + `"`, false},
		"other tokens":             {`"prompt":[1,2,3,4,5]`, `"prompt":[1,2,3,4,6]`, false},
	} {
		if a, b := of(test.a), of(test.b); a == 0 || b == 0 || (a == b) != test.same {
			t.Errorf("%s: %x and %x", name, a, b)
		}
	}
	if a := of(`"n":1`); a != 0 {
		t.Errorf("of nothing: %x", a)
	}
}

func TestReadForm(t *testing.T) {
	t.Parallel()
	type field struct{ name, file, content string }
	for name, test := range map[string]struct {
		fields []field
		want   string
	}{
		"after a file":       {[]field{{"file", "a.wav", "\r\n--BOUND\r\n--x\x00\r\n\r\n"}, {"model", "", "whisper"}}, "whisper"},
		"before it":          {[]field{{"model", "", "org/whisper"}, {"file", "a.wav", "RIFF"}}, "org/whisper"},
		"the last counts":    {[]field{{"model", "", "a"}, {"model", "", "b"}, {"prompt", "", ""}}, "b"},
		"a file is no name":  {[]field{{"model", "model.txt", "a"}}, ""},
		"another field":      {[]field{{"modell", "", "a"}}, ""},
		"an empty one":       {[]field{{"model", "", ""}}, ""},
		"with lines":         {[]field{{"x", "", "\r\n"}, {"model", "", "a\r\nb"}}, "a\r\nb"},
		"nothing in it":      {nil, ""},
		"a quote in a name":  {[]field{{`a"b`, "", "x"}, {"model", "", "a"}}, "a"},
		"looks like the end": {[]field{{"x", "", "--BOUNDARY--"}, {"model", "", "a"}}, "a"},
	} {
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		_ = w.SetBoundary("BOUND")
		for _, f := range test.fields {
			disposition := fmt.Sprintf(`form-data; name=%q`, f.name)
			if f.file != "" {
				disposition += fmt.Sprintf(`; filename=%q`, f.file)
			}
			part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {disposition}})
			_, _ = part.Write([]byte(f.content))
		}
		w.Close()
		if strings.Contains(name, "after") {
			body = *bytes.NewBuffer(append([]byte("a preamble\r\n"), body.Bytes()...))
			body = *bytes.NewBuffer(bytes.Replace(body.Bytes(), []byte("\r\n--BOUND\r\n--x"), []byte("\r\n--BOUNDS\r\n--x"), 1))
		}
		a, err := readForm(body.Bytes(), w.FormDataContentType())
		if test.want == "" {
			if no := asRefusal(err); err == nil || no.param != "model" {
				t.Errorf("%s: %+v, %v", name, a, err)
			}
			continue
		}
		if err != nil || a.model != test.want {
			t.Errorf("%s: %+v, %v", name, a, err)
			continue
		}
		before, after := body.Bytes()[:a.at.from], body.Bytes()[a.at.to:]
		if got, want := renamedTo(a, "other"), append(append(bytes.Clone(before), "other"...), after...); !bytes.Equal(got, want) {
			t.Errorf("%s renamed: %q", name, got)
		}
		form, err := multipart.NewReader(bytes.NewReader(renamedTo(a, "other")), "BOUND").ReadForm(1 << 20)
		if err != nil || form.Value["model"][len(form.Value["model"])-1] != "other" {
			t.Errorf("%s renamed: %v, %v", name, form, err)
		}
	}
	for _, kind := range []string{"", "application/json", "multipart/form-data", "multipart/form-data; boundary="} {
		if _, err := readForm([]byte("x"), kind); err == nil || asRefusal(err).Status != 400 {
			t.Errorf("%q: %v", kind, err)
		}
	}
}

// Whatever is in a form, no part of it is misread beyond its end.
func FuzzReadForm(f *testing.F) {
	f.Add([]byte("--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--B--\r\n"))
	f.Add([]byte("--B\r\n\r\n\r\n--B\r\n--B \r\nx"))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readForm(body, "multipart/form-data; boundary=B")
		if err == nil && !bytes.Contains(body, []byte(a.model)) {
			t.Fatalf("%q: %q", body, a.model)
		}
	})
}

func TestTail(t *testing.T) {
	t.Parallel()
	var whole []byte
	var end tail
	for i := range 3000 {
		p := bytes.Repeat([]byte{byte(i)}, i*i%9001)
		whole = append(whole, p...)
		end.add(p)
		if n := min(len(whole), tailSize); len(end.kept) < n || len(end.kept) > 2*tailSize || !bytes.HasSuffix(whole, end.kept) {
			t.Fatalf("after %d: %d kept of %d", i, len(end.kept), len(whole))
		}
	}
}

func TestDone(t *testing.T) {
	t.Parallel()
	for end, want := range map[string]bool{
		"data: [DONE]\n\n":                          true,
		"data: {}\n\ndata:[DONE]\n":                 true,
		"data: {}\r\n\r\ndata: [DONE]\r\n\r\n: x\n": true,
		"":                               false,
		"data: {}\n\n":                   false,
		"data: [DONE]\n\ndata: {}\n\n":   false,
		"data: {\"x\":\"data: [DONE]\"}": false,
	} {
		if done([]byte(end)) != want {
			t.Errorf("%q: %t", end, !want)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for end, want := range map[string][2]int{
		`{"choices":[],"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}`:                                   {7, 5},
		`,"usage": {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": 5}}}` + "\n\n":           {7, 5},
		`data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}` + "\n\n" + `data: {"usage":null}` + "\n\ndata: [DONE]\n\n": {1, 2},
		`{"usage":{"prompt_tokens":7,"total_tokens":7}}`:                                                                       {7, 0},
		`{"content":"say \"usage\":{\"prompt_tokens\":9}"}`:                                                                    {0, 0},
		`"usage"`: {0, 0},
		`"usage":{"prompt_tokens":7,"completion_tok`:           {7, 0},
		`"usage":{"prompt_tokens":-7,"completion_tokens":"5"}`: {0, 0},
		``: {0, 0},
	} {
		if p, c := usage([]byte(end)); p != want[0] || c != want[1] {
			t.Errorf("%s: %d, %d", end, p, c)
		}
	}
}
