package midas

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"hash"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Sign returns the signature (the parameter sig) of a request to Midas
// (protocol.md 2, request signature): HMAC-SHA1 of [BaseString] under the pay key,
// in standard base64 with padding.
//
// path is the signed path, which on YSDK is not the path of the URL:
// "/v3/r/mpay/buy_goods_m". params are raw values, not percent-encoded. The first
// value of each name is signed, empty values too; sig is ignored. appKey is the pay
// key without the trailing "&", which Sign adds. The result must be percent-encoded
// before it goes into a URL: one in three holds a "+".
//
// Sign is safe for concurrent use and does not modify params.
func Sign(method, path string, params url.Values, appKey string) string {
	return sign(method, path, signedParams(params, "sig"), appKey, &requestValue)
}

// SignCallback returns the signature of a delivery callback (发货回调, protocol.md 5,
// delivery callback), to compare with the sig received or to play Midas in a test.
//
// It differs from [Sign] in three ways: path is the path of the delivery URL as
// registered at Tencent; every value is encoded by C before the whole is encoded by E
// (protocol.md 5); and cee_extend is ignored like sig. params must hold every parameter received, unknown and empty ones
// included.
//
// To verify a callback use [Client.ParseDelivery], which also reads the query the
// way Midas writes it. SignCallback is safe for concurrent use and does not modify
// params.
func SignCallback(method, path string, params url.Values, appKey string) string {
	return sign(method, path, signedParams(params, "sig", "cee_extend"), appKey, &callbackValue)
}

// BaseString returns the string that [Sign] signs, to compare with another
// implementation's when the signature does not match. It shows openkey and pfkey:
// do not log it.
func BaseString(method, path string, params url.Values) string {
	return string(appendBase(nil, method, path, signedParams(params, "sig"), &requestValue))
}

// CallbackBaseString returns the string that [SignCallback] signs, to compare with
// another implementation's when a callback does not verify. It shows the openid.
func CallbackBaseString(method, path string, params url.Values) string {
	return string(appendBase(nil, method, path, signedParams(params, "sig", "cee_extend"), &callbackValue))
}

// An escaper says how often each byte is percent-encoded. Neither of the two below
// is url.QueryEscape (which makes a space "+" and keeps "~") or url.PathEscape.
type escaper [256]uint8

const (
	asIs       = iota
	onceCoded  // %XX, upper-case
	twiceCoded // %25XX
)

var (
	// requestValue is E of the protocol, which keeps 0-9 A-Z a-z - _ .
	requestValue = newEscaper(func(b byte) uint8 {
		if isAlphanumeric(b) || strings.IndexByte("-_.", b) >= 0 {
			return asIs
		}
		return onceCoded
	})
	// callbackValue is C and then E. C keeps 0-9 A-Z a-z ! * ( ) and encodes the rest,
	// "-" too; E encodes what C kept, and the "%" that C wrote.
	callbackValue = newEscaper(func(b byte) uint8 {
		if isAlphanumeric(b) || strings.IndexByte("!*()", b) >= 0 {
			return requestValue[b]
		}
		return twiceCoded
	})
)

func newEscaper(times func(byte) uint8) (e escaper) {
	for i := range e {
		e[i] = times(byte(i))
	}
	return e
}

func isAlphanumeric(b byte) bool {
	return '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
}

// isPlainName reports whether name is one or more of A-Za-z0-9_.-
func isPlainName(name string) bool {
	for i := 0; i < len(name); i++ {
		if requestValue[name[i]] != asIs { // E keeps the same characters
			return false
		}
	}
	return name != ""
}

// wrongPath says what is wrong with a path that is signed, or "".
func wrongPath(path string) string {
	switch {
	case path == "":
		return ""
	case strings.Contains(path, "://"):
		return `is a URL: give its path alone, such as "/pay/notify"`
	case path[0] != '/':
		return `does not begin with "/"`
	case strings.ContainsAny(path, "?#"):
		return "holds a query or a fragment: leave it out"
	case (&url.URL{Path: path}).EscapedPath() != path:
		return "holds a character that is escaped in a URL: use a plain ASCII path"
	}
	return ""
}

// append appends the encoded s to dst.
func (e *escaper) append(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	start := 0 // of the bytes that are copied as they are
	for i := 0; i < len(s); i++ {
		b := s[i]
		if e[b] == asIs {
			continue
		}
		dst = append(dst, s[start:i]...)
		if e[b] == twiceCoded {
			dst = append(dst, "%25"...)
		} else {
			dst = append(dst, '%')
		}
		dst = append(dst, hex[b>>4], hex[b&15])
		start = i + 1
	}
	return append(dst, s[start:]...)
}

// A Param is one decoded parameter of a request or a callback.
type Param struct{ Name, Value string }

// Params are the parameters of a callback, in the byte order of their names, which is the
// order of the signature.
type Params []Param

// Get returns the value of the first parameter of that name, or "".
func (p Params) Get(name string) string {
	for _, param := range p {
		if param.Name == name {
			return param.Value
		}
	}
	return ""
}

func (p Params) sort() {
	slices.SortFunc(p, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
}

// signedParams returns the first value of each parameter, sorted, without the
// unsigned ones.
func signedParams(values url.Values, unsigned ...string) Params {
	params := make(Params, 0, len(values))
	for name, v := range values {
		if len(v) > 0 && !slices.Contains(unsigned, name) {
			params = append(params, Param{name, v[0]})
		}
	}
	params.sort()
	return params
}

// appendBase appends the base string of sorted params to dst: the method, the path
// and the joined parameters, each encoded with E, joined with "&".
func appendBase(dst []byte, method, path string, params Params, value *escaper) []byte {
	dst = append(dst, strings.ToUpper(method)...)
	dst = append(dst, '&')
	dst = requestValue.append(dst, path)
	dst = append(dst, '&')
	for i, p := range params {
		if i > 0 {
			dst = append(dst, "%26"...)
		}
		dst = requestValue.append(dst, p.Name)
		dst = append(dst, "%3D"...)
		dst = value.append(dst, p.Value)
	}
	return dst
}

const sigLength = 28 // of 20 bytes in base64

func sign(method, path string, params Params, appKey string, value *escaper) string {
	var sig [sigLength]byte
	signInto(&sig, method, path, params, appKey, value)
	return string(sig[:])
}

// signInto sets sig to the signature of sorted params.
func signInto(sig *[sigLength]byte, method, path string, params Params, appKey string, value *escaper) {
	withBuffer(func(base []byte) []byte {
		base = appendBase(base, method, path, params, value)
		mac := macFor(appKey)
		mac.Write(base)
		var sum [sha1.Size]byte
		base64.StdEncoding.Encode(sig[:], mac.Sum(sum[:0]))
		macs.Put(mac)
		return base
	})
}

// buffers pools working memory. It holds secrets while in use and is cleared afterwards.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func withBuffer(work func(buf []byte) []byte) {
	p := buffers.Get().(*[]byte)
	*p = work((*p)[:0])
	clear(*p)
	buffers.Put(p)
}

// A keyedMAC is an HMAC keyed with the pay key followed by "&" (protocol.md 2, request
// signature).
type keyedMAC struct {
	hash.Hash
	appKey string
}

// macs pools keyedMACs: a process signs with one key or a few, over and over.
var macs sync.Pool

// macFor returns an HMAC under appKey that nothing was written to yet.
func macFor(appKey string) *keyedMAC {
	if mac, _ := macs.Get().(*keyedMAC); mac != nil && mac.appKey == appKey {
		mac.Reset()
		return mac
	}
	return &keyedMAC{hmac.New(sha1.New, []byte(appKey+"&")), appKey}
}
