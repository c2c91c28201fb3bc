package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"
)

// A recipe is one way to make a signature of a message: the right one, or one with
// mistakes in it. It is written apart from package midas, which has no knobs, on purpose.
type recipe struct {
	key     string // of the HMAC, "&" included
	method  string
	path    string
	params  []param // decoded, in the order they are joined
	tail    string  // after the joined parameters; nothing
	value   encoder // done to each value first: C in a callback, nothing in a request
	pathAs  encoder // done to the path: E
	whole   encoder // done to the joined parameters: E
	baseEnd string  // after the base string; nothing
	digest  digest  // HMAC-SHA1
	sig     string  // as received, decoded
}

// A digest makes the bytes of a signature from a key and the base string.
type digest func(key string, base []byte) []byte

func hmacSHA1(key string, base []byte) []byte {
	mac := hmac.New(sha1.New, []byte(key))
	mac.Write(base)
	return mac.Sum(nil)
}

func hmacSHA256(key string, base []byte) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(base)
	return mac.Sum(nil)
}

func hmacMD5(key string, base []byte) []byte {
	mac := hmac.New(md5.New, []byte(key))
	mac.Write(base)
	return mac.Sum(nil)
}

func sha1KeyFirst(key string, base []byte) []byte {
	sum := sha1.Sum(slices.Concat([]byte(key), base))
	return sum[:]
}

func sha1KeyLast(key string, base []byte) []byte {
	sum := sha1.Sum(slices.Concat(base, []byte(key)))
	return sum[:]
}

// An encoder percent-encodes. The zero value leaves everything as it is.
type encoder struct {
	keeps *[256]bool // the bytes that stay as they are
	plus  bool       // a space becomes "+"
	lower bool       // hex digits are lower-case

	// wide, if set, encodes a character outside ASCII instead of each of its bytes.
	wide func(dst []byte, char string) []byte
}

// The encodings of protocol.md 2 (request signature) and 5 (delivery callback).
var (
	encodeE = keeping("-_.")
	encodeC = keeping("!*()")
)

// keeping returns the encoder that keeps letters, digits and the punctuation.
func keeping(punctuation string) encoder {
	var keeps [256]bool
	for b := range keeps {
		keeps[b] = '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || strings.IndexByte(punctuation, byte(b)) >= 0
	}
	return encoder{keeps: &keeps}
}

// replacing returns the encoder that encodes the punctuation alone.
func replacing(punctuation string) encoder {
	var keeps [256]bool
	for b := range keeps {
		keeps[b] = strings.IndexByte(punctuation, byte(b)) < 0
	}
	return encoder{keeps: &keeps}
}

// alsoKeeping returns e with punctuation more that stays.
func (e encoder) alsoKeeping(punctuation string) encoder {
	keeps := *e.keeps
	for _, b := range []byte(punctuation) {
		keeps[b] = true
	}
	e.keeps = &keeps
	return e
}

func (e encoder) withPlus() encoder  { e.plus = true; return e }
func (e encoder) withLower() encoder { e.lower = true; return e }

func (e encoder) withWide(wide func(dst []byte, char string) []byte) encoder {
	e.wide = wide
	return e
}

const (
	upperHex = "0123456789ABCDEF"
	lowerHex = "0123456789abcdef"
)

func (e encoder) append(dst []byte, s string) []byte {
	if e.keeps == nil {
		return append(dst, s...)
	}
	digits := upperHex
	if e.lower {
		digits = lowerHex
	}
	for i := 0; i < len(s); i++ {
		b := s[i]
		switch {
		case e.keeps[b]:
			dst = append(dst, b)
		case e.plus && b == ' ':
			dst = append(dst, '+')
		default:
			if b >= utf8.RuneSelf && e.wide != nil {
				if _, size := utf8.DecodeRuneInString(s[i:]); size > 1 {
					dst = e.wide(dst, s[i:i+size])
					i += size - 1
					continue
				}
			}
			dst = append(dst, '%', digits[b>>4], digits[b&15])
		}
	}
	return dst
}

// newRecipe returns the right recipe (protocol.md 2 and 5).
func newRecipe(m *message, path, key string) recipe {
	r := recipe{key: key + "&", method: strings.ToUpper(m.method), path: path, pathAs: encodeE, whole: encodeE, digest: hmacSHA1}
	received := m.params(once)
	r.sig = value(received, "sig")
	if m.callback {
		r.method, r.value = "GET", encodeC
		r.sig = strings.ReplaceAll(r.sig, " ", "+") // base64 has no blank (protocol.md 5)
	}
	r.params = m.signed(received)
	if m.callback && !r.fits() { // what is open in protocol.md 5 is tried both ways
		for _, params := range [][]param{sorted(received, "sig"), m.signed(m.params(literalPlus)), sorted(m.params(literalPlus), "sig")} {
			again := r
			if again.params = params; again.fits() {
				return again
			}
		}
	}
	return r
}

// signed returns the parameters that take part in the signature, sorted by name.
func (m *message) signed(params []param) []param {
	if m.callback {
		return sorted(params, "sig", "cee_extend")
	}
	return sorted(params, "sig")
}

func sorted(params []param, unsigned ...string) []param {
	params = slices.DeleteFunc(slices.Clone(params), func(p param) bool { return slices.Contains(unsigned, p.Name) })
	slices.SortStableFunc(params, func(a, b param) int { return cmp.Compare(a.Name, b.Name) })
	return params
}

// appendJoined appends stage 1: the parameters, each value encoded with C in a callback.
func (r *recipe) appendJoined(dst []byte) []byte {
	for i, p := range r.params {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = append(dst, p.Name...)
		dst = append(dst, '=')
		dst = r.value.append(dst, p.Value)
	}
	return append(dst, r.tail...)
}

// appendBase appends stage 2, the string that is signed, of joined parameters.
func (r *recipe) appendBase(dst, joined []byte) []byte {
	dst = append(dst, r.method...)
	dst = append(dst, '&')
	dst = r.pathAs.append(dst, r.path)
	dst = append(dst, '&')
	dst = r.whole.append(dst, string(joined))
	return append(dst, r.baseEnd...)
}

func (r *recipe) joined() string { return string(r.appendJoined(nil)) }

func (r *recipe) base() string { return string(r.appendBase(nil, r.appendJoined(nil))) }

func (r *recipe) sign() string {
	return base64.StdEncoding.EncodeToString(r.digest(r.key, r.appendBase(nil, r.appendJoined(nil))))
}

// without leaves the parameters out that drop reports.
func (r *recipe) without(drop func(param) bool) {
	r.params = slices.DeleteFunc(slices.Clone(r.params), drop)
}

// reword changes each value.
func (r *recipe) reword(change func(string) string) {
	r.params = slices.Clone(r.params)
	for i := range r.params {
		r.params[i].Value = change(r.params[i].Value)
	}
}

// fits reports whether the recipe makes the signature received.
func (r *recipe) fits() bool { return r.sign() == r.sig }
