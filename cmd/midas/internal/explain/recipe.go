package explain

import (
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"slices"
	"strings"
	"unicode/utf8"
)

// A recipe is one way to make a signature of a message: the right one, or one with mistakes in
// it. It is written apart from packages midas and minigame, which have no knobs, on purpose.
type recipe struct {
	key    string // of the HMAC: of the older Midas "&" included
	digest digest
	base   func(r *recipe, dst []byte) []byte // appends what is signed
	write  func(sum []byte) string            // base64 or hex
	sig    string                             // as received, decoded

	// Of the older Midas (protocol.md 2 and 5).
	method  string
	path    string
	params  []Param // decoded, in the order they are joined
	tail    string  // after the joined parameters; nothing
	value   encoder // done to each value first: C in a callback, nothing in a request
	pathAs  encoder // done to the path: E
	whole   encoder // done to the joined parameters: E
	baseEnd string  // after the base string; nothing

	// Of mini games (minigame.md 2.2): paySig, pay_sig, PayEventSig, signature.
	prefix, text string
	swapped      bool // the text comes before the prefix

	// Of a push: what is sorted and joined with the Token, which is the key here.
	parts []string
	sort  func(parts []string)
	join  string
}

// A digest makes the bytes of a signature from a key and what is signed.
type digest func(key string, base []byte) []byte

func hmacOf(h func() hash.Hash) digest {
	return func(key string, base []byte) []byte {
		mac := hmac.New(h, []byte(key))
		mac.Write(base)
		return mac.Sum(nil)
	}
}

func keyFirst(h func() hash.Hash) digest {
	return func(key string, base []byte) []byte { return plain(h)("", slices.Concat([]byte(key), base)) }
}

func keyLast(h func() hash.Hash) digest {
	return func(key string, base []byte) []byte { return plain(h)("", slices.Concat(base, []byte(key))) }
}

// plain hashes without the key.
func plain(h func() hash.Hash) digest {
	return func(_ string, base []byte) []byte {
		sum := h()
		sum.Write(base)
		return sum.Sum(nil)
	}
}

var (
	hmacSHA1   = hmacOf(sha1.New)
	hmacSHA256 = hmacOf(sha256.New)
	hmacSHA512 = hmacOf(sha512.New)
	hmacMD5    = hmacOf(md5.New)
)

// cutAtZero ends the bytes before the first zero, as a C program does that takes their strlen.
func (d digest) cutAtZero(key string, base []byte) []byte {
	sum := d(key, base)
	if i := slices.Index(sum, 0); i >= 0 {
		return sum[:i]
	}
	return sum
}

// swap takes the text for the key and the key for the text.
func (d digest) swap(key string, base []byte) []byte { return d(string(base), []byte(key)) }

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
func keeping(punctuation string) (e encoder) {
	return e.alsoKeeping(punctuation + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
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
	var keeps [256]bool
	if e.keeps != nil {
		keeps = *e.keeps
	}
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

// apart returns a character that two encoders do not encode alike, or "".
func (e encoder) apart(other encoder) string {
	for _, char := range "~*/ !'()-_.+:@&=$,;?#%" {
		if one := string(char); string(e.append(nil, one)) != string(other.append(nil, one)) {
			return one
		}
	}
	return ""
}

// recipe returns the right recipe of the older Midas (protocol.md 2 and 5).
func (m *Message) recipe(path, key string) recipe {
	r := recipe{
		key: key + "&", digest: hmacSHA1, base: (*recipe).appendBase, write: base64.StdEncoding.EncodeToString,
		method: strings.ToUpper(cmp.Or(m.Method, "GET")), path: path, pathAs: encodeE, whole: encodeE,
	}
	received := m.params(Decode)
	r.sig = Value(received, "sig")
	if m.Kind == Callback {
		r.method, r.value = "GET", encodeC
		r.sig = strings.ReplaceAll(r.sig, " ", "+") // base64 has no blank (protocol.md 5)
	}
	r.params = m.signed(received)
	if m.Kind == Callback && !r.fits() { // what is open in protocol.md 5 is tried both ways
		for _, params := range [][]Param{sorted(received, "sig"), m.signed(m.params(literalPlus)), sorted(m.params(literalPlus), "sig")} {
			again := r
			if again.params = params; again.fits() {
				return again
			}
		}
	}
	return r
}

// signed returns the parameters that take part in the signature, sorted by name.
func (m *Message) signed(params []Param) []Param {
	if m.Kind == Callback {
		return sorted(params, "sig", "cee_extend")
	}
	return sorted(params, "sig")
}

func sorted(params []Param, unsigned ...string) []Param {
	params = slices.DeleteFunc(slices.Clone(params), func(p Param) bool { return slices.Contains(unsigned, p.Name) })
	slices.SortStableFunc(params, func(a, b Param) int { return cmp.Compare(a.Name, b.Name) })
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

// appendBase appends stage 2, the string that is signed.
func (r *recipe) appendBase(dst []byte) []byte {
	dst = append(dst, r.method...)
	dst = append(dst, '&')
	dst = r.pathAs.append(dst, r.path)
	dst = append(dst, '&')
	dst = r.whole.append(dst, string(r.appendJoined(nil)))
	return append(dst, r.baseEnd...)
}

// miniRecipe returns the recipe of a mini game's signature over a prefix and a text.
func miniRecipe(key, prefix, text, sig string) recipe {
	return recipe{key: key, digest: hmacSHA256, base: (*recipe).appendPrefixed, write: hex.EncodeToString, prefix: prefix, text: text, sig: sig}
}

func (r *recipe) appendPrefixed(dst []byte) []byte {
	if r.swapped {
		return append(append(dst, r.text+"&"...), strings.TrimSuffix(r.prefix, "&")...)
	}
	return append(append(dst, r.prefix...), r.text...)
}

// pushRecipe returns the recipe of a push's own signature.
func pushRecipe(token, sig string, parts ...string) recipe {
	return recipe{key: token, digest: plain(sha1.New), base: (*recipe).appendParts, write: hex.EncodeToString, parts: parts, sort: slices.Sort[[]string], sig: sig}
}

func (r *recipe) appendParts(dst []byte) []byte {
	parts := append([]string{r.key}, r.parts...)
	r.sort(parts)
	return append(dst, strings.Join(parts, r.join)...)
}

func (r *recipe) baseString() string { return string(r.base(r, nil)) }

func (r *recipe) sign() string { return r.write(r.digest(r.key, r.base(r, nil))) }

// without leaves the parameters out that drop reports.
func (r *recipe) without(drop func(Param) bool) {
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
