package midas

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	redacted = "[redacted]" // in place of a secret of our own
	withheld = "[withheld]" // in place of text from outside

	// maxForeign is how much text from outside is shown, in bytes: Midas's words and
	// those of a network fault are a sentence.
	maxForeign = 256

	// pieceLength is how many bytes of a value give it away. A shorter value cannot be
	// told from ordinary text: a guest's openkey may be "1", and no err_code would be
	// readable any more.
	pieceLength = 8

	// maxNesting is how many notations around a value are looked through, such as
	// percent-encoding inside JSON. Text with more is withheld.
	maxNesting = 3
)

// withhold returns text from outside the way errors and logs show it: its first
// maxForeign bytes, or "[withheld]" if these may hold a piece of one of the values, in
// whatever notation, or a query. It costs time linear in what would be shown and in
// the values; what they hold does not matter.
func withhold(text string, values []string) string {
	if len(text) > maxForeign {
		text = strings.TrimRight(strings.ToValidUTF8(text[:maxForeign], "\uFFFD"), "\uFFFD") + "…"
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	seen := make(pieces)
	for layer, nesting := text, 0; ; nesting++ {
		if nesting > maxNesting || strings.ContainsAny(layer, "=?") { // a query, or a pair of one
			return withheld
		}
		seen.addText(layer)
		next := layer
		for _, decode := range decoders {
			if alone := decode(layer); alone != layer { // a value may hold what looks like the next layer
				seen.addText(alone)
			}
			next = decode(next)
		}
		if strings.Contains(layer, "+") { // itself, or a space in a form's notation
			var form strings.Builder
			seen.addText(unescape(&form, layer, ' '))
		}
		if next == layer {
			break
		}
		layer = next
	}
	for _, value := range values {
		if seen.anyOf(value) || seen.anyOf(skeleton(value)) {
			return withheld
		}
	}
	return text
}

// pieces are all pieces of pieceLength bytes of some text, also without what stands
// between its letters and digits, and those of what the text is the base64 or hex of.
type pieces map[uint64]bool

func (p pieces) addText(text string) {
	p.add(text)
	compact := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	notBase64 := func(r rune) bool { return r >= utf8.RuneSelf || !isBase64(byte(r)) }
	for run := range strings.FieldsFuncSeq(compact, notBase64) {
		for align := range min(4, len(run)) {
			p.addBytes(decodeBase64(run[align:]))
		}
	}
	notHex := func(r rune) bool { return r >= utf8.RuneSelf || !isHex(byte(r)) }
	for run := range strings.FieldsFuncSeq(compact, notHex) {
		for align := range min(2, len(run)) {
			p.addBytes(decodeHex(run[align:]))
		}
	}
}

func (p pieces) addBytes(decoded []byte) {
	if len(decoded) >= pieceLength {
		p.add(string(decoded))
		for _, decode := range decoders {
			p.add(decode(string(decoded)))
		}
	}
}

func (p pieces) add(text string) {
	for _, form := range []string{text, skeleton(text)} {
		for i := 0; i+pieceLength <= len(form); i++ {
			p[pieceAt(form, i)] = true
		}
	}
}

// anyOf reports whether any piece of value is among p.
func (p pieces) anyOf(value string) bool {
	for i := 0; i+pieceLength <= len(value); i++ {
		if p[pieceAt(value, i)] {
			return true
		}
	}
	return false
}

func pieceAt(s string, i int) uint64 {
	return binary.LittleEndian.Uint64([]byte(s[i : i+pieceLength]))
}

// skeleton returns the letters and digits of s, in lower case: they survive every
// notation and every line break.
func skeleton(s string) string {
	kept := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case 'A' <= b && b <= 'Z':
			kept = append(kept, b|0x20)
		case isAlphanumeric(b), b >= utf8.RuneSelf:
			kept = append(kept, b)
		}
	}
	return string(kept)
}

// decoders undo the escapes of JSON, of URLs and of HTML, one layer each.
var decoders = []func(string) string{decodeBackslashes, decodePercent, html.UnescapeString}

func decodePercent(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	return unescape(&b, s, '+')
}

// decodeBackslashes undoes \uXXXX, \xXX, \n, \/, \" and the like.
func decodeBackslashes(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	escape := func(i int, letter byte, digits int) (rune, bool) { // at s[i]
		if i+2+digits > len(s) || s[i] != '\\' || s[i+1] != letter {
			return 0, false
		}
		n, err := strconv.ParseUint(s[i+2:i+2+digits], 16, 16)
		return rune(n), err == nil
	}
	for i := 0; i < len(s); i++ {
		if char, ok := escape(i, 'u', 4); ok {
			i += 5
			if low, ok := escape(i+1, 'u', 4); ok && utf16.IsSurrogate(char) {
				char = utf16.DecodeRune(char, low)
				i += 6
			}
			b.WriteRune(char)
		} else if char, ok := escape(i, 'x', 2); ok {
			b.WriteByte(byte(char))
			i += 3
		} else if s[i] == '\\' && i+1 < len(s) {
			b.WriteByte(unescaped(s[i+1]))
			i++
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// unescaped returns what a letter behind a backslash stands for.
func unescaped(letter byte) byte {
	if i := strings.IndexByte("bfnrt", letter); i >= 0 {
		return "\b\f\n\r\t"[i]
	}
	return letter
}

func isBase64(b byte) bool { return isAlphanumeric(b) || strings.IndexByte("+/-_", b) >= 0 }

var fromURLAlphabet = strings.NewReplacer("-", "+", "_", "/")

func decodeBase64(run string) []byte {
	decoded, _ := base64.RawStdEncoding.DecodeString(fromURLAlphabet.Replace(run[:len(run)-len(run)%4]))
	return decoded
}

func decodeHex(run string) []byte {
	decoded, _ := hex.DecodeString(run[:len(run)-len(run)%2])
	return decoded
}

// The types below hold secrets. However one is printed or marshalled, as a value or
// through a pointer, its secrets are replaced. Format is defined rather than String,
// because verbs such as %d ignore String. %p and %w ignore Format too and print everything;
// go vet reports %w, but not %p. What reads fields by reflection, such as the diff of an
// assertion library, shows everything as well: do not compare these types in tests.

// plainConfig is a Config without the methods.
type plainConfig Config

func (c Config) masked() plainConfig {
	c.AppKey = mask(c.AppKey)
	return plainConfig(c)
}

// shownConfig is what a Config is marshalled as.
type shownConfig struct {
	AppID, AppKey string
	Gateway       Gateway
	DeliveryPath  string
}

func (c Config) shown() shownConfig {
	return shownConfig{c.AppID, mask(c.AppKey), c.Gateway, c.DeliveryPath}
}

// Format prints c without the pay key. It cannot guard a Config in an unexported field of
// another type, nor the verbs %p and %w, which pass it by; go vet reports only %w.
func (c Config) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), c.masked())
}

// LogValue logs c without the pay key.
func (c Config) LogValue() slog.Value { return slog.AnyValue(c.shown()) }

// MarshalJSON shows what identifies c, without the pay key.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }

// MarshalYAML shows what identifies c, without the pay key.
func (c Config) MarshalYAML() (any, error) { return c.shown(), nil }

// GobEncode returns an error: gob would store the pay key.
func (c Config) GobEncode() ([]byte, error) { return nil, errNoGob }

// Format prints what identifies c, without the pay key.
func (c Client) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "midas.Client{AppID:%q Gateway:%q DeliveryPath:%q}", c.cfg.AppID, c.cfg.Gateway.BaseURL, c.cfg.DeliveryPath)
}

// LogValue logs the configuration of c without the pay key.
func (c Client) LogValue() slog.Value { return c.cfg.LogValue() }

// MarshalJSON shows what identifies c, without the pay key.
func (c Client) MarshalJSON() ([]byte, error) { return c.cfg.MarshalJSON() }

// MarshalYAML shows what identifies c, without the pay key.
func (c Client) MarshalYAML() (any, error) { return c.cfg.shown(), nil }

// plainOrderRequest is an OrderRequest without the methods.
type plainOrderRequest OrderRequest

func (r OrderRequest) masked() plainOrderRequest {
	r.OpenKey, r.PayToken, r.PFKey = mask(r.OpenKey), mask(r.PayToken), mask(r.PFKey)
	extra := make(url.Values, len(r.Extra)) // these may be secret too
	for name := range r.Extra {
		extra.Set(name, redacted)
	}
	r.Extra = extra
	return plainOrderRequest(r)
}

// Format prints r without OpenKey, PayToken, PFKey and the values of Extra. It cannot
// guard an OrderRequest in an unexported field of another type, nor the verbs %p and %w,
// which pass it by; go vet reports only %w.
func (r OrderRequest) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), r.masked())
}

// LogValue logs r without OpenKey, PayToken, PFKey and the values of Extra.
func (r OrderRequest) LogValue() slog.Value { return slog.AnyValue(r.masked()) }

// MarshalJSON shows r without OpenKey, PayToken, PFKey and the values of Extra. It is
// for people to read: an order cannot be read back from it.
func (r OrderRequest) MarshalJSON() ([]byte, error) { return json.Marshal(r.masked()) }

// MarshalYAML shows r without OpenKey, PayToken, PFKey and the values of Extra.
func (r OrderRequest) MarshalYAML() (any, error) { return r.masked(), nil }

// GobEncode returns an error: gob would store the player's credentials.
func (r OrderRequest) GobEncode() ([]byte, error) { return nil, errNoGob }

var errNoGob = errors.New("midas: this type holds secrets and is not encoded with gob: store the fields that you need")

// mask hides a secret, but not that it is missing.
func mask(secret string) string {
	if secret == "" {
		return ""
	}
	return redacted
}
