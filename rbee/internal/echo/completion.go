package echo

import (
	"strings"
	"unicode"
)

// Finish reasons, as defined by OpenAI.
const (
	finishStop   = "stop"   // the text is complete or reached a stop sequence
	finishLength = "length" // the text reached the token limit
)

// completion is the generated text for one prompt.
type completion struct {
	text   string
	words  int
	finish string
}

// complete returns the prompt up to the first stop sequence, and at most limit words of it;
// a negative limit means no limit. Empty stop sequences are ignored.
func complete(prompt string, stops []string, limit int) completion {
	text := prompt
	for _, s := range stops {
		if s == "" {
			continue
		}
		if i := strings.Index(text, s); i >= 0 {
			text = text[:i]
		}
	}
	c := completion{finish: finishStop}
	for rest := text; ; c.words++ {
		token, after := nextToken(rest)
		if token == "" {
			break
		}
		if c.words == limit {
			c.finish = finishLength
			break
		}
		c.text, rest = text[:len(text)-len(after)], after
	}
	return c
}

// nextToken returns the first word of text with the white space before it, and the rest.
// The last token includes the white space after the word. It is "" if text has no word.
func nextToken(text string) (token, rest string) {
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

// countWords returns the number of words in text.
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
