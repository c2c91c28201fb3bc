package explain

import (
	_ "embed"
	"strings"
	"sync"
	"unicode/utf8"
)

// gbkText is the two-byte part of GBK (code page 936): a line for each first byte from 0x81,
// and in it a character for each second byte from 0x40 but 0x7F, U+FFFD where there is none.
// testdata/gbk.py writes it.
//
//go:embed gbk.txt
var gbkText string

// gbk holds both directions of the table, made when a message first needs them.
var gbk = sync.OnceValue(func() (table struct {
	bytes map[rune][2]byte
	char  map[[2]byte]rune
}) {
	table.bytes, table.char = map[rune][2]byte{}, map[[2]byte]rune{}
	first := byte(0x81)
	for line := range strings.Lines(gbkText) {
		second := byte(0x40)
		for _, char := range strings.TrimSuffix(line, "\n") {
			if char != utf8.RuneError {
				table.bytes[char] = [2]byte{first, second}
				table.char[[2]byte{first, second}] = char
			}
			if second++; second == 0x7f {
				second++
			}
		}
		first++
	}
	return table
})

// perChar replaces each character outside ASCII.
func perChar(s string, replace func(char rune) string) string {
	var b strings.Builder
	for _, char := range s {
		if char < utf8.RuneSelf {
			b.WriteByte(byte(char))
		} else {
			b.WriteString(replace(char))
		}
	}
	return b.String()
}

// toGBK returns text in GBK bytes, "?" for what GBK does not have.
func toGBK(s string) string {
	return perChar(s, func(char rune) string {
		if pair, ok := gbk().bytes[char]; ok {
			return string(pair[:])
		}
		return "?"
	})
}

// fromGBK returns GBK bytes as text.
func fromGBK(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] < utf8.RuneSelf {
			b.WriteByte(s[i])
		} else if i+1 < len(s) && gbk().char[[2]byte{s[i], s[i+1]}] != 0 {
			b.WriteRune(gbk().char[[2]byte{s[i], s[i+1]}])
			i++
		} else {
			b.WriteRune(utf8.RuneError)
		}
	}
	return b.String()
}

// mojibake returns bytes taken for Latin-1, written as UTF-8.
func mojibake(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// questionMarks returns text in Latin-1 bytes, "?" for what Latin-1 does not have.
func questionMarks(s string) string {
	return perChar(s, func(char rune) string {
		if char > 0xff {
			char = '?'
		}
		return string([]byte{byte(char)})
	})
}
