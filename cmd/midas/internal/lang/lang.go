// Package lang is the catalogue: everything that the command says, one file for each language.
package lang

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

//go:embed en.txt
var english string

//go:embed zh.txt
var chinese string

// An entry is a key of a catalogue and what it stands for.
type entry struct{ key, text string }

type catalogue struct {
	entries []entry // in their sequence
	text    map[string]string
	page    map[string]string // of the keys that begin with "page.", without that
}

var catalogues = map[string]func() catalogue{
	"en": sync.OnceValue(func() catalogue { return parse(english) }),
	"zh": sync.OnceValue(func() catalogue { return parse(chinese) }),
}

// parse reads a catalogue: a line is "key = text", and lines after it that begin with "|" are
// the text of a key that stands alone. "#" begins a comment.
func parse(file string) (c catalogue) {
	for line := range strings.Lines(file) {
		line = strings.TrimRight(line, "\r\n")
		if more, ok := strings.CutPrefix(line, "|"); ok {
			c.entries[len(c.entries)-1].text += strings.TrimPrefix(more, " ") + "\n"
		} else if key, text, ok := strings.Cut(line, " ="); ok && !strings.HasPrefix(line, "#") {
			c.entries = append(c.entries, entry{strings.TrimSpace(key), strings.TrimSpace(text)})
		}
	}
	c.text, c.page = make(map[string]string, len(c.entries)), map[string]string{}
	for _, e := range c.entries {
		c.text[e.key] = e.text
		if word, ok := strings.CutPrefix(e.key, "page."); ok {
			c.page[word] = e.text
		}
	}
	return c
}

// A Text is something to say: a key of the catalogue, and what is filled in for {1}, {2} and so
// on. It is an error, too, so that an error is a key and arguments as well.
type Text struct { //nolint:errname // a text to be said, which may be why something failed
	Key  string
	Args []any // strings, numbers, errors, other Texts; a list of strings
}

// T returns the text of a key.
func T(key string, args ...any) Text { return Text{Key: key, Args: args} }

// Has reports whether the catalogue has a key.
func Has(key string) bool { _, ok := catalogues["en"]().text[key]; return ok }

// First returns the text of the first of keys that the catalogue has, or of the last.
func First(args []any, keys ...string) Text {
	if i := slices.IndexFunc(keys, Has); i >= 0 {
		return Text{Key: keys[i], Args: args}
	}
	return Text{Key: keys[len(keys)-1], Args: args}
}

// IsZero reports whether t says nothing.
func (t Text) IsZero() bool { return t.Key == "" && t.Args == nil }

func (t Text) Error() string { return t.In("en") }

// MarshalJSON writes t as a sentence in each language.
func (t Text) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"en": t.In("en"), "zh": t.In("zh")})
}

// What is filled in: {1}, or another entry, {path.cure}.
var gap = regexp.MustCompile(`\{([0-9]+|[a-z][\w./-]*)\}`)

// In returns t in a language, "en" or "zh", safe for a terminal.
func (t Text) In(language string) string {
	c := catalogues[language]()
	switch {
	case t.IsZero():
		return ""
	case t.Key == "":
		return say(c, language, t.Args[0])
	}
	text, ok := c.text[t.Key]
	if !ok {
		return t.Key
	}
	return gap.ReplaceAllStringFunc(text, func(hole string) string {
		name := hole[1 : len(hole)-1]
		if n, err := strconv.Atoi(name); err == nil {
			if n > len(t.Args) {
				return hole
			}
			return say(c, language, t.Args[n-1])
		}
		if !Has(name) {
			return hole
		}
		return Text{Key: name, Args: t.Args}.In(language)
	})
}

// Raw is filled in as it is, also where a terminal obeys it.
type Raw string

func say(c catalogue, language string, arg any) string {
	switch arg := arg.(type) {
	case Text:
		return arg.In(language)
	case error:
		return Said(arg.Error()).In(language)
	case []string:
		each := make([]string, len(arg))
		for i, s := range arg {
			each[i] = T("list.each", s).In(language)
		}
		return strings.Join(each, strings.Trim(c.text["list.between"], `"`))
	case string:
		return Printable(arg)
	}
	return fmt.Sprint(arg)
}

// Page returns the entries whose keys begin with "page.", without that: what the pages say.
func Page(language string) map[string]string { return catalogues[language]().page }

// The sentences of other packages, such as midastest: their keys begin with "said.". Each {1}
// stands for any text.
var sentences = sync.OnceValue(func() (list []sentence) {
	for _, e := range catalogues["en"]().entries {
		if strings.HasPrefix(e.key, "said.") {
			pattern := regexp.MustCompile(`\\\{[1-9]\\\}`).ReplaceAllString(regexp.QuoteMeta(e.text), `(.*?)`)
			list = append(list, sentence{e.key, regexp.MustCompile(`(?s)^` + pattern + `$`)})
		}
	}
	return list
})

type sentence struct {
	key     string
	pattern *regexp.Regexp
}

// Said returns the text of an English sentence that another package made: its key and
// arguments, or the sentence as it is.
func Said(sentence string) Text {
	for _, s := range sentences() {
		if found := s.pattern.FindStringSubmatch(sentence); found != nil {
			var args []any
			for _, part := range found[1:] {
				args = append(args, Said(part)) // a part may be a sentence itself
			}
			return Text{Key: s.key, Args: args}
		}
	}
	return Text{Args: []any{sentence}}
}

// Printable returns s with the characters escaped that a terminal would obey: what comes from a
// message must not control it.
func Printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02X`, s[0])
		} else if r == ' ' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04X`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// Columns returns how wide a text is on a terminal: Chinese characters take two columns.
func Columns(s string) (n int) {
	for _, r := range s {
		if n++; r >= 0x2e80 {
			n++
		}
	}
	return n
}

// Pad returns s with blanks up to a width in columns.
func Pad(s string, width int) string { return s + strings.Repeat(" ", max(width-Columns(s), 0)) }
