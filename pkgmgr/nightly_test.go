package pkgmgr_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

const nightlyRecipe = `type: engine
versions:
  github: ggml-org/llama.cpp
  tag: "{version}"
  prereleases: true
  match: "b[0-9]*"
  pointer: { tag: "v{version}", asset: nightly-tag.txt }
sources:
  - name: cpu
    steps: [archive: { asset: "llama-{version}-bin-ubuntu-x64.tar.gz", strip: 1 }]
    entry: llama-server
start: { args: [--port, "{port}"] }
ready: { path: /health }
`

// llamaReleases describes the releases of a simulated llama.cpp repository.
type llamaReleases struct {
	from, to int              // range of builds
	stable   bool             // builds are not marked as prereleases
	versions map[int][]string // pointer releases (tag and content of the text file), by the build that precedes them
	missing  map[int]string   // part of the names of missing files, by build
}

// publish adds the releases to s.
func (r llamaReleases) publish(s *origintest.Server) {
	for b := r.from; b <= r.to; b++ {
		tag := fmt.Sprintf("b%d", b)
		if part, ok := r.missing[b]; ok {
			s.AddLlamaBuild(tag, r.stable, part)
		} else {
			s.AddLlamaBuild(tag, r.stable)
		}
		if v := r.versions[b]; v != nil {
			s.AddLlamaVersion(v[0], v[1])
		}
	}
}

// planVersion plans a sync of one hive with a version constraint. It returns the version,
// the notes about the release, the reason if the hive is blocked, and the number of requests
// to the release API.
func (f *lockFleet) planVersion(constraint string, edit func(*pkgmgr.Options)) (version, note, blocked string, requests int) {
	f.t.Helper()
	f.config.Hives = f.config.Hives[:1]
	workers := f.config.Hives[0].Workers
	workers[len(workers)-1].Version = constraint
	var notes []string
	before := f.origin.RequestCount("/api/")
	fleet, lock := f.open(func(o *pkgmgr.Options) {
		o.Events = func(e operations.Event) {
			if strings.HasPrefix(e.Message, origintest.LlamaRepo) {
				notes = append(notes, e.Message)
			}
		}
		if edit != nil {
			edit(o)
		}
	})
	fleet.Read(f.t.Context(), pkgmgr.ReadOptions{Devices: true})
	plan := fleet.Plan(f.t.Context(), plan.Options{Fetch: true})
	for _, w := range lock.Workers() {
		if w.Type == "engine" && w.Requested == constraint {
			version = w.Version
		}
	}
	for _, b := range plan.Blocked {
		blocked += b.Reason
	}
	return version, strings.Join(notes, "; "), blocked, f.origin.RequestCount("/api/") - before
}

func TestNightlyReleases(t *testing.T) {
	t.Parallel()
	versions := func(v ...string) map[int][]string {
		all := map[int][]string{10731: {"v0.4.0", "b10731\n"}}
		if v != nil {
			all[10811] = v
		}
		return all
	}
	complete := llamaReleases{from: 10700, to: 10830, versions: versions("v0.5.0", "b10811\n")}
	withoutFile := func(build int, part string) llamaReleases {
		releases := complete
		releases.missing = map[int]string{build: part}
		return releases
	}
	noLinux := llamaReleases{from: 10700, to: 10830, versions: complete.versions, missing: map[int]string{}}
	for b := range 200 {
		noLinux.missing[10700+b] = "ubuntu"
	}
	withPointer := func(content string) llamaReleases {
		return llamaReleases{from: 10700, to: 10811, versions: versions("v0.5.0", content)}
	}
	const usingOther = "ggml-org/llama.cpp b10811 has no asset llama-b10811-bin-ubuntu-x64.tar.gz for gpu-00: using "
	for name, tt := range map[string]struct {
		llamaReleases
		constraint string
		want       string
		note       string
		blocked    string // part of the reason
		requests   int
	}{
		"latest":                                     {complete, "latest", "b10811", "", "", 2},
		"latest, newest build incomplete":            {withoutFile(10830, "ubuntu"), "latest", "b10811", "", "", 2},
		"latest, no linux":                           {withoutFile(10811, "ubuntu"), "latest", "b10810", usingOther + "b10810", "", 3},
		"latest, no files":                           {withoutFile(10811, ""), "latest", "b10810", usingOther + "b10810", "", 3},
		"latest, target far behind newest build":     {llamaReleases{from: 10800, to: 10950, versions: versions("v0.5.0", "b10811\n"), missing: map[int]string{10811: "ubuntu"}}, "latest", "b10851", usingOther + "b10851", "", 3},
		"latest, other files missing":                {withoutFile(10811, "rocm"), "latest", "b10811", "", "", 2},
		"latest, no pointer yet":                     {llamaReleases{from: 10700, to: 10811, versions: versions("v0.5.0", "")}, "latest", "b10731", "", "", 2},
		"latest, no version yet":                     {llamaReleases{from: 10700, to: 10811}, "latest", "b10811", "", "", 2},
		"latest, stable builds":                      {llamaReleases{from: 10700, to: 10811, stable: true}, "latest", "b10811", "", "", 1},
		"latest, stable, incomplete build":           {llamaReleases{from: 10700, to: 10811, stable: true, missing: map[int]string{10811: "ubuntu"}}, "latest", "b10810", usingOther + "b10810", "", 2},
		"latest, no linux at all":                    {noLinux, "latest", "", "", "none of the newest 99 releases of ggml-org/llama.cpp satisfies latest and has the files that the recipe requires", 3},
		"range":                                      {complete, ">=b10000, <b10810", "b10809", "", "", 1},
		"range, second page":                         {complete, "<b10710", "b10709", "", "", 2},
		"range, stable builds":                       {llamaReleases{from: 10700, to: 10811, stable: true}, ">=b10000, <b10800", "b10799", "", "", 1},
		"range, no linux":                            {withoutFile(10809, "ubuntu"), "<b10810", "b10808", "ggml-org/llama.cpp b10809 has no asset llama-b10809-bin-ubuntu-x64.tar.gz for gpu-00: using b10808", "", 1},
		"range, too old":                             {llamaReleases{from: 10480, to: 10811, stable: true}, "<b10500", "", "", "(checked 300 releases; for an older release, set its exact version in the config)", 3},
		"range without a match":                      {complete, ">b20000", "", "", "satisfies >b20000 and has the files that the recipe requires", 2},
		"range of versions":                          {complete, ">=v0.4.0", "", "", `invalid version range ">=v0.4.0": want versions of ggml-org/llama.cpp such as b[0-9]*, or one release such as v1.2.3`, 0},
		"exact":                                      {complete, "b10705", "b10705", "", "", 1},
		"exact, stable builds":                       {llamaReleases{from: 10700, to: 10711, stable: true}, "b10705", "b10705", "", "", 1},
		"exact, no linux":                            {withoutFile(10705, "ubuntu"), "b10705", "", "", "release b10705 of ggml-org/llama.cpp has no asset llama-b10705-bin-ubuntu-x64.tar.gz; assets: ", 1},
		"exact, no files":                            {withoutFile(10705, ""), "b10705", "", "", "release b10705 of ggml-org/llama.cpp has no files yet: try again later, or set another version in the config", 1},
		"exact, unknown":                             {complete, "b99999", "", "", "ggml-org/llama.cpp has no release b99999", 1},
		"exact, other format":                        {complete, "foo", "", "", `invalid version "foo": want a version of ggml-org/llama.cpp such as b[0-9]*, or one release such as v1.2.3`, 0},
		"version":                                    {complete, "v0.5.0", "b10811", "", "", 2},
		"version, without v":                         {complete, "0.4.0", "b10731", "", "", 2},
		"version, with an operator":                  {complete, "==v0.4.0", "b10731", "", "", 2},
		"version, unknown":                           {complete, "v9.9.9", "", "", "ggml-org/llama.cpp has no release v9.9.9: want a version such as b[0-9]*", 1},
		"version, no pointer yet":                    {withPointer(""), "v0.5.0", "", "", "release v0.5.0 of ggml-org/llama.cpp has no asset nightly-tag.txt with its version: set the version in the config", 1},
		"version, no linux":                          {withoutFile(10811, "ubuntu"), "v0.5.0", "", "", "release b10811 of ggml-org/llama.cpp has no asset llama-b10811-bin-ubuntu-x64.tar.gz", 2},
		"pointer to itself":                          {withPointer("v0.5.0"), "latest", "", "", `invalid nightly-tag.txt of release v0.5.0 of ggml-org/llama.cpp: got "v0.5.0", want the tag of a release with a version such as b[0-9]*; set an exact version in the config`, 1},
		"pointer with HTML":                          {withPointer("<!DOCTYPE html><title>Sign in</title>"), "latest", "", "", `invalid nightly-tag.txt of release v0.5.0 of ggml-org/llama.cpp: got "<!DOCTYPE html>`, 1},
		"pointer with large content":                 {withPointer(strings.Repeat("b10811\n", 1000)), "latest", "", "", "cannot read nightly-tag.txt of release v0.5.0 of ggml-org/llama.cpp: ", 1},
		"pointer to an unknown build":                {withPointer("b90000\n"), "latest", "", "", "cannot resolve release v0.5.0 of ggml-org/llama.cpp to its version: ggml-org/llama.cpp has no release b90000; set an exact version in the config", 2},
		"version with a pointer to an unknown build": {withPointer("b90000\n"), "v0.5.0", "", "", "cannot resolve release v0.5.0 of ggml-org/llama.cpp to its version: ", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, nightlyRecipe)
			tt.publish(f.origin)
			version, note, blocked, requests := f.planVersion(tt.constraint, nil)
			if version != tt.want || note != tt.note || requests != tt.requests {
				t.Errorf("planVersion(%q) = %q, note %q, %d requests; want %q, %q, %d", tt.constraint, version, note, requests, tt.want, tt.note, tt.requests)
			}
			if (blocked == "") != (tt.blocked == "") || !strings.Contains(blocked, tt.blocked) {
				t.Errorf("planVersion(%q): blocked %q, want %q in it", tt.constraint, blocked, tt.blocked)
			}
		})
	}
}

// TestReleaseResponses checks the errors for servers that are not a release API, and for
// truncated responses.
func TestReleaseResponses(t *testing.T) {
	t.Parallel()
	const hint = "; check GITHUB_API_URL and the proxy"
	for name, tt := range map[string]struct{ constraint, path, contentType, body, want string }{
		"HTML":              {"latest", "/releases", "text/html; charset=utf-8", "<html>Sign in</html>", `returned text/html instead of JSON: "<html>Sign in</html>"` + hint},
		"HTML, exact":       {"b10705", "/releases", "text/html", "<html>", "cannot read the releases of ggml-org/llama.cpp: http"},
		"empty body":        {"latest", "/releases", "", "", "returned an empty body" + hint},
		"no tag":            {"latest", "/latest", "application/json", "{}", "returned a release without a tag" + hint},
		"object for a list": {"<b10710", "/releases", "application/json", `{"message": "no"}`, "returned unexpected JSON: "},
		"empty entries":     {"<b10710", "/releases", "application/json", `[{}]`, "returned a release without a tag" + hint},
		"null":              {"<b10710", "/releases", "application/json", `[null]`, "returned a release without a tag" + hint},
		"other release":     {"b10705", "/tags/", "application/json", `{"tag_name": "b10706"}`, `returned release "b10706" for the tag b10705` + hint},
		"empty list":        {"<b10710", "/releases", "application/json", `[]`, "ggml-org/llama.cpp has no release with a tag such as {version} and a version such as b[0-9]*"},
		"truncated":         {"<b10710", "/releases", "application/json", `[{"tag_name": "b10705", "assets": [`, "returned unexpected JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, nightlyRecipe)
			llamaReleases{from: 10700, to: 10711}.publish(f.origin)
			f.origin.SetResponse(tt.path, tt.contentType, tt.body)
			_, _, blocked, _ := f.planVersion(tt.constraint, nil)
			if !strings.Contains(blocked, tt.want) {
				t.Errorf("planVersion(%q): blocked %q, want %q in it", tt.constraint, blocked, tt.want)
			}
		})
	}
	f := newRecipeFleet(t, strings.Replace(nightlyRecipe, "  prereleases: true\n", "", 1))
	llamaReleases{from: 10700, to: 10711}.publish(f.origin)
	if _, _, blocked, _ := f.planVersion("latest", nil); !strings.Contains(blocked, "ggml-org/llama.cpp has only prereleases among its newest 12 releases: set an exact version, or add prereleases: true to versions in the recipe") {
		t.Errorf("planVersion(latest) without prereleases: blocked %q, want a hint to prereleases: true", blocked)
	}
}

// TestManyAssets checks that a lookup requests fewer releases at once if each release has
// hundreds of files.
func TestManyAssets(t *testing.T) {
	t.Parallel()
	for position, want := range map[int]string{0: "1.30, 1", 9: "1.21, 2", 15: "1.15, 3", 25: ", 3: none of the newest 20 releases of bees/engine satisfies latest and has the files that the recipe requires (checked 20 releases; for an older release, set its exact version in the config)"} {
		f := newLockFleet(t)
		for i := range 31 {
			r := origintest.Release{Tag: fmt.Sprintf("v1.%d", i), Assets: map[string][]byte{}}
			for n := range 150 {
				r.Assets[fmt.Sprintf("other-%d.tar.gz", n)] = nil
			}
			if i == 30-position {
				r.Assets[fmt.Sprintf("engine-1.%d-any.tar.gz", i)] = []byte("x")
			}
			f.origin.AddRelease("bees/engine", r)
		}
		version, _, blocked, requests := f.planVersion("latest", nil)
		if _, reason, ok := strings.Cut(blocked, "engine.yaml:2: "); ok {
			blocked = ": " + reason
		}
		if got := fmt.Sprintf("%s, %d%s", version, requests, blocked); got != want {
			t.Errorf("planVersion(latest) with the file in release %d = %s, want %s", position, got, want)
		}
	}
}

// TestUnchangedReleases checks that responses of the release API are cached with their ETag,
// separately with and without a token, and that a damaged cache file is not used.
func TestUnchangedReleases(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, nightlyRecipe)
	llamaReleases{from: 10700, to: 10811, versions: map[int][]string{10811: {"v0.5.0", "b10811"}}}.publish(f.origin)
	dir := filepath.Join(f.cache, "releases")
	check := func(name string, edit func(*pkgmgr.Options), want string, wantRequests, wantUnchanged int) {
		t.Helper()
		before := f.origin.Unchanged()
		version, _, blocked, requests := f.planVersion("latest", edit)
		unchanged := f.origin.Unchanged() - before
		if version != want || blocked != "" || requests != wantRequests || unchanged != wantUnchanged {
			t.Errorf("%s: version %q (%s), %d requests, %d unchanged; want %q, %d, %d", name, version, blocked, requests, unchanged, want, wantRequests, wantUnchanged)
		}
	}
	withToken := func(o *pkgmgr.Options) { o.Origins.GitHubToken = "token" }
	old := filepath.Join(dir, "old")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	monthAgo := time.Now().Add(-31 * 24 * time.Hour)
	if err := os.Chtimes(old, monthAgo, monthAgo); err != nil {
		t.Fatal(err)
	}
	check("first", nil, "b10811", 2, 0)
	check("second", nil, "b10811", 2, 2)
	check("with a token", withToken, "b10811", 2, 0)
	check("second with a token", withToken, "b10811", 2, 2)
	if _, err := os.Stat(old); err == nil {
		t.Errorf("the unused cache file %s exists, want it removed", old)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("the cache has %d files, %v, want 4", len(files), err)
	}
	for _, file := range files {
		path := filepath.Join(dir, file.Name())
		data, err := os.ReadFile(path)
		if info, _ := file.Info(); err != nil || info.Mode() != 0o600 || strings.Contains(string(data), "token\"") {
			t.Errorf("%s: mode %v, %v, want 0600 and no token in it", file.Name(), info.Mode(), err)
		}
		damaged := strings.ReplaceAll(string(data), "sha256:", "sha256:0")
		if len(files)%2 == 0 {
			damaged = damaged[:len(damaged)-1] + " "
		}
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check("damaged", nil, "b10811", 2, 0)
	check("repaired", nil, "b10811", 2, 2)
	f.origin.AddLlamaBuild("b10812", false)
	f.origin.AddLlamaVersion("v0.5.1", "b10812")
	check("changed", nil, "b10812", 2, 0)
	// If the directory is not writable, responses are not cached.
	f.cache = filepath.Join(f.lock, "file")
	check("no cache", nil, "b10812", 2, 0)
}

// TestVersionOfBuild checks that a hive has no drift if the config requests a pointer release
// and the build that it refers to is installed, with and without a lock.
func TestVersionOfBuild(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, nightlyRecipe)
	llamaReleases{from: 10800, to: 10811, versions: map[int][]string{10805: {"v0.4.0", "b10805"}, 10811: {"v0.5.0", "b10811"}}}.publish(f.origin)
	setVersion := func(constraint string) {
		for i := range f.config.Hives {
			workers := f.config.Hives[i].Workers
			workers[len(workers)-1].Version = constraint
		}
	}
	setVersion("v0.5.0")
	if r := f.sync(plan.Options{}, nil); f.version("gpu-00") != "b10811" || len(r.Plan.Blocked) != 0 {
		t.Fatalf("sync: gpu-00 has engine %q, blocked %+v, want b10811", f.version("gpu-00"), r.Plan.Blocked)
	}
	if workers := f.load().Workers(); len(workers) != 1 || workers[0].Requested != "v0.5.0" || workers[0].Version != "b10811" {
		t.Errorf("the lock has %+v, want v0.5.0 resolved to b10811", workers)
	}
	before := f.origin.RequestCount("/")
	for _, tt := range []struct {
		constraint, lock, want string // lock: "remove" or "" to keep it
	}{
		{"v0.5.0", "", ""},
		{"v0.5.0", "remove", ""},
		{"0.5.0", "remove", ""},
		{"v0.4.0", "remove", ""}, // its build is not known
		{"b10811", "remove", ""},
		{"b10805", "remove", "Worker 'engine' is b10811, want b10805"},
	} {
		if tt.lock != "" {
			_ = os.Remove(f.lock)
		}
		setVersion(tt.constraint)
		var got []string
		for _, d := range f.status().Drift {
			if d.Hive == "gpu-00" {
				got = append(got, d.Details)
			}
		}
		if text := strings.Join(got, "; "); text != tt.want {
			t.Errorf("%s, lock %q: status has drift %q, want %q", tt.constraint, tt.lock, text, tt.want)
		}
	}
	if n := f.origin.RequestCount("/") - before; n != 0 {
		t.Errorf("status made %d requests, want none", n)
	}
	setVersion("v0.4.0")
	if f.sync(plan.Options{}, nil); f.version("gpu-01") != "b10805" {
		t.Errorf("sync of v0.4.0: gpu-01 has engine %q, want b10805", f.version("gpu-01"))
	}
	if plan := f.status(); len(plan.Drift) != 0 {
		t.Errorf("status has drift %+v, want none", plan.Drift)
	}
}

// TestDownloadMirror checks that hives get the URLs of a mirror of github.com, that the lock
// contains the original URLs, and that a password of the mirror is not sent to hives.
func TestDownloadMirror(t *testing.T) {
	t.Parallel()
	for name, withPassword := range map[string]bool{"open": false, "with a password": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, nightlyRecipe)
			mirror := f.origin.MirrorGitHub()
			llamaReleases{from: 10810, to: 10811, versions: map[int][]string{10811: {"v0.5.0", "b10811"}}}.publish(f.origin)
			const file = "/ggml-org/llama.cpp/releases/download/b10811/llama-b10811-bin-ubuntu-x64.tar.gz"
			want, downloads := mirror+file, mirror
			if withPassword {
				want, downloads = "", strings.Replace(mirror, "://", "://me:secret@", 1)
			}
			var steps []wire.InstallStep
			f.recordSteps("gpu-00", &steps)
			r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Origins.ReleaseDownloads = downloads + "/" })
			if len(steps) != 1 || len(r.Plan.Blocked) != 0 {
				t.Fatalf("sync: blocked %+v, reports %+v, want one install step", r.Plan.Blocked, r.Hives)
			}
			if got := steps[0].Artifact.URL; got != want {
				t.Errorf("the hive got URL %q, want %q", got, want)
			}
			text, err := os.ReadFile(f.lock)
			if err != nil || !strings.Contains(string(text), `"https://github.com`+file+`"`) || strings.Contains(string(text), "secret") {
				t.Errorf("the lock is %s, %v, want the URL of github.com and no password", text, err)
			}
			if n := f.origin.RequestCount("/mirror/ggml-org/llama.cpp/releases/download/v0.5.0/nightly-tag.txt"); n != 1 {
				t.Errorf("this machine fetched the pointer %d times, want 1", n)
			}
			if n := f.origin.RequestCount("/mirror" + file); withPassword && n != 1 {
				t.Errorf("this machine fetched the file %d times, want 1", n)
			}
		})
	}
}
