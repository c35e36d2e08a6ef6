package sshx_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/sshx"
)

func TestQuote(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		argv []string
		want string
	}{
		{nil, ""},
		{[]string{""}, "''"},
		{[]string{"ls", "-l", "/a/b.c,d:e@f+g"}, "ls -l /a/b.c,d:e@f+g"},
		{[]string{"a b", "c"}, "'a b' c"},
		{[]string{"it's"}, `'it'\''s'`},
		{[]string{"'"}, `\'`},
		{[]string{`a\b`}, `'a'\\'b'`},
		{[]string{"!"}, `\!`},
		{[]string{"if", "then"}, "'if' 'then'"},
		{[]string{"~", "a=b", "%1"}, "'~' 'a=b' '%1'"},
	} {
		if got := sshx.Quote(c.argv...); got != c.want {
			t.Errorf("Quote(%q) = %s, want %s", c.argv, got, c.want)
		}
	}
}

// FuzzQuote checks that all installed shells split a quoted command line into the original words.
func FuzzQuote(f *testing.F) {
	for _, word := range []string{"", "a", "it's", `\`, `\\`, "!", "$(id)", "`id`", "~", "a\nb", "\r", "\xff", "é", "*", "if", `'\''`, "a=b", "-n", "#"} {
		f.Add(word, "x y")
		f.Add("'"+word, word+`\`)
	}
	var shells []string
	for _, name := range []string{"sh", "dash", "bash", "zsh", "ksh", "busybox", "fish"} {
		if path, err := exec.LookPath(name); err == nil {
			shells = append(shells, path)
		}
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ContainsRune(a+b, 0) {
			return
		}
		line := sshx.Quote("/usr/bin/printf", `%s\0`, a, b)
		for _, shell := range shells {
			args := []string{"-c", line}
			switch {
			case strings.HasSuffix(shell, "busybox"):
				args = append([]string{"sh"}, args...)
			case strings.HasSuffix(shell, "fish"):
				if strings.ToValidUTF8(a+b, "") != a+b {
					continue // fish changes invalid UTF-8
				}
				args = append([]string{"--no-config"}, args...)
			}
			out, err := exec.Command(shell, args...).Output()
			if want := a + "\x00" + b + "\x00"; err != nil || string(out) != want {
				t.Fatalf("%s -c %s printed %q, error %v, want %q", shell, line, out, err, want)
			}
		}
	})
}
