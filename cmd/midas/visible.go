package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A span is text to be shown; a Marked one names a character that is invisible.
type span struct {
	Text   string
	Marked bool
}

// The names of those that replies have most. (Few fonts have the characters ␊ and ␠.)
var invisible = map[rune]string{' ': "SP", '\n': "LF", '\r': "CR", '\t': "TAB", 0: "NUL", 0xfeff: "BOM"}

// visible returns a reply, or its beginning, so that each byte can be seen: Midas takes no
// blank, no line end, no byte order mark around its JSON (protocol.md 5).
func visible(reply string, size int) []span {
	more := size - len(reply)
	var spans []span
	add := func(text string, marked bool) { spans = append(spans, span{text, marked}) }
	for len(reply) > 0 {
		r, width := utf8.DecodeRuneInString(reply)
		switch {
		case r == utf8.RuneError && width == 1:
			add(fmt.Sprintf(`\x%02X`, reply[0]), true)
		case invisible[r] != "":
			add(invisible[r], true)
		case !unicode.IsPrint(r):
			add(fmt.Sprintf("U+%04X", r), true)
		default:
			add(string(r), false)
		}
		reply = reply[width:]
	}
	if more > 0 {
		add(fmt.Sprintf("… and %d bytes more", more), true)
	}
	return spans
}

// visibleText is visible as one string, for a terminal.
func visibleText(reply string, size int) string {
	var b strings.Builder
	for _, s := range visible(reply, size) {
		if s.Marked {
			b.WriteString("‹" + s.Text + "›")
		} else {
			b.WriteString(s.Text)
		}
	}
	return b.String()
}
