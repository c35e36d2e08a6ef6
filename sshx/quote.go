package sshx

import "strings"

// Quote returns a command line that a shell splits into exactly the words of argv.
//
// The result is valid in POSIX shells, in fish and, if no word contains a newline, in csh. The three characters that single
// quotes do not protect in all of these shells (' \ !) are escaped with a backslash outside of quotes. Arguments cannot
// contain NUL bytes; [Client.Run] and [Local.Run] reject them.
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
	setQuoted := func(v bool) {
		if quoted != v {
			b.WriteByte('\'')
			quoted = v
		}
	}
	for i := range len(word) {
		switch c := word[i]; c {
		case '\'', '\\', '!':
			setQuoted(false)
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			setQuoted(true)
			b.WriteByte(c)
		}
	}
	setQuoted(false)
}

// isPlain reports whether no shell treats word specially, even as the name of a command.
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

// shellWords contains the reserved words of the supported shells.
var shellWords = map[string]bool{
	"if": true, "then": true, "elif": true, "else": true, "fi": true, "for": true, "foreach": true, "in": true,
	"do": true, "done": true, "while": true, "until": true, "case": true, "esac": true, "select": true,
	"function": true, "time": true, "coproc": true, "repeat": true, "switch": true, "begin": true, "end": true,
	"and": true, "or": true, "not": true, "nocorrect": true, "noglob": true, "always": true,
}
