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

// scheme is a repository of llama.cpp.
type scheme struct {
	from, to int              // builds
	classic  bool             // builds are releases, not prereleases
	versions map[int][]string // after a build: tag and content of the text file
	without  map[int]string   // files that a build lacks, by a part of their names
}

func (k scheme) publish(s *origintest.Server) {
	for b := k.from; b <= k.to; b++ {
		tag := fmt.Sprintf("b%d", b)
		if part, ok := k.without[b]; ok {
			s.AddLlamaBuild(tag, k.classic, part)
		} else {
			s.AddLlamaBuild(tag, k.classic)
		}
		if v := k.versions[b]; v != nil {
			s.AddLlamaVersion(v[0], v[1])
		}
	}
}

// lookUp plans a sync of one hive with a version constraint. It returns the version,
// the notes on the release, the reason why nothing can be installed, and the number of
// requests to the release API.
func (f *lockFleet) lookUp(wish string, edit func(*pkgmgr.Options)) (version, note, blocked string, requests int) {
	f.t.Helper()
	f.config.Hives = f.config.Hives[:1]
	workers := f.config.Hives[0].Workers
	workers[len(workers)-1].Version = wish
	var notes []string
	before := f.origin.Asked("/api/")
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
		if w.Type == "engine" && w.Requested == wish {
			version = w.Version
		}
	}
	for _, b := range plan.Blocked {
		blocked += b.Reason
	}
	return version, strings.Join(notes, "; "), blocked, f.origin.Asked("/api/") - before
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
	usual := scheme{from: 10700, to: 10830, versions: versions("v0.5.0", "b10811\n")}
	lacking := func(build int, part string) scheme {
		k := usual
		k.without = map[int]string{build: part}
		return k
	}
	noLinux := scheme{from: 10700, to: 10830, versions: usual.versions, without: map[int]string{}}
	for b := range 200 {
		noLinux.without[10700+b] = "ubuntu"
	}
	pointing := func(content string) scheme {
		return scheme{from: 10700, to: 10811, versions: versions("v0.5.0", content)}
	}
	const taking = "ggml-org/llama.cpp b10811 has no asset llama-b10811-bin-ubuntu-x64.tar.gz for gpu-00: using "
	for name, k := range map[string]struct {
		scheme
		wish     string
		want     string
		note     string
		blocked  string // a part
		requests int
	}{
		"latest":                            {usual, "latest", "b10811", "", "", 2},
		"latest, newest build incomplete":   {lacking(10830, "ubuntu"), "latest", "b10811", "", "", 2},
		"latest, no linux":                  {lacking(10811, "ubuntu"), "latest", "b10810", taking + "b10810", "", 3},
		"latest, no files":                  {lacking(10811, ""), "latest", "b10810", taking + "b10810", "", 3},
		"latest, far behind":                {scheme{from: 10800, to: 10950, versions: versions("v0.5.0", "b10811\n"), without: map[int]string{10811: "ubuntu"}}, "latest", "b10851", taking + "b10851", "", 3},
		"latest, other files missing":       {lacking(10811, "rocm"), "latest", "b10811", "", "", 2},
		"latest, no pointer yet":            {scheme{from: 10700, to: 10811, versions: versions("v0.5.0", "")}, "latest", "b10731", "", "", 2},
		"latest, no version yet":            {scheme{from: 10700, to: 10811}, "latest", "b10811", "", "", 2},
		"latest, classic":                   {scheme{from: 10700, to: 10811, classic: true}, "latest", "b10811", "", "", 1},
		"latest, classic, half-published":   {scheme{from: 10700, to: 10811, classic: true, without: map[int]string{10811: "ubuntu"}}, "latest", "b10810", taking + "b10810", "", 2},
		"latest, no linux at all":           {noLinux, "latest", "", "", "none of the newest 99 releases of ggml-org/llama.cpp satisfies latest and has the files that the recipe requires", 3},
		"range":                             {usual, ">=b10000, <b10810", "b10809", "", "", 1},
		"range, second page":                {usual, "<b10710", "b10709", "", "", 2},
		"range, classic":                    {scheme{from: 10700, to: 10811, classic: true}, ">=b10000, <b10800", "b10799", "", "", 1},
		"range, no linux":                   {lacking(10809, "ubuntu"), "<b10810", "b10808", "ggml-org/llama.cpp b10809 has no asset llama-b10809-bin-ubuntu-x64.tar.gz for gpu-00: using b10808", "", 1},
		"range, too old":                    {scheme{from: 10480, to: 10811, classic: true}, "<b10500", "", "", "(checked 300 releases; for an older release, set its exact version in the config)", 3},
		"range, nothing":                    {usual, ">b20000", "", "", "satisfies >b20000 and has the files that the recipe requires", 2},
		"range of versions":                 {usual, ">=v0.4.0", "", "", `invalid version range ">=v0.4.0": want versions of ggml-org/llama.cpp such as b[0-9]*, or one release such as v1.2.3`, 0},
		"exact":                             {usual, "b10705", "b10705", "", "", 1},
		"exact, classic":                    {scheme{from: 10700, to: 10711, classic: true}, "b10705", "b10705", "", "", 1},
		"exact, no linux":                   {lacking(10705, "ubuntu"), "b10705", "", "", "release b10705 of ggml-org/llama.cpp has no asset llama-b10705-bin-ubuntu-x64.tar.gz; assets: ", 1},
		"exact, no files":                   {lacking(10705, ""), "b10705", "", "", "release b10705 of ggml-org/llama.cpp has no files yet: try again later, or set another version in the config", 1},
		"exact, unknown":                    {usual, "b99999", "", "", "ggml-org/llama.cpp has no release b99999", 1},
		"exact, other shape":                {usual, "foo", "", "", `invalid version "foo": want a version of ggml-org/llama.cpp such as b[0-9]*, or one release such as v1.2.3`, 0},
		"version":                           {usual, "v0.5.0", "b10811", "", "", 2},
		"version, without v":                {usual, "0.4.0", "b10731", "", "", 2},
		"version, with an operator":         {usual, "==v0.4.0", "b10731", "", "", 2},
		"version, unknown":                  {usual, "v9.9.9", "", "", "ggml-org/llama.cpp has no release v9.9.9: want a version such as b[0-9]*", 1},
		"version, no pointer yet":           {pointing(""), "v0.5.0", "", "", "release v0.5.0 of ggml-org/llama.cpp has no asset nightly-tag.txt with its version: set the version in the config", 1},
		"version, no linux":                 {lacking(10811, "ubuntu"), "v0.5.0", "", "", "release b10811 of ggml-org/llama.cpp has no asset llama-b10811-bin-ubuntu-x64.tar.gz", 2},
		"pointer to itself":                 {pointing("v0.5.0"), "latest", "", "", `invalid nightly-tag.txt of release v0.5.0 of ggml-org/llama.cpp: got "v0.5.0", want the tag of a release with a version such as b[0-9]*; set an exact version in the config`, 1},
		"pointer with HTML":                 {pointing("<!DOCTYPE html><title>Sign in</title>"), "latest", "", "", `invalid nightly-tag.txt of release v0.5.0 of ggml-org/llama.cpp: got "<!DOCTYPE html>`, 1},
		"pointer with too much":             {pointing(strings.Repeat("b10811\n", 1000)), "latest", "", "", "cannot read nightly-tag.txt of release v0.5.0 of ggml-org/llama.cpp: ", 1},
		"pointer to nothing":                {pointing("b90000\n"), "latest", "", "", "cannot resolve release v0.5.0 of ggml-org/llama.cpp to its version: ggml-org/llama.cpp has no release b90000; set an exact version in the config", 2},
		"version with a pointer to nothing": {pointing("b90000\n"), "v0.5.0", "", "", "cannot resolve release v0.5.0 of ggml-org/llama.cpp to its version: ", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, nightlyRecipe)
			k.publish(f.origin)
			version, note, blocked, requests := f.lookUp(k.wish, nil)
			if version != k.want || note != k.note || requests != k.requests {
				t.Errorf("version %q, note %q, %d requests; want %q, %q, %d", version, note, requests, k.want, k.note, k.requests)
			}
			if (blocked == "") != (k.blocked == "") || !strings.Contains(blocked, k.blocked) {
				t.Errorf("blocked %q, want %q", blocked, k.blocked)
			}
		})
	}
}

// TestReleaseAnswers checks what is reported when a server is not a release API, or a
// list ends early.
func TestReleaseAnswers(t *testing.T) {
	t.Parallel()
	const hint = "; check GITHUB_API_URL and the proxy"
	for name, k := range map[string]struct{ wish, path, contentType, body, want string }{
		"HTML":                 {"latest", "/releases", "text/html; charset=utf-8", "<html>Sign in</html>", `returned text/html instead of JSON: "<html>Sign in</html>"` + hint},
		"HTML, exact":          {"b10705", "/releases", "text/html", "<html>", "cannot read the releases of ggml-org/llama.cpp: http"},
		"nothing":              {"latest", "/releases", "", "", "returned an empty body" + hint},
		"no tag":               {"latest", "/latest", "application/json", "{}", "returned a release without a tag" + hint},
		"an object for a list": {"<b10710", "/releases", "application/json", `{"message": "no"}`, "returned unexpected JSON: "},
		"empty entries":        {"<b10710", "/releases", "application/json", `[{}]`, "returned a release without a tag" + hint},
		"null":                 {"<b10710", "/releases", "application/json", `[null]`, "returned a release without a tag" + hint},
		"another release":      {"b10705", "/tags/", "application/json", `{"tag_name": "b10706"}`, `returned release "b10706" for the tag b10705` + hint},
		"an empty list":        {"<b10710", "/releases", "application/json", `[]`, "ggml-org/llama.cpp has no release with a tag such as {version} and a version such as b[0-9]*"},
		"cut off":              {"<b10710", "/releases", "application/json", `[{"tag_name": "b10705", "assets": [`, "returned unexpected JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, nightlyRecipe)
			scheme{from: 10700, to: 10711}.publish(f.origin)
			f.origin.Answer(k.path, k.contentType, k.body)
			_, _, blocked, _ := f.lookUp(k.wish, nil)
			if !strings.Contains(blocked, k.want) {
				t.Errorf("blocked %q, want %q", blocked, k.want)
			}
		})
	}
	f := newRecipeFleet(t, strings.Replace(nightlyRecipe, "  prereleases: true\n", "", 1))
	scheme{from: 10700, to: 10711}.publish(f.origin)
	if _, _, blocked, _ := f.lookUp("latest", nil); !strings.Contains(blocked, "ggml-org/llama.cpp has only prereleases among its newest 12 releases: set an exact version, or add prereleases: true to versions in the recipe") {
		t.Errorf("blocked %q", blocked)
	}
}

// TestManyAssets checks that a lookup requests fewer releases at once where each lists
// hundreds of files.
func TestManyAssets(t *testing.T) {
	t.Parallel()
	for at, want := range map[int]string{0: "1.30, 1", 9: "1.21, 2", 15: "1.15, 3", 25: ", 3: none of the newest 20 releases of bees/engine satisfies latest and has the files that the recipe requires (checked 20 releases; for an older release, set its exact version in the config)"} {
		f := newLockFleet(t)
		for i := range 31 {
			r := origintest.Release{Tag: fmt.Sprintf("v1.%d", i), Assets: map[string][]byte{}}
			for n := range 150 {
				r.Assets[fmt.Sprintf("other-%d.tar.gz", n)] = nil
			}
			if i == 30-at {
				r.Assets[fmt.Sprintf("engine-1.%d-any.tar.gz", i)] = []byte("x")
			}
			f.origin.AddRelease("bees/engine", r)
		}
		version, _, blocked, requests := f.lookUp("latest", nil)
		if _, reason, ok := strings.Cut(blocked, "engine.yaml:2: "); ok {
			blocked = ": " + reason
		}
		if got := fmt.Sprintf("%s, %d%s", version, requests, blocked); got != want {
			t.Errorf("file in release %d: %s, want %s", at, got, want)
		}
	}
}

// TestUnchangedReleases checks that answers of the release API are kept with their
// ETag, apart for clients with a token, and that a damaged file is not used.
func TestUnchangedReleases(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, nightlyRecipe)
	scheme{from: 10700, to: 10811, versions: map[int][]string{10811: {"v0.5.0", "b10811"}}}.publish(f.origin)
	dir := filepath.Join(f.cache, "releases")
	check := func(what string, edit func(*pkgmgr.Options), want string, wantRequests, wantUnchanged int) {
		t.Helper()
		before := f.origin.Unchanged()
		version, _, blocked, requests := f.lookUp("latest", edit)
		unchanged := f.origin.Unchanged() - before
		if version != want || blocked != "" || requests != wantRequests || unchanged != wantUnchanged {
			t.Errorf("%s: version %q (%s), %d requests, %d unchanged; want %q, %d, %d", what, version, blocked, requests, unchanged, want, wantRequests, wantUnchanged)
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
	past := time.Now().Add(-31 * 24 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	check("first", nil, "b10811", 2, 0)
	check("again", nil, "b10811", 2, 2)
	check("with a token", withToken, "b10811", 2, 0)
	check("with a token again", withToken, "b10811", 2, 2)
	if _, err := os.Stat(old); err == nil {
		t.Error("an unused answer is kept")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		path := filepath.Join(dir, file.Name())
		data, err := os.ReadFile(path)
		if info, _ := file.Info(); err != nil || info.Mode() != 0o600 || strings.Contains(string(data), "token\"") {
			t.Errorf("%s: %v, %v", file.Name(), info.Mode(), err)
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
	// Without a directory that can be written, nothing is kept and nothing fails.
	f.cache = filepath.Join(f.lock, "file")
	check("no cache", nil, "b10812", 2, 0)
}

// TestVersionOfBuild checks that a hive with the build of vX.Y.Z is not reported as
// different where the config says vX.Y.Z, with the lock and without it.
func TestVersionOfBuild(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, nightlyRecipe)
	scheme{from: 10800, to: 10811, versions: map[int][]string{10805: {"v0.4.0", "b10805"}, 10811: {"v0.5.0", "b10811"}}}.publish(f.origin)
	setWish := func(wish string) {
		for i := range f.config.Hives {
			workers := f.config.Hives[i].Workers
			workers[len(workers)-1].Version = wish
		}
	}
	setWish("v0.5.0")
	if r := f.sync(plan.Options{}, nil); f.version("gpu-00") != "b10811" || len(r.Plan.Blocked) != 0 {
		t.Fatalf("%q, %+v", f.version("gpu-00"), r.Plan.Blocked)
	}
	if workers := f.load().Workers(); len(workers) != 1 || workers[0].Requested != "v0.5.0" || workers[0].Version != "b10811" {
		t.Errorf("locked %+v", workers)
	}
	asked := f.origin.Asked("/")
	for _, k := range []struct {
		wish, lock, want string // lock: "" keeps it
	}{
		{"v0.5.0", "", ""},
		{"v0.5.0", "remove", ""},
		{"0.5.0", "remove", ""},
		{"v0.4.0", "remove", ""}, // nobody knows its build
		{"b10811", "remove", ""},
		{"b10805", "remove", "Worker 'engine' is b10811, want b10805"},
	} {
		if k.lock != "" {
			_ = os.Remove(f.lock)
		}
		setWish(k.wish)
		var got []string
		for _, d := range f.status().Drift {
			if d.Hive == "gpu-00" {
				got = append(got, d.Details)
			}
		}
		if text := strings.Join(got, "; "); text != k.want {
			t.Errorf("%s, lock %q: drift %q, want %q", k.wish, k.lock, text, k.want)
		}
	}
	if n := f.origin.Asked("/") - asked; n != 0 {
		t.Errorf("status made %d requests", n)
	}
	setWish("v0.4.0")
	if f.sync(plan.Options{}, nil); f.version("gpu-01") != "b10805" {
		t.Errorf("v0.4.0 is %q", f.version("gpu-01"))
	}
	if plan := f.status(); len(plan.Drift) != 0 {
		t.Errorf("drift %+v", plan.Drift)
	}
}

// TestDownloadMirror checks that hives get the address on a mirror of github.com, that
// the lock keeps the original one, and that a password of the mirror stays here.
func TestDownloadMirror(t *testing.T) {
	t.Parallel()
	for name, withPassword := range map[string]bool{"open": false, "with a password": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, nightlyRecipe)
			mirror := f.origin.MirrorGitHub()
			scheme{from: 10810, to: 10811, versions: map[int][]string{10811: {"v0.5.0", "b10811"}}}.publish(f.origin)
			const file = "/ggml-org/llama.cpp/releases/download/b10811/llama-b10811-bin-ubuntu-x64.tar.gz"
			want, downloads := mirror+file, mirror
			if withPassword {
				want, downloads = "", strings.Replace(mirror, "://", "://me:secret@", 1)
			}
			var steps []wire.InstallStep
			f.sentSteps("gpu-00", &steps)
			r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Origins.ReleaseDownloads = downloads + "/" })
			if len(steps) != 1 || len(r.Plan.Blocked) != 0 {
				t.Fatalf("%+v %+v", r.Plan.Blocked, r.Hives)
			}
			if got := steps[0].Artifact.URL; got != want {
				t.Errorf("the hive gets the address %q, want %q", got, want)
			}
			text, err := os.ReadFile(f.lock)
			if err != nil || !strings.Contains(string(text), `"https://github.com`+file+`"`) || strings.Contains(string(text), "secret") {
				t.Errorf("%v:\n%s", err, text)
			}
			if n := f.origin.Asked("/mirror/ggml-org/llama.cpp/releases/download/v0.5.0/nightly-tag.txt"); n != 1 {
				t.Errorf("the pointer was fetched %d times", n)
			}
			if n := f.origin.Asked("/mirror" + file); withPassword && n != 1 {
				t.Errorf("the file was fetched here %d times, want 1", n)
			}
		})
	}
}
