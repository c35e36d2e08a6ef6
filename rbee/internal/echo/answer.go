package echo

import (
	"strings"
	"unicode"
)

// Reasons to end an answer, as OpenAI names them.
const (
	finishStop   = "stop"   // said everything, or met a stop sequence
	finishLength = "length" // the token limit came first
)

// answer is what is said for one prompt.
type answer struct {
	text   string
	words  int
	finish string
}

// answerTo echoes the prompt up to the first stop sequence, but at most limit
// words of it; a negative limit is none. Empty stop sequences stop nothing.
func answerTo(prompt string, stops []string, limit int) answer {
	text := prompt
	for _, s := range stops {
		if s == "" {
			continue
		}
		if i := strings.Index(text, s); i >= 0 {
			text = text[:i]
		}
	}
	a := answer{finish: finishStop}
	for rest := text; ; a.words++ {
		piece, after := nextPiece(rest)
		if piece == "" {
			break
		}
		if a.words == limit {
			a.finish = finishLength
			break
		}
		a.text, rest = text[:len(text)-len(after)], after
	}
	return a
}

// nextPiece splits the first word off text, with the white space before it.
// The last word takes the white space behind it too. No word left: "".
func nextPiece(text string) (piece, rest string) {
	start := strings.IndexFunc(text, isWord)
	if start < 0 {
		return "", ""
	}
	end := strings.IndexFunc(text[start:], unicode.IsSpace)
	if end < 0 || strings.IndexFunc(text[start+end:], isWord) < 0 {
		return text, ""
	}
	return text[:start+end], text[start+end:]
}

func isWord(r rune) bool { return !unicode.IsSpace(r) }

func countWords(text string) (n int) {
	inWord := false
	for _, r := range text {
		if space := unicode.IsSpace(r); space == inWord {
			inWord = !space
			if inWord {
				n++
			}
		}
	}
	return n
}
