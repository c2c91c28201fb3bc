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

// CallbackBaseString returns the string that [SignCallback] signs.
func CallbackBaseString(method, path string, params url.Values) string {
	return baseString(method, path, params, &callbackValue, "sig", "cee_extend")
}

// An escaper maps each byte to its percent-encoded form, or to "" if the byte
// stays as it is.
type escaper [256]string

// The protocol's encodings. Neither is url.QueryEscape nor url.PathEscape.
var (
	// requestValue is E (protocol.md 2): every byte but 0-9 A-Z a-z - _ . becomes %XX.
	requestValue = newEscaper("-_.")
	// callbackValue is C followed by E (protocol.md 5): C keeps 0-9 A-Z a-z ! * ( ),
	// and E then encodes what C kept or wrote, so that "-" ends up as "%252D".
	callbackValue = newCallbackEscaper()
)

func newEscaper(keep string) (e escaper) {
	const hex = "0123456789ABCDEF"
	for i := range e {
		b := byte(i)
		alphanumeric := '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
		if !alphanumeric && strings.IndexByte(keep, b) < 0 {
			e[b] = string([]byte{'%', hex[b>>4], hex[b&15]})
		}
	}
	return e
}

func newCallbackEscaper() (e escaper) {
	c := newEscaper("!*()")
	for i := range e {
		if c[i] != "" {
			e[i] = string(requestValue.append(nil, c[i]))
		} else {
			e[i] = requestValue[i]
		}
	}
	return e
}

// append appends the encoded s to dst.
func (e *escaper) append(dst []byte, s string) []byte {
	plain := 0 // start of the run of bytes that stay as they are
	for i := 0; i < len(s); i++ {
		if escaped := e[s[i]]; escaped != "" {
			dst = append(dst, s[plain:i]...)
			dst = append(dst, escaped...)
			plain = i + 1
		}
	}
	return append(dst, s[plain:]...)
}

// A param is one parameter, decoded.
type param struct{ name, value string }

// collect appends the parameters of params to dst, sorted by name, without the
// unsigned ones.
func collect(dst []param, params url.Values, unsigned ...string) []param {
	for name, values := range params {
		if !slices.Contains(unsigned, name) && len(values) > 0 {
			dst = append(dst, param{name, values[0]})
		}
	}
	sortParams(dst)
	return dst
}

// sortParams sorts by name in byte order, as the signature wants it.
func sortParams(params []param) {
	slices.SortFunc(params, func(a, b param) int { return strings.Compare(a.name, b.name) })
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

// scratch is the working memory of one signature.
type scratch struct {
	params []param
	base   []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// release gives s back without the values it worked on.
func (s *scratch) release() {
	clear(s.params)
	clear(s.base)
	s.params, s.base = s.params[:0], s.base[:0]
	scratches.Put(s)
}

func baseString(method, path string, params url.Values, value *escaper, unsigned ...string) string {
	return string(appendBase(nil, method, path, collect(nil, params, unsigned...), value))
}

func sign(method, path string, params url.Values, appKey string, value *escaper, unsigned ...string) string {
	s := scratches.Get().(*scratch)
	defer s.release()
	s.params = collect(s.params, params, unsigned...)
	s.base = appendBase(s.base, method, path, s.params, value)
	return encodeSum(newMAC(appKey), s.base)
}

// newMAC returns the HMAC under the pay key and the "&" that belongs to it
// (protocol.md 2). The key is used as it is.
func newMAC(appKey string) hash.Hash {
	return hmac.New(sha1.New, []byte(appKey+"&"))
}

func encodeSum(mac hash.Hash, base []byte) string {
	mac.Write(base)
	var sum [sha1.Size]byte
	return base64.StdEncoding.EncodeToString(mac.Sum(sum[:0]))
}

// A signer signs under one pay key. It is safe for concurrent use.
type signer struct {
	appKey string
	macs   sync.Pool // of hash.Hash: the key's two blocks are hashed once, not each time
}

func newSigner(appKey string) *signer {
	return &signer{appKey: appKey, macs: sync.Pool{New: func() any { return newMAC(appKey) }}}
}

// sign returns the signature of sorted parameters.
func (s *signer) sign(method, path string, params []param, value *escaper) string {
	work := scratches.Get().(*scratch)
	defer work.release()
	work.base = appendBase(work.base, method, path, params, value)
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	return encodeSum(mac, work.base)
}
