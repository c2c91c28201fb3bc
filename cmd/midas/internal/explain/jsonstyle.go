package explain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// maxObjects is how many objects and lists JSON may hold to be written anew, since each level
// copies all that is in it; orders and pushes have two or three.
const maxObjects = 100

// A jsonStyle is a way to write JSON.
type jsonStyle struct {
	name                                 string // what follows in the key of the catalogue
	spaces, ascii, slashes, html, sorted bool
}

var jsonStyles = []jsonStyle{
	{name: "/compact"},
	{name: "/python", spaces: true},
	{name: "/python-ascii", spaces: true, ascii: true},
	{name: "/ascii", ascii: true},
	{name: "/php", ascii: true, slashes: true},
	{name: "/slashes", slashes: true},
	{name: "/go", html: true},
	{name: "/sorted", sorted: true},
	{name: "/go-map", sorted: true, html: true},
	{name: "/python-sorted", sorted: true, spaces: true},
}

// rewrite writes JSON in a style, its keys in their sequence unless it sorts them. ok is false
// where the text is no JSON, or has too many levels perhaps.
func (s jsonStyle) rewrite(text string) (written string, ok bool) {
	if strings.Count(text, "[")+strings.Count(text, "{") > maxObjects || !json.Valid([]byte(text)) {
		return "", false
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return s.value(d), true
}

// value writes the next value of valid JSON.
func (s jsonStyle) value(d *json.Decoder) string {
	comma, colon := ",", ":"
	if s.spaces {
		comma, colon = ", ", ": "
	}
	token, _ := d.Token()
	switch token := token.(type) {
	case json.Delim:
		var parts []string
		for d.More() {
			part := s.value(d)
			if token == '{' {
				part += colon + s.value(d)
			}
			parts = append(parts, part)
		}
		end, _ := d.Token()
		if token == '{' && s.sorted {
			slices.Sort(parts)
		}
		return token.String() + strings.Join(parts, comma) + end.(json.Delim).String()
	case string:
		return s.text(token)
	case nil:
		return "null"
	default:
		return fmt.Sprint(token)
	}
}

func (s jsonStyle) text(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, char := range text {
		switch {
		case char == '"' || char == '\\':
			b.WriteByte('\\')
			b.WriteRune(char)
		case char < ' ' && strings.ContainsRune("\b\f\n\r\t", char):
			b.WriteString(map[rune]string{'\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}[char])
		case char < ' ', s.html && strings.ContainsRune("<>&", char), s.ascii && char > '~':
			for _, unit := range utf16.Encode([]rune{char}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		case s.slashes && char == '/':
			b.WriteString(`\/`)
		default:
			b.WriteRune(char)
		}
	}
	b.WriteByte('"')
	return b.String()
}
