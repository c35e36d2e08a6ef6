package sshx

import "strings"

// Quote joins argv to one command line that a shell splits into exactly argv again.
//
// It is written for POSIX shells, and what it writes means the same in fish and, as long as no word holds a
// newline, in csh: a login shell may be any of them. For that, the three characters which single quotes do not
// protect everywhere (' \ !) stand outside of quotes behind a backslash. A NUL byte cannot be an argument of any
// program; [Client.Run] and [Local.Run] refuse it.
func Quote(argv ...string) string {
	var b strings.Builder
	for i, word := range argv {
		if i > 0 {
			b.WriteByte(' ')
		}
		quoteWord(&b, word)
	}
	return b.String()
}

func quoteWord(b *strings.Builder, word string) {
	if isPlain(word) {
		b.WriteString(word)
		return
	}
	if word == "" {
		b.WriteString("''")
		return
	}
	quoted := false
	toggle := func(want bool) {
		if quoted != want {
			b.WriteByte('\'')
			quoted = want
		}
	}
	for i := range len(word) {
		switch c := word[i]; c {
		case '\'', '\\', '!':
			toggle(false)
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			toggle(true)
			b.WriteByte(c)
		}
	}
	toggle(false)
}

// isPlain tells whether no shell sees anything special in word, even where a command's name is expected.
func isPlain(word string) bool {
	for i := range len(word) {
		c := word[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("_-+./:,@", c) < 0 {
			return false
		}
	}
	return word != "" && !shellWords[word]
}

// shellWords are the words that start a compound command in some shell.
var shellWords = map[string]bool{
	"if": true, "then": true, "elif": true, "else": true, "fi": true, "for": true, "foreach": true, "in": true,
	"do": true, "done": true, "while": true, "until": true, "case": true, "esac": true, "select": true,
	"function": true, "time": true, "coproc": true, "repeat": true, "switch": true, "begin": true, "end": true,
	"and": true, "or": true, "not": true, "nocorrect": true, "noglob": true, "always": true,
}
