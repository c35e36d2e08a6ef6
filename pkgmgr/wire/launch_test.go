package wire

import (
	"encoding/json"
	"testing"
)

func TestLaunchDigest(t *testing.T) {
	t.Parallel()
	decode := func(text string) *Launch {
		l := new(Launch)
		if err := json.Unmarshal([]byte(text), l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	base := func() *Launch { return &Launch{Args: []string{"serve"}, ReadyPath: "/health"} }
	want := base().Digest()
	if len(want) != 64 || (*Launch)(nil).Digest() != "" {
		t.Errorf("Digest() = %q, want 64 characters; Digest() of nil = %q, want empty", want, (*Launch)(nil).Digest())
	}
	for name, tt := range map[string]struct {
		launch *Launch
		same   bool
	}{
		"equal value":           {base(), true},
		"other order of fields": {decode(`{"ready_path":"/health","args":["serve"]}`), true},
		"default status":        {decode(`{"args":["serve"],"ready_path":"/health","ready_status":200}`), true},
		"unknown field":         {decode(`{"args":["serve"],"ready_path":"/health","keep_alive":true}`), true},
		"empty environment":     {&Launch{Args: []string{"serve"}, ReadyPath: "/health", Env: map[string]string{}}, true},
		"other arguments":       {&Launch{Args: []string{"run"}, ReadyPath: "/health"}, false},
		"other status":          {&Launch{Args: []string{"serve"}, ReadyPath: "/health", ReadyStatus: 204}, false},
		"additional field":      {&Launch{Args: []string{"serve"}, ReadyPath: "/health", GPU: "any"}, false},
	} {
		if got := tt.launch.Digest(); (got == want) != tt.same {
			t.Errorf("%s: Digest() = %s, want the digest %s of the base value: %t", name, got, want, tt.same)
		}
	}
}

func TestLaunchPreservesUnknownFields(t *testing.T) {
	t.Parallel()
	const text = `{"args":["serve"],"memory":{"fixed":1,"tiers":2},"keep_alive":true}`
	var w WorkerInstall
	if err := json.Unmarshal([]byte(`{"type":"w","launch":`+text+`}`), &w); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{"pointer": w.Launch, "value": *w.Launch} {
		if data, err := json.Marshal(v); err != nil || string(data) != text {
			t.Errorf("%s: Marshal() = %s, %v, want %s", name, data, err, text)
		}
	}
}
