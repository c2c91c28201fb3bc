package explain

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A name and what stands before its value: in a form, in JSON, perhaps in a string, in XML and in PHP.
var valued = regexp.MustCompile(`([\w.%-]+)[\\"'\])\s]*[=:>]+\s*(?:<!\[CDATA\[)?(?:\\*["'])?`)

// A value that ends where its notation says: PHP writes \/ for a slash, and Gson \u003d for "=".
var plainWord = regexp.MustCompile(`^((?:[\w+/=%.~-]|\\+/|\\+u00\w\w)*)(?:\\*["'}&<]|,\s*\\*"|\]\]>|$)`)

// withoutKeys returns a text without the keys, however their signs are escaped.
func (o *Options) withoutKeys(text string) string {
	const least = 8 // what is shorter is no key, and stands anywhere
	for _, key := range slices.Concat(o.Keys, o.SessionKeys, o.Tokens, o.AESKeys) {
		if len(key) >= least {
			text = written(key).ReplaceAllLiteralString(text, Masked)
		}
	}
	return text
}

// written matches a key whose signs may be escaped, once or more often: %2B, %2b, %252B, \/, \u003d, \u002B.
func written(key string) *regexp.Regexp {
	var pattern strings.Builder
	for _, c := range []byte(key) {
		switch sign := regexp.QuoteMeta(string(rune(c))); {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
			pattern.WriteByte(c)
		case c < 0x80:
			fmt.Fprintf(&pattern, `(?:\\*%s|(?i:%%(?:25)*%02x|\\*u00%02x))`, sign, c, c)
		default:
			fmt.Fprintf(&pattern, `(?:\x%02x|(?i:%%(?:25)*%02x))`, c, c)
		}
	}
	return regexp.MustCompile(pattern.String())
}

// masked returns a text without the keys and the values that are secret by their names; the rest
// stays as it is, byte for byte. A value that is no plain word, such as an object, ends the text.
func (o *Options) masked(text string) string {
	var shown []byte
	for text = o.withoutKeys(text); ; {
		found := valued.FindStringSubmatchIndex(text)
		if found == nil {
			return string(append(shown, text...))
		}
		p := Param{text[found[2]:found[3]], "x"}
		shown, text = append(shown, text[:found[1]]...), text[found[1]:]
		if text != "" && o.Mask(p) != p {
			word := plainWord.FindStringSubmatchIndex(text)
			if shown = append(shown, Masked...); word == nil {
				return string(shown)
			}
			text = text[word[3]:]
		}
	}
}
