package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// addEncodings adds what can be wrong with the encodings of path, parameters and values.
func (s *search) addEncodings(m *message, say func(en, zh string) string, add func(name, what, cure string, apply func(*recipe)) *mistake) {
	ruleE := say("encode every byte but 0-9 A-Z a-z - _ . as %XX with capital hex digits: a space is %20, * is %2A, ~ is %7E, / is %2F", "除 0-9 A-Z a-z - _ . 外，每个字节都编码成 %XX（大写十六进制）：空格是 %20，* 是 %2A，~ 是 %7E，/ 是 %2F")
	ruleC := say("in a callback encode every byte of a value but 0-9 A-Z a-z ! * ( ) as %XX in capitals first, then encode the whole string again: \"-\" ends up as %252D", "回调里先把值中除 0-9 A-Z a-z ! * ( ) 外的每个字节编码成大写的 %XX，再对整个串编码一次：\"-\" 最后是 %252D")
	raw := say("a request is signed with raw values: encode them only when the URL is made, after signing", "请求用原始值签名：签名之后拼 URL 时才编码")

	// Small changes to the right rule come first: they are likelier than a library's whole rule.
	if m.callback {
		both := encodeE.withLower()
		value := encodeC.withLower()
		for _, way := range []struct {
			name, what string
			value      encoder
			whole      *encoder
		}{
			{"lower-case-hex", say("escapes have lower-case hex digits, in the values", "值的转义用了小写十六进制"), value, nil},
			{"lower-case-hex", say("escapes have lower-case hex digits, in the values and in the whole string", "值和整个串的转义都用了小写十六进制"), value, &both},
			{"plus-for-space", say(`a space is encoded as "+", in the values`, `值里的空格编码成了 "+"`), encodeC.withPlus(), nil},
			{"tilde-left", say(`"~" is left as it is, in the values`, `值里的 "~" 没有编码`), encodeC.alsoKeeping("~"), nil},
		} {
			added := add(way.name, way.what, ruleC, func(r *recipe) {
				r.value = way.value
				if way.whole != nil {
					r.pathAs, r.whole = *way.whole, *way.whole
				}
			})
			added.with, added.If = &way.value, say("the code has an encoder of its own for the values", "代码里给值写了自己的编码函数")
		}
	}

	if m.callback {
		for _, way := range []struct {
			name, what, condition string
			value                 encoder
		}{
			{"values-not-pre-encoded", say("the values are not encoded before the whole string is", "值没有先编码，只编码了整个串"), say("the code signs a callback as it signs a request", "代码用签请求的办法签回调"), encoder{}},
			{"values-pre-encoded-like-a-request", say("the values are encoded with the rule of requests, which keeps - _ . and encodes ! * ( )", "值用了请求的编码规则，保留 - _ . 而编码 ! * ( )"), say("the code has one encoder for requests and callbacks", "代码里请求和回调共用一个编码函数"), encodeE},
			{"three-replaced", say("only - _ . are replaced in the values", "值里只替换了 - _ ."), say("the code replaces these characters one by one", "代码逐个替换这些字符"), replacing("-_.")},
			{"hyphen-replaced", say("only - is replaced in the values", "值里只替换了 -"), say("the code replaces this character alone", "代码只替换这一个字符"), replacing("-")},
		} {
			added := add(way.name, way.what, ruleC, func(r *recipe) { r.value = way.value })
			added.with, added.If = &way.value, way.condition
		}
	} else {
		for _, way := range []struct {
			name, what string
			value      encoder
		}{
			{"values-pre-encoded", say("the values are percent-encoded before the whole string is", "值先做了百分号编码，再编码整个串"), encodeE},
			{"values-pre-encoded-like-a-callback", say("the values are encoded first, with the rule of callbacks", "值先按回调的规则编码了"), encodeC},
		} {
			added := add(way.name, way.what, raw, func(r *recipe) { r.value = way.value })
			added.with, added.If = &way.value, say("the code encodes with a function of its own", "代码里用的是自己写的编码函数")
		}
	}
	encodeParts := say(`encode the path and the joined parameters before they are joined with "&"`, `路径和拼接好的参数先分别编码，再用 "&" 连接`)
	if m.callback {
		add("nothing-encoded", say("path, parameters and values are not encoded at all", "路径、参数、值都没有编码"), encodeParts+say("; in a callback the values before that", "；回调里在此之前先编码值"),
			func(r *recipe) { r.pathAs, r.whole, r.value = encoder{}, encoder{}, encoder{} }).If = say("the code joins everything as it is", "代码把所有内容原样拼接")
		add("whole-not-encoded", say("the values are encoded, but then path and joined parameters are not", "值编码了，路径和拼接好的参数却没有再编码"), encodeParts, func(r *recipe) { r.pathAs, r.whole = encoder{}, encoder{} }).If =
			say("the code encodes the values alone", "代码只编码了值")
	} else {
		add("nothing-encoded", say("path and parameters are not encoded at all", "路径和参数都没有编码"), encodeParts, func(r *recipe) { r.pathAs, r.whole = encoder{}, encoder{} }).If =
			say("the code joins everything as it is", "代码把所有内容原样拼接")
	}
	add("path-not-encoded", say("the path is not encoded", "路径没有编码"), say(`encode the path too: "/" is %2F`, `路径也要编码："/" 是 %2F`), func(r *recipe) { r.pathAs = encoder{} }).If = say("the code joins the path as it is", "代码把路径原样拼进源串")
	add("parameters-not-encoded", say("the path is encoded, but the joined parameters are not", "路径编码了，拼接好的参数没有编码"), encodeParts, func(r *recipe) { r.whole = encoder{} }).If =
		say("the code joins the parameters as they are", "代码把参数原样拼进源串")

	// use adds an encoding that was used instead of the right one, in each place. what has a
	// verb for the place.
	use := func(name, what, condition string, e encoder) {
		for _, place := range []struct {
			where, cure         string
			value, path, params bool
		}{
			{say("the path and the joined parameters", "路径和拼接好的参数"), ruleE, false, true, true},
			{say("the joined parameters", "拼接好的参数"), ruleE, false, false, true},
			{say("the values", "值"), ruleC, true, false, false},
			{say("the values, and again path and parameters,", "值、路径和拼接好的参数"), ruleC, true, true, true},
			{say("the values, and again the parameters,", "值和拼接好的参数"), ruleC, true, false, true},
		} {
			cure := place.cure
			if place.value && !m.callback {
				cure = raw
				if place.params {
					cure += "; " + ruleE
				}
			}
			added := add(name, fmt.Sprintf(what, place.where), cure, func(r *recipe) {
				if place.value {
					r.value = e
				}
				if place.path {
					r.pathAs = e
				}
				if place.params {
					r.whole = e
				}
			})
			added.with, added.If = &e, condition
		}
	}
	use("star-left", say(`in %s "*" is left as it is`, `%s里的 "*" 没有编码`), say(`"*" is an exception in the code`, `代码里对 "*" 做了例外`), encodeE.alsoKeeping("*"))
	use("lower-case-hex", say("in %s escapes have lower-case hex digits", "%s的转义用了小写十六进制"), say("the escapes are written in small letters", "代码里转义写成小写"), encodeE.withLower())
	for _, l := range []struct {
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
	} {
		functions := strings.Join(l.functions, say(" or ", "、"))
		escaped := strings.ReplaceAll(functions, "%", "%%")
		use(l.name, say("%s are encoded as by "+escaped, "%s的编码方式与 "+escaped+" 相同"), say("the code calls "+functions, "代码里用的是 "+functions), l.with)
	}

	// Characters outside ASCII.
	byteByByte := say("encode a character outside ASCII as its UTF-8 bytes, each as %XX", "非 ASCII 字符按 UTF-8 逐字节编码，每个字节一个 %XX")
	if m.callback {
		byteByByte += say("; app_metadata in hex or base64 is ASCII, and every implementation agrees on that", "；app_metadata 用十六进制或 base64 就只有 ASCII，各家实现都一致")
	}
	for _, way := range []struct {
		name, what string
		wide       func(dst []byte, char string) []byte
	}{
		{"utf16-codes", say("a character outside ASCII is encoded as the number of its UTF-16 code unit, such as %9053", "非 ASCII 字符编码成了 UTF-16 码，如 %9053"), utf16Wide},
		{"last-byte-only", say("of a character outside ASCII only the last byte is encoded, as Tencent's Java SDK does", "非 ASCII 字符只编码了最后一个字节，腾讯的 Java SDK 就这样"), lastByteWide},
		{"ff-for-each-byte", say("each byte of a character outside ASCII is encoded as %FF, as Tencent's C++ SDK does", "非 ASCII 字符的每个字节都编码成了 %FF，腾讯的 C++ SDK 就这样"), ffWide},
	} {
		value, whole := encodeC.withWide(way.wide), encodeE.withWide(way.wide)
		if m.callback {
			add(way.name, way.what, byteByByte, func(r *recipe) { r.value = value })
		}
		add(way.name, way.what, byteByByte, func(r *recipe) { r.whole = whole })
	}
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
