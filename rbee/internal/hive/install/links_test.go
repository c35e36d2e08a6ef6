package install

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// publish starts a test server that serves data and returns its artifact.
func publish(t *testing.T, name string, data []byte) *wire.Artifact {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }))
	t.Cleanup(srv.Close)
	sum := sha256.Sum256(data)
	return &wire.Artifact{Name: name, URL: srv.URL + "/" + name, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// TestLinksAcrossSteps checks that no step writes outside the payload through a link that an
// earlier step created, in any order, and that links inside the payload are allowed.
func TestLinksAcrossSteps(t *testing.T) {
	t.Parallel()
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	archive := func(into string, headers ...tar.Header) wire.InstallStep {
		return wire.InstallStep{Kind: wire.StepArchive, Format: wire.FormatTarGz, Into: into, Artifact: publish(t, "a.tar.gz", tarGz(t, headers...))}
	}
	plain := func(into string) wire.InstallStep {
		return wire.InstallStep{Kind: wire.StepFile, Into: into, Artifact: publish(t, "f", []byte("hi"))}
	}
	python := func(into string) wire.InstallStep {
		step := newOrigin(t).pythonWorker("p", "1", nil).Worker.Steps[0]
		step.Into = into
		return step
	}
	run := archive("", file("run"))
	// Each link points into the rbee directory only in combination with the other one.
	far, up := link("lib", "a/b/c/d/x/../../../../victim"), link("a/b/c/d/x", "../../../..")
	for name, tt := range map[string]struct {
		steps []wire.InstallStep
		want  string // of the error; empty for none
	}{
		"later crossed link":       {[]wire.InstallStep{run, archive("", far), archive("", up), archive("lib", file("x"))}, `invalid link "lib" to "a/b/c/d/x/../../../../victim": the target path crosses another link, "a/b/c/d/x"`},
		"earlier crossed link":     {[]wire.InstallStep{run, archive("", up), archive("", far), archive("lib", file("x"))}, "crosses another link"},
		"same archive":             {[]wire.InstallStep{run, archive("", far, up), archive("lib", file("x"))}, "crosses another link"},
		"other directory":          {[]wire.InstallStep{run, archive("a/b/c/d", link("y", "x/..")), archive("", up)}, `invalid link "a/b/c/d/y" to "x/..": the target path crosses another link`},
		"archive into link":        {[]wire.InstallStep{run, archive("", link("lib", "to")), archive("lib", file("x"))}, `"lib" in the payload is a link`},
		"archive below link":       {[]wire.InstallStep{run, archive("", file("to/x"), link("lib", "to")), archive("lib/y", file("x"))}, `"lib" in the payload is not a directory`},
		"archive into file":        {[]wire.InstallStep{run, archive("run", file("x"))}, "not a directory"},
		"file over link":           {[]wire.InstallStep{run, archive("", link("lib", "to")), plain("lib")}, `"lib" in the payload is a link`},
		"environment into link":    {[]wire.InstallStep{run, archive("", link("venv", "to")), python("venv")}, `"venv" in the payload is a link`},
		"archive over environment": {[]wire.InstallStep{python("venv"), archive("venv", file("bin/python/x")), run}, "not a directory"},
		"valid": {[]wire.InstallStep{
			python("venv"), archive("lib", file("a.so.1"), link("a.so", "a.so.1"), link("up", "./a.so")), run, plain("lib/data"), archive("lib", link("b.so", "a.so")),
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHive(t)
			if err := os.MkdirAll(h.Path("victim"), 0o700); err != nil {
				t.Fatal(err)
			}
			step := wire.Step{Action: wire.ActionInstallWorker, Worker: &wire.WorkerInstall{Type: "w", Version: "1", Steps: tt.steps, Entry: "run"}}
			errs := install(t, h, step)
			if (tt.want == "") != (errs[0] == "") || !strings.Contains(errs[0], tt.want) {
				t.Errorf("install() = %q, want an error with %q, or none if it is empty", errs[0], tt.want)
			}
			if entries, _ := os.ReadDir(h.Path("victim")); len(entries) != 0 {
				t.Errorf("install() wrote %v outside the payload, want nothing", entries)
			}
			if w := h.Worker(t.Context(), "w", true); (w != nil) != (tt.want == "") || w != nil && w.Corrupt != "" {
				t.Errorf("Worker() = %+v, want an intact worker: %t", w, tt.want == "")
			}
		})
	}
}

// TestLinksOutside checks that only a link to the program of a tool may point outside the
// payload.
func TestLinksOutside(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	st := &stage{stepRunner: &stepRunner{Installer: h.Installer}, payload: filepath.Join(h.Root, "payload")}
	for path, mode := range map[string]os.FileMode{"tools/python/bin/python": 0o755, "bin/other": 0o755} {
		if err := os.MkdirAll(filepath.Dir(h.Path(path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.Path(path), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for target, valid := range map[string]bool{
		h.Path("tools/python/bin/python"): true,
		"../tools/python/bin/python":      true,
		h.Path("tools/python/bin"):        false,
		h.Path("tools/python/bin/none"):   false,
		h.Path("bin/other"):               false,
		h.Path("tools/../bin/other"):      false,
		"../bin/other":                    false,
		"/":                               false,
	} {
		if err := os.MkdirAll(st.payload, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(st.payload, "l")); err != nil {
			t.Fatal(err)
		}
		if err := st.checkLinks(); (err == nil) != valid || err != nil && !strings.Contains(err.Error(), "outside the directory") {
			t.Errorf("checkLinks() with a link to %s = %v, want success: %t", target, err, valid)
		}
		if err := os.RemoveAll(st.payload); err != nil {
			t.Fatal(err)
		}
	}
}
