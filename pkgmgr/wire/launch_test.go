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
		t.Errorf("Digest() = %q, of nil %q", want, (*Launch)(nil).Digest())
	}
	for name, tt := range map[string]struct {
		launch *Launch
		same   bool
	}{
		"the same":                       {base(), true},
		"in another order":               {decode(`{"ready_path":"/health","args":["serve"]}`), true},
		"with what rbee fills in":        {decode(`{"args":["serve"],"ready_path":"/health","ready_status":200}`), true},
		"with a field of another rbee":   {decode(`{"args":["serve"],"ready_path":"/health","keep_alive":true}`), true},
		"other arguments":                {&Launch{Args: []string{"run"}, ReadyPath: "/health"}, false},
		"a status that the recipe sets":  {&Launch{Args: []string{"serve"}, ReadyPath: "/health", ReadyStatus: 204}, false},
		"one more field that is set":     {&Launch{Args: []string{"serve"}, ReadyPath: "/health", GPU: "any"}, false},
		"an environment that is not set": {&Launch{Args: []string{"serve"}, ReadyPath: "/health", Env: map[string]string{}}, true},
	} {
		if got := tt.launch.Digest() == want; got != tt.same {
			t.Errorf("%s: Digest() is the same = %t, want %t", name, got, tt.same)
		}
	}
}

func TestLaunchKeepsUnknownFields(t *testing.T) {
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
