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
		`{"temperature":NaN,"model":"a"}`:                               {model: "a"}, // some clients send NaN, and some engines accept it

		``:                           {err: "want a JSON object"},
		`[]`:                         {err: "want a JSON object"},
		`"model"`:                    {err: "want a JSON object"},
		`{`:                          {err: "want a JSON object"},
		`{"model":"a"`:               {err: "want a JSON object"},
		`{"model":"a",}`:             {err: "want a JSON object"},
		`{"model":"a" "x":1}`:        {err: "want a JSON object"},
		`{"model" "a"}`:              {err: "want a JSON object"},
		`{"model":}`:                 {err: "want a JSON object"},
		`{"model":"a\"}`:             {err: "want a JSON object"},
		`{"model":"a","x":[[]}`:      {err: "want a JSON object"},
		`{model:"a"}`:                {err: "want a JSON object"},
		`{"m\x":1,"model":"a"}`:      {err: "want a JSON object"},
		`{}`:                         {err: "missing required parameter"},
		`{"model":7}`:                {err: "want a string"},
		`{"model":"a","model":null}`: {err: "want a string"},
		`{"model":""}`:               {err: "want a non-empty string"},
		`{"model":"\x"}`:             {err: "want a non-empty string"},
	} {
		r, err := readJSON([]byte(body))
		if want.err != "" {
			if apiErr := asAPIError(err); err == nil || !strings.Contains(apiErr.Message, want.err) || apiErr.Status != 400 || apiErr.param != "model" {
				t.Errorf("readJSON(%s) error = %v, want 400 with %q", body, err, want.err)
			}
			continue
		}
		if err != nil || r.model != want.model || r.stream != want.stream {
			t.Errorf("readJSON(%s) = %+v, %v, want %+v", body, r, err, want)
		}
	}
}

// FuzzReadJSON checks that the scanner agrees with encoding/json on valid objects, and
// terminates on any other input.
func FuzzReadJSON(f *testing.F) {
	for _, seed := range []string{
		`{"model":"a","stream":true,"messages":[{"role":"user","content":"hi"}]}`,
		`{"mod\u0065l":"\ud83d\ude00","model":"\\","x":[1,2,{"a":"}"}],"y":"\"","prompt":"p"}`,
		` { "model" : null , "stream":false,"":{},"a":[] } `, `{"input":[[1,2],"x"],"model":"` + "\xff" + `"}`, `{"a`, `{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := readJSON(body)
		var want map[string]json.RawMessage
		if json.Unmarshal(body, &want) != nil || want == nil {
			return
		}
		var model string
		if raw := want["model"]; len(raw) > 0 && raw[0] == '"' {
			_ = json.Unmarshal(raw, &model)
		}
		if model == "" || len(model) > maxModelName {
			if err == nil {
				t.Fatalf("readJSON(%q) = model %q, want an error", body, r.model)
			}
			return
		}
		if err != nil || r.model != model || r.stream != (string(want["stream"]) == "true") {
			t.Fatalf("readJSON(%q) = %+v, %v, want model %q, stream %s", body, r, err, model, want["stream"])
		}

		// Replacing the model must change nothing else.
		var renamed map[string]json.RawMessage
		if err := json.Unmarshal(withModel(r, "an\"other"), &renamed); err != nil {
			t.Fatalf("bodyParts() of %q = %v, want nil", body, err)
		}
		want["model"] = []byte(`"an\"other"`)
		if !reflect.DeepEqual(renamed, want) {
			t.Fatalf("bodyParts() of %q = %q, want only the model replaced", body, withModel(r, "an\"other"))
		}
	})
}

// withModel returns the body with another model name.
func withModel(r *apiRequest, name string) []byte {
	body, _ := io.ReadAll(&workerBody{parts: r.bodyParts(name)})
	return body
}

// TestAffinity checks that requests of one conversation have the same affinity, and requests
// of different conversations different ones.
func TestAffinity(t *testing.T) {
	t.Parallel()
	affinityOf := func(rest string) uint64 {
		r, err := readJSON([]byte(`{"model":"m",` + rest + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return r.affinity
	}
	const system, user, answer, user2 = `{"role":"system","content":"s"}`, `{"role":"user","content":"hi"}`, `{"role":"assistant","content":"yes"}`, `{"content":"and","role":"user"}`
	long := strings.Repeat("x", 2*affinityBytes)
	for name, test := range map[string]struct {
		a, b string
		same bool
	}{
		"continued":             {`"messages":[` + system + `,` + user + `]`, `"stream":true,"messages":[` + system + `, ` + user + `,` + answer + `,` + user2 + `]`, true},
		"continued, no system":  {`"messages":[` + user + `]`, `"messages":[` + user + `,` + answer + `,` + user2 + `]`, true},
		"input like messages":   {`"messages":[` + user + `]`, `"input":[` + user + `,` + answer + `]`, true},
		"another user":          {`"messages":[` + system + `,` + user + `]`, `"messages":[` + system + `,` + user2 + `]`, false},
		"another system":        {`"messages":[` + system + `,` + user + `]`, `"messages":[` + answer + `,` + user + `]`, false},
		"continued long prompt": {`"prompt":"` + long + `"`, `"prompt":"` + long + `y"`, true},
		"another prompt":        {`"prompt":"` + long + `"`, `"prompt":"y` + long + `"`, false},
		"other tokens":          {`"prompt":[1,2,3,4,5]`, `"prompt":[1,2,3,4,6]`, false},
	} {
		if a, b := affinityOf(test.a), affinityOf(test.b); a == 0 || b == 0 || (a == b) != test.same {
			t.Errorf("%s: affinities = %x, %x, want equal: %t", name, a, b, test.same)
		}
	}
	if a := affinityOf(`"n":1`); a != 0 {
		t.Errorf("affinity without messages = %x, want 0", a)
	}
}

func TestReadForm(t *testing.T) {
	t.Parallel()
	type field struct{ name, file, content string }
	for name, test := range map[string]struct {
		fields []field
		want   string
	}{
		"model after file":    {[]field{{"file", "a.wav", "\r\n--BOUND\r\n--x\x00\r\n\r\n"}, {"model", "", "whisper"}}, "whisper"},
		"model before file":   {[]field{{"model", "", "org/whisper"}, {"file", "a.wav", "RIFF"}}, "org/whisper"},
		"repeated model":      {[]field{{"model", "", "a"}, {"model", "", "b"}, {"prompt", "", ""}}, "b"},
		"file named model":    {[]field{{"model", "model.txt", "a"}}, ""},
		"no model":            {[]field{{"modell", "", "a"}}, ""},
		"empty model":         {[]field{{"model", "", ""}}, ""},
		"line breaks":         {[]field{{"x", "", "\r\n"}, {"model", "", "a\r\nb"}}, "a\r\nb"},
		"empty form":          {nil, ""},
		"quote in field name": {[]field{{`a"b`, "", "x"}, {"model", "", "a"}}, "a"},
		"similar delimiter":   {[]field{{"x", "", "--BOUNDARY--"}, {"model", "", "a"}}, "a"},
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
		r, err := readForm(body.Bytes(), w.FormDataContentType())
		if test.want == "" {
			if apiErr := asAPIError(err); err == nil || apiErr.param != "model" {
				t.Errorf("%s: readForm() = %+v, %v, want an error about model", name, r, err)
			}
			continue
		}
		if err != nil || r.model != test.want {
			t.Errorf("%s: readForm() = %+v, %v, want model %q", name, r, err, test.want)
			continue
		}
		before, after := body.Bytes()[:r.modelValue.from], body.Bytes()[r.modelValue.to:]
		if got, want := withModel(r, "other"), append(append(bytes.Clone(before), "other"...), after...); !bytes.Equal(got, want) {
			t.Errorf("%s: bodyParts() = %q, want %q", name, got, want)
		}
		form, err := multipart.NewReader(bytes.NewReader(withModel(r, "other")), "BOUND").ReadForm(1 << 20)
		if err != nil || form.Value["model"][len(form.Value["model"])-1] != "other" {
			t.Errorf("%s: form with another model = %v, %v, want model other", name, form, err)
		}
	}
	for _, kind := range []string{"", "application/json", "multipart/form-data", "multipart/form-data; boundary="} {
		if _, err := readForm([]byte("x"), kind); err == nil || asAPIError(err).Status != 400 {
			t.Errorf("readForm() with content type %q: error = %v, want status 400", kind, err)
		}
	}
}

// FuzzReadForm checks that the model is always a part of the body.
func FuzzReadForm(f *testing.F) {
	f.Add([]byte("--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--B--\r\n"))
	f.Add([]byte("--B\r\n\r\n\r\n--B\r\n--B \r\nx"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := readForm(body, "multipart/form-data; boundary=B")
		if err == nil && !bytes.Contains(body, []byte(r.model)) {
			t.Fatalf("readForm(%q) = model %q, want a part of the body", body, r.model)
		}
	})
}

func TestTail(t *testing.T) {
	t.Parallel()
	var all []byte
	var end tail
	for i := range 3000 {
		p := bytes.Repeat([]byte{byte(i)}, i*i%9001)
		all = append(all, p...)
		end.add(p)
		if n := min(len(all), tailSize); len(end.buf) < n || len(end.buf) > 2*tailSize || !bytes.HasSuffix(all, end.buf) {
			t.Fatalf("after %d writes the tail has %d of %d bytes, want the last %d to %d", i, len(end.buf), len(all), n, 2*tailSize)
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
		if hasDone([]byte(end)) != want {
			t.Errorf("hasDone(%q) = %t, want %t", end, !want, want)
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
			t.Errorf("usage(%s) = %d, %d, want %v", end, p, c, want)
		}
	}
}
