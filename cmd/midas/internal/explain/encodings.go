package explain

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// addEncodings adds what can be wrong with the encodings of path, parameters and values. Small
// changes to the right rule come first: they are likelier than a library's whole rule.
func (s *search) addEncodings(m *Message) {
	value := func(key string, e encoder) { s.add(key, func(r *recipe) { r.value = e }).with = &e }
	if m.Kind == Callback {
		lower, whole := encodeC.withLower(), encodeE.withLower()
		value("lower-case-hex/values", lower)
		s.add("lower-case-hex/both", func(r *recipe) { r.value, r.pathAs, r.whole = lower, whole, whole }).with = &lower
		value("plus-for-space/values", encodeC.withPlus())
		value("tilde-left/values", encodeC.alsoKeeping("~"))
		value("values-not-pre-encoded", encoder{})
		value("values-pre-encoded-like-a-request", encodeE)
		value("three-replaced", replacing("-_."))
		value("hyphen-replaced", replacing("-"))
		s.add("nothing-encoded", func(r *recipe) { r.pathAs, r.whole, r.value = encoder{}, encoder{}, encoder{} })
		s.add("whole-not-encoded", func(r *recipe) { r.pathAs, r.whole = encoder{}, encoder{} })
	} else {
		value("values-pre-encoded", encodeE)
		value("values-pre-encoded-like-a-callback", encodeC)
		s.add("nothing-encoded", func(r *recipe) { r.pathAs, r.whole = encoder{}, encoder{} })
	}
	s.add("path-not-encoded", func(r *recipe) { r.pathAs = encoder{} })
	s.add("parameters-not-encoded", func(r *recipe) { r.whole = encoder{} })
	s.addUses("star-left", "star-left", encodeE.alsoKeeping("*"))
	s.addUses("lower-case-hex", "lower-case-hex", encodeE.withLower())
	for _, l := range languages {
		s.addUses(l.name, "encoder", l.with, l.functions)
	}
	// Characters outside ASCII.
	for _, way := range []struct {
		key  string
		wide func(dst []byte, char string) []byte
	}{{"utf16-codes", utf16Wide}, {"last-byte-only", lastByteWide}, {"ff-for-each-byte", ffWide}} {
		value, whole := encodeC.withWide(way.wide), encodeE.withWide(way.wide)
		if m.Kind == Callback {
			s.add(way.key, func(r *recipe) { r.value = value })
		}
		s.add(way.key, func(r *recipe) { r.whole = whole })
	}
}

// addUses adds an encoder that is used instead of the right one, in each place: text says what
// is done there.
func (s *search) addUses(name, text string, e encoder, args ...any) {
	for _, place := range []struct {
		where               string
		value, path, params bool
	}{
		{"path-and-parameters", false, true, true}, {"parameters", false, false, true},
		{"values", true, false, false}, {"values-path-and-parameters", true, true, true}, {"values-and-parameters", true, false, true},
	} {
		where := s.new("place." + place.where)
		m := s.new(text, append([]any{where.What}, args...)...)
		m.Name, m.Cure, m.with = name, where.Cure, &e
		m.apply = func(r *recipe) {
			if place.value {
				r.value = e
			}
			if place.path {
				r.pathAs = e
			}
			if place.params {
				r.whole = e
			}
		}
		s.mistakes = append(s.mistakes, m)
	}
}

// languages are the encoders of other languages, with the functions that have them.
var languages = []struct {
	name      string
	with      encoder
	functions []string
}{
	{"plus-for-space", encodeE.withPlus(), []string{"PHP urlencode", "http_build_query", "Python 2 quote_plus", "Python 2 urlencode"}},
	{"tilde-left", encodeE.alsoKeeping("~"), []string{"PHP rawurlencode", "Python 3 quote(safe='')", "C# Uri.EscapeDataString"}},
	{"query-escape", encodeE.alsoKeeping("~").withPlus(), []string{"Go url.QueryEscape", "url.Values.Encode", "Python 3 quote_plus", "Python 3 urlencode", "Ruby CGI.escape", "Lua gsub('[^%w %-%_%.%~]')"}},
	{"form-encoder", encodeE.alsoKeeping("*").withPlus(), []string{"Java URLEncoder", "Ruby URI.encode_www_form", "JavaScript URLSearchParams"}},
	{"encodeURIComponent", encodeE.alsoKeeping("!'()*~"), []string{"JavaScript encodeURIComponent", "Node querystring", "C# Uri.EscapeDataString before .NET 4.5"}},
	{"encodeURI", encodeE.alsoKeeping("!'()*~;,/?:@&=+$#"), []string{"JavaScript encodeURI"}},
	{"escape", keeping("@*_+-./").withWide(escapeWide), []string{"JavaScript escape"}},
	{"HttpUtility.UrlEncode", encodeE.alsoKeeping("!*()").withPlus().withLower(), []string{"C# HttpUtility.UrlEncode"}},
	{"WebUtility.UrlEncode", encodeE.alsoKeeping("!*()").withPlus(), []string{"C# WebUtility.UrlEncode"}},
	{"path-escape", encodeE.alsoKeeping("~$&+:=@"), []string{"Go url.PathEscape"}},
	{"slash-left", encodeE.alsoKeeping("/"), []string{"Python 2 urllib.quote"}},
	{"quote", encodeE.alsoKeeping("~/"), []string{"Python 3 urllib.parse.quote"}},
	{"lua-gsub", keeping("").withPlus(), []string{"Lua gsub('[^%w ]')"}},
	{"lua-gsub", keeping(".-").withPlus(), []string{"Lua gsub('[^%w%.%- ]')"}},
	{"lua-gsub", replacing("&=+" + controls + " ").withPlus(), []string{"Lua gsub('([&=+%c])')"}},
}

// The control characters of ASCII, %c in a pattern of Lua.
const controls = "\x00\x01\x02\x03\x04\x05\x06\x07\b\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f"

// JavaScript's escape, by UTF-16 code units.
func escapeWide(dst []byte, char string) []byte {
	for _, unit := range utf16.Encode([]rune(char)) {
		if unit > 0xff {
			dst = append(dst, "%u"+fmt.Sprintf("%04X", unit)...)
		} else {
			dst = append(dst, '%', upperHex[unit>>4], upperHex[unit&15])
		}
	}
	return dst
}

func utf16Wide(dst []byte, char string) []byte {
	for _, unit := range utf16.Encode([]rune(char)) {
		dst = append(dst, '%')
		dst = append(dst, strings.ToUpper(strconv.FormatUint(uint64(unit), 16))...)
	}
	return dst
}

// Java takes a character outside the BMP for two, and has no bytes for either but "?".
func lastByteWide(dst []byte, char string) []byte {
	if len(char) == utf8.UTFMax {
		return append(dst, "%3F%3F"...)
	}
	last := char[len(char)-1]
	return append(dst, '%', upperHex[last>>4], upperHex[last&15])
}

func ffWide(dst []byte, char string) []byte {
	return append(dst, strings.Repeat("%FF", len(char))...)
}
