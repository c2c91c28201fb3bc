package midas

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Sign returns the signature (parameter sig) of a request to Midas
// (protocol.md 2): HMAC-SHA1 under the pay key over [BaseString], in standard
// base64 with padding.
//
// path is the signed path, which on YSDK is not the path of the URL:
// "/v3/r/mpay/buy_goods_m". params are raw values, not percent-encoded; of each
// name the first value is signed, empty values too; sig is ignored. appKey is
// the pay key without the trailing "&", which Sign adds. The result still has
// to be percent-encoded to go into a URL: one in three holds a "+".
//
// Sign is safe for concurrent use and changes nothing.
func Sign(method, path string, params url.Values, appKey string) string {
	return sign(method, path, params, appKey, &requestValue, "sig")
}

// SignCallback returns the signature of a delivery callback (发货回调,
// protocol.md 5), to be compared with the sig received or to play Midas in a
// test.
//
// It differs from [Sign] in three ways: path is the path of the delivery URL as
// registered at Tencent; every value is encoded twice; and cee_extend is
// ignored as sig is. params must hold every parameter received, unknown and
// empty ones included.
//
// To verify a callback use [Client.ParseDelivery], which also reads the query as
// Midas writes it. SignCallback is safe for concurrent use and changes nothing.
func SignCallback(method, path string, params url.Values, appKey string) string {
	return sign(method, path, params, appKey, &callbackValue, "sig", "cee_extend")
}

// BaseString returns the string that [Sign] signs, to be compared with another
// implementation's when a signature differs. It holds openkey and pfkey in
// clear: do not log it.
func BaseString(method, path string, params url.Values) string {
	return baseString(method, path, params, &requestValue, "sig")
}

// CallbackBaseString returns the string that [SignCallback] signs, to be compared with
// another implementation's when a callback does not verify. It holds the openid in clear.
func CallbackBaseString(method, path string, params url.Values) string {
	return baseString(method, path, params, &callbackValue, "sig", "cee_extend")
}

// An escaper says how often each byte is percent-encoded. None is url.QueryEscape (a blank
// becomes "+", "~" stays) or url.PathEscape.
type escaper [256]uint8

const (
	kept  = iota // as it is
	once         // %XX, upper-case
	twice        // %25XX
)

var (
	// requestValue is E (protocol.md 2), which keeps 0-9 A-Z a-z - _ .
	requestValue = newEscaper(func(b byte) uint8 {
		if alphanumeric(b) || strings.IndexByte("-_.", b) >= 0 {
			return kept
		}
		return once
	})
	// callbackValue is C and then E (protocol.md 5): C keeps 0-9 A-Z a-z ! * ( ) and
	// encodes the rest, "-" too; E encodes what C left, and the "%" that C wrote.
	callbackValue = newEscaper(func(b byte) uint8 {
		if alphanumeric(b) || strings.IndexByte("!*()", b) >= 0 {
			return requestValue[b]
		}
		return twice
	})
)

func newEscaper(times func(byte) uint8) (e escaper) {
	for i := range e {
		e[i] = times(byte(i))
	}
	return e
}

func alphanumeric(b byte) bool {
	return '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
}

// append appends the encoded s to dst.
func (e *escaper) append(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	run := 0 // start of the bytes that are kept
	for i := 0; i < len(s); i++ {
		b := s[i]
		if e[b] == kept {
			continue
		}
		dst = append(dst, s[run:i]...)
		if e[b] == twice {
			dst = append(dst, "%25"...)
		} else {
			dst = append(dst, '%')
		}
		dst = append(dst, hex[b>>4], hex[b&15])
		run = i + 1
	}
	return append(dst, s[run:]...)
}

// A param is one parameter, decoded.
type param struct{ name, value string }

// usualParams is how many parameters are kept on the stack.
const usualParams = 32

// collect appends the parameters of params to dst, sorted by name, without the
// unsigned ones.
func collect(dst []param, params url.Values, unsigned ...string) []param {
	dst = slices.Grow(dst, len(params))
	for name, values := range params {
		if !slices.Contains(unsigned, name) && len(values) > 0 {
			dst = append(dst, param{name, values[0]})
		}
	}
	sortParams(dst)
	return dst
}

// sortParams sorts by name in byte order, as the signature wants it. What costs in sorting
// is comparing strings and moving pointers about: so the first eight bytes of a name are
// compared as a number, and each param is moved once.
func sortParams(params []param) {
	type key struct {
		prefix uint64
		index  int
	}
	keys := slices.Grow(make([]key, 0, usualParams), len(params))
	for i, p := range params {
		var prefix [8]byte
		copy(prefix[:], p.name)
		keys = append(keys, key{binary.BigEndian.Uint64(prefix[:]), i})
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		return strings.Compare(params[a.index].name, params[b.index].name)
	})
	sorted := slices.Grow(make([]param, 0, usualParams), len(params))
	for _, k := range keys {
		sorted = append(sorted, params[k.index])
	}
	copy(params, sorted)
}

// appendBase appends the base string of sorted parameters to dst: the method,
// the path and the joined parameters, each encoded with E, joined with "&".
func appendBase(dst []byte, method, path string, params []param, value *escaper) []byte {
	dst = append(dst, strings.ToUpper(method)...)
	dst = append(dst, '&')
	dst = requestValue.append(dst, path)
	dst = append(dst, '&')
	for i, p := range params {
		if i > 0 {
			dst = append(dst, "%26"...)
		}
		dst = requestValue.append(dst, p.name)
		dst = append(dst, "%3D"...)
		dst = value.append(dst, p.value)
	}
	return dst
}

// buffers are pooled working memory. It holds secrets while in use, and is cleared after.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func withBuffer(work func(buf []byte) []byte) {
	p := buffers.Get().(*[]byte)
	*p = work((*p)[:0])
	clear(*p)
	buffers.Put(p)
}

func baseString(method, path string, params url.Values, value *escaper, unsigned ...string) string {
	return string(appendBase(nil, method, path, collect(nil, params, unsigned...), value))
}

func sign(method, path string, params url.Values, appKey string, value *escaper, unsigned ...string) string {
	sorted := collect(make([]param, 0, usualParams), params, unsigned...)
	return signSorted(method, path, sorted, appKey, value)
}

// signSorted returns the signature of parameters sorted by name.
func signSorted(method, path string, params []param, appKey string, value *escaper) (sig string) {
	withBuffer(func(buf []byte) []byte {
		base := appendBase(buf, method, path, params, value)
		mac := macFor(appKey)
		mac.Write(base)
		var sum [sha1.Size]byte
		sig = base64.StdEncoding.EncodeToString(mac.Sum(sum[:0]))
		macs.Put(mac)
		return base
	})
	return sig
}

// A keyedMAC is an HMAC under the pay key and the "&" that belongs to it (protocol.md 2). The
// key is used as it is.
type keyedMAC struct {
	hash.Hash
	appKey string
}

// macs pools keyedMACs: a process signs under one key or a few, over and over.
var macs sync.Pool

// macFor returns an HMAC that nothing was written to.
func macFor(appKey string) *keyedMAC {
	if mac, _ := macs.Get().(*keyedMAC); mac != nil && mac.appKey == appKey {
		mac.Reset()
		return mac
	}
	return &keyedMAC{hmac.New(sha1.New, []byte(appKey+"&")), appKey}
}
