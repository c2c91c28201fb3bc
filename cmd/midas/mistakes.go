package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A recipe is one way to make a signature of a message: the right one, or one with
// mistakes in it. It is written apart from package midas, which has no knobs, on purpose.
type recipe struct {
	key    string // of the HMAC, "&" included
	method string
	path   string
	params []param // decoded, in the order they are joined
	value  encoder // done to each value first: C in a callback, nothing in a request
	whole  encoder // done to the path and to the joined parameters: E
	bare   bool    // the path is not encoded
	sig    string  // as received, decoded
}

// An encoder percent-encodes. The zero value leaves everything as it is.
type encoder struct {
	keep  func(byte) bool // the bytes that stay as they are
	plus  bool            // a space becomes "+"
	lower bool            // hex digits are lower-case
}

// The encodings of protocol.md 2 and 5.
var (
	encodeE = encoder{keep: keeping("-_.")}
	encodeC = encoder{keep: keeping("!*()")}
)

func keeping(punctuation string) func(byte) bool {
	return func(b byte) bool {
		return '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || strings.IndexByte(punctuation, b) >= 0
	}
}

func (e encoder) encode(s string) string {
	if e.keep == nil {
		return s
	}
	digits := "0123456789ABCDEF"
	if e.lower {
		digits = "0123456789abcdef"
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case e.keep(s[i]):
			b.WriteByte(s[i])
		case e.plus && s[i] == ' ':
			b.WriteByte('+')
		default:
			b.Write([]byte{'%', digits[s[i]>>4], digits[s[i]&15]})
		}
	}
	return b.String()
}

// newRecipe returns the right recipe (protocol.md 2 and 5).
func newRecipe(m *message, path, key string) recipe {
	r := recipe{key: key + "&", method: strings.ToUpper(m.method), path: path, whole: encodeE}
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

// joined is stage 1: the parameters, each value encoded with C in a callback.
func (r *recipe) joined() string {
	pairs := make([]string, len(r.params))
	for i, p := range r.params {
		pairs[i] = p.Name + "=" + r.value.encode(p.Value)
	}
	return strings.Join(pairs, "&")
}

// base is stage 2: the string that is signed.
func (r *recipe) base() string {
	path := r.whole.encode(r.path)
	if r.bare {
		path = r.path
	}
	return r.method + "&" + path + "&" + r.whole.encode(r.joined())
}

func (r *recipe) sign() string {
	mac := hmac.New(sha1.New, []byte(r.key))
	mac.Write([]byte(r.base()))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// without leaves the parameters out that drop reports.
func (r *recipe) without(drop func(param) bool) {
	r.params = slices.DeleteFunc(slices.Clone(r.params), drop)
}

// fits reports whether the recipe makes the signature received.
func (r *recipe) fits() bool { return r.sign() == r.sig }

// A mistake is something that implementations get wrong (protocol.md 8).
type mistake struct {
	Name string `json:"name"` // stable, for programs
	What string `json:"what"` // how the signature was made
	Cure string `json:"cure"` // what to change

	apply func(*recipe)
}

const (
	ysdkPrefix = "/v3/r"
	orderPath  = "/mpay/buy_goods_m"
)

// mistakesFor lists what can be wrong with the signature of m. Those that read the query
// come before those that change what was read, the more common before the rarer.
func mistakesFor(m *message, right recipe, otherKeys []string) (list []mistake) {
	add := func(name, what, cure string, apply func(*recipe)) {
		list = append(list, mistake{name, what, cure, apply})
	}

	// The key. Another key comes first, so that a second mistake can be made with it.
	for i, key := range otherKeys {
		add("other-key", fmt.Sprintf("it is signed with pay key number %d of those given", i+2),
			"sandbox and live have a pay key each: use the key of the environment that the message belongs to",
			func(r *recipe) { r.key = key + "&" })
	}
	add("key-without-ampersand", `the "&" after the pay key is missing`,
		`the key of the HMAC is the pay key and one "&": append it`,
		func(r *recipe) { r.key = strings.TrimSuffix(r.key, "&") })
	add("key-with-two-ampersands", `there are two "&" after the pay key`,
		`configure the pay key without an "&", and append exactly one when signing`,
		func(r *recipe) { r.key += "&" })
	for _, blank := range []string{"\n", "\r\n", " "} {
		add("key-with-blank", fmt.Sprintf("the pay key ends in %q, before the \"&\"", blank),
			"trim the pay key after reading it from its file or variable",
			func(r *recipe) { r.key = strings.TrimSuffix(r.key, "&") + blank + "&" })
	}
	add("key-mapped", "the pay key's - and _ were turned into + and /, as Tencent's PHP SDK does",
		"use the pay key as it is",
		func(r *recipe) { r.key = strings.NewReplacer("-", "+", "_", "/").Replace(r.key) })

	// How the query is read.
	reread := func(decode func(string) string) func(*recipe) {
		return func(r *recipe) { r.params = m.signed(m.params(decode)) }
	}
	add("plus-not-encoded", `a bare "+" in the query stands for "+", but is read as a space`,
		`percent-encode every value in the URL: "+" is %2B`, reread(literalPlus))
	if m.callback { // for the sender of a request it is values-pre-encoded
		add("values-not-decoded", "the values are signed as they stand in the URL, still percent-encoded",
			"decode every value once before signing", reread(func(s string) string { return s }))
	}
	add("standard-parser", `a standard query parser left out the pairs with a ";" or a stray "%"`,
		`split the raw query on "&" alone; a "%" that starts no escape is itself`,
		func(r *recipe) {
			parsed, _ := url.ParseQuery(m.query) // the error is what the mistake ignores
			r.params = nil
			for name, values := range parsed {
				r.params = append(r.params, param{name, values[0]})
			}
			r.params = m.signed(r.params)
		})

	// The sig received, and the URL as a whole.
	add("sig-not-decoded", "the sig is still percent-encoded after it was decoded once",
		"encode the sig once in the URL, and decode it once: here it was encoded twice or not decoded",
		func(r *recipe) { r.sig = literalPlus(r.sig) })
	add("url-encoded-twice", "the values stand percent-encoded twice in the URL",
		"encode every value once when the URL is made; an HTTP library that encodes wants raw values",
		func(r *recipe) {
			r.params = m.signed(m.params(func(s string) string { return once(once(s)) }))
			r.sig = literalPlus(r.sig)
		})
	add("sig-decoded-twice", `the sig holds a space where base64 has "+": it was decoded twice, or not encoded in the URL`,
		`encode the sig once in the URL ("+" is %2B), and decode it once`,
		func(r *recipe) { r.sig = strings.ReplaceAll(r.sig, " ", "+") })
	add("sig-base64url", "the sig is in the URL-safe base64 alphabet",
		"use the standard base64 alphabet, with + and / and padding",
		func(r *recipe) { r.sig = strings.NewReplacer("-", "+", "_", "/").Replace(r.sig) })
	add("sig-in-hex", "the sig is in hex", "encode the 20 bytes of the HMAC in base64, not their hex digits",
		func(r *recipe) {
			if sum, err := hex.DecodeString(r.sig); err == nil {
				r.sig = base64.StdEncoding.EncodeToString(sum)
			}
		})

	// The path.
	path := func(name, what, cure, wrong string) {
		if wrong != right.path {
			add(name, what+": "+quote(wrong), cure, func(r *recipe) { r.path = wrong })
		}
	}
	if m.callback {
		const registered = "a callback is signed for the path of the delivery URL as registered at Tencent: "
		path("order-path", "it is signed for the path of the order, not of the delivery URL", registered+"use that", ysdkPrefix+orderPath)
		path("order-path-msdk", "it is signed for the path of the older gateways' order, not of the delivery URL", registered+"use that", orderPath)
		if trimmed := strings.TrimRight(right.path, "/"); trimmed != right.path {
			path("trailing-slash", "the path's trailing slash is missing", registered+"its trailing slash counts", trimmed)
		} else {
			path("trailing-slash", "the path has a trailing slash more", registered+"its trailing slash counts", right.path+"/")
		}
		if m.path != "" {
			path("url-path", "it is signed for the path in the URL, not for that of -path", registered+"one of the two is not it", m.path)
		}
		for rest := right.path; strings.Count(rest, "/") > 1; {
			rest = rest[1+strings.IndexByte(rest[1:], '/'):]
			path("prefix-stripped", "it is signed for a path whose beginning is missing, as a backend behind a rewriting proxy sees it",
				registered+"configure that instead of taking it from the request", rest)
		}
	} else {
		const signed = "YSDK signs /v3/r/mpay/…, the older gateways (MSDK) sign /mpay/…, whatever the path of the URL: "
		if rest, ok := strings.CutPrefix(right.path, ysdkPrefix); ok {
			path("msdk-path", "it is signed for the path of the older gateways (MSDK)", signed+"on YSDK add /v3/r", rest)
		} else {
			path("ysdk-path", "it is signed for the path of YSDK", signed+"on MSDK leave /v3/r out", ysdkPrefix+right.path)
		}
		if m.path != "" {
			path("url-path", "it is signed for the path of the URL", signed+"sign that", m.path)
		}
	}
	for _, site := range []string{m.site, "https://ysdk.qq.com", "https://ysdktest.qq.com"} {
		if site != "" {
			path("whole-url", "it is signed for the whole URL", "sign the path alone, without scheme and host", site+cmp.Or(m.path, right.path))
		}
	}

	// The method.
	const get = "the method is part of the signature: sign with the one that is used, in capitals; buy_goods_m and callbacks use GET"
	for _, method := range []string{"GET", "POST"} {
		if method != right.method {
			add("method-"+strings.ToLower(method), "it is signed with the method "+method, get, func(r *recipe) { r.method = method })
		}
	}
	add("method-lower-case", "it is signed with the method in small letters", get, func(r *recipe) { r.method = strings.ToLower(r.method) })

	// Which parameters are signed.
	add("empty-dropped", "parameters with an empty value are left out", "sign empty values too if they are sent: name=",
		func(r *recipe) { r.without(func(p param) bool { return p.Value == "" }) })
	add("fixed-names", "only the documented parameters are signed", "sign every parameter received, unknown ones too: some change from call to call",
		func(r *recipe) { r.without(func(p param) bool { return !documented[p.Name] }) })
	for _, left := range right.params[:min(len(right.params), 64)] { // nobody sends more; the search for pairs has to end
		add("left-out", "the parameter "+quote(left.Name)+" is left out", "sign every parameter that is sent, but for sig",
			func(r *recipe) { r.without(func(p param) bool { return p.Name == left.Name }) })
	}
	add("sig-signed", "sig itself is among the signed parameters", "take sig out before signing", func(r *recipe) {
		r.params = sorted(append(slices.Clone(r.params), param{"sig", value(m.params(once), "sig")}))
	})
	add("not-sorted", "the parameters are in the order of the URL", "sort them by name, in byte order", func(r *recipe) {
		position := map[string]int{}
		for i, p := range m.params(once) {
			position[p.Name] = i
		}
		r.params = slices.Clone(r.params)
		slices.SortStableFunc(r.params, func(a, b param) int { return cmp.Compare(position[a.Name], position[b.Name]) })
	})

	// The encoding of the values.
	if m.callback {
		const rule = "in a callback encode every byte of a value but 0-9 A-Z a-z ! * ( ) as %XX first, then encode the whole string again: "
		add("values-not-pre-encoded", "the values are not encoded before the whole string is", rule+`"-" ends up as %252D`,
			func(r *recipe) { r.value = encoder{} })
		add("values-pre-encoded-like-a-request", "the values are encoded with the rule of requests, which keeps - _ . and encodes ! * ( )", rule+"the rules differ",
			func(r *recipe) { r.value = encodeE })
	} else {
		const raw = "a request is signed with raw values: encode them only when the URL is made, after signing"
		add("values-pre-encoded", "the values are percent-encoded before the whole string is", raw, func(r *recipe) { r.value = encodeE })
		add("values-pre-encoded-like-a-callback", "the values are encoded first, with the rule of callbacks", raw, func(r *recipe) { r.value = encodeC })
	}
	add("nothing-encoded", "path and parameters are not encoded at all", `encode the path and the joined parameters before they are joined with "&"`,
		func(r *recipe) { r.whole = encoder{} })
	add("path-not-encoded", "the path is not encoded", `encode the path too: "/" is %2F`, func(r *recipe) { r.bare = true })

	const rule = "every byte but 0-9 A-Z a-z - _ . becomes %XX in capitals: "
	keep := func(punctuation string) func(*encoder) {
		return func(e *encoder) {
			before := e.keep
			e.keep = func(b byte) bool { return strings.IndexByte(punctuation, b) >= 0 || before(b) }
		}
	}
	for _, way := range []struct {
		name, what, cure string
		change           func(*encoder)
	}{
		{"lower-case-hex", "escapes have lower-case hex digits", rule + "%2F, not %2f", func(e *encoder) { e.lower = true }},
		{"plus-for-space", `a space is encoded as "+"`, rule + "a space is %20", func(e *encoder) { e.plus = true }},
		{"star-left", `"*" is left as it is`, rule + `"*" is %2A`, keep("*")},
		{"tilde-left", `"~" is left as it is`, rule + `"~" is %7E`, keep("~")},
		{"encodeURIComponent", "! ' ( ) * ~ are left as they are, as JavaScript's encodeURIComponent does", rule + "those six too", keep("!'()*~")},
		{"slash-left", `"/" is left as it is, as Python's quote does`, rule + `"/" is %2F`, keep("/")},
	} {
		for _, stage := range []struct {
			where        string
			value, whole bool
		}{{" in the whole string", false, true}, {" in the values", true, false}, {" in the values and in the whole string", true, true}} {
			add(way.name, way.what+stage.where, way.cure, func(r *recipe) {
				if stage.value && r.value.keep != nil {
					way.change(&r.value)
				}
				if stage.whole && r.whole.keep != nil {
					way.change(&r.whole)
				}
			})
		}
	}
	if m.callback {
		add("three-replaced", "only - _ . are replaced in the values", "in a callback every byte of a value but 0-9 A-Z a-z ! * ( ) is encoded first, then the whole string again",
			func(r *recipe) {
				r.value = encoder{keep: func(b byte) bool { return strings.IndexByte("-_.", b) < 0 }}
			})
	}
	return list
}

// findMistakes returns the mistakes with which the signature received is made: one if one
// will do, else two. alike are the names of others that come to the same for this message.
func findMistakes(right recipe, list []mistake) (made []mistake, alike []string) {
	fits := func(mistakes ...mistake) bool {
		r := right
		for _, m := range mistakes {
			m.apply(&r)
		}
		return r.fits()
	}
	for _, m := range list {
		switch {
		case !fits(m):
		case made == nil:
			made = []mistake{m}
		case m.Name != made[0].Name && !slices.Contains(alike, m.Name):
			alike = append(alike, m.Name)
		}
	}
	if made != nil {
		return made, alike
	}
	for i, first := range list {
		for _, second := range list[i+1:] {
			if fits(first, second) {
				return []mistake{first, second}, nil
			}
		}
	}
	return nil, nil
}

// documented are the parameters of protocol.md 3 and 5, but for sig.
var documented = map[string]bool{
	"openid": true, "openkey": true, "pay_token": true, "appid": true, "ts": true, "pf": true, "pfkey": true, "zoneid": true,
	"payitem": true, "goodsmeta": true, "goodsurl": true, "amt": true, "appmode": true, "max_num": true, "app_metadata": true,
	"userip": true, "format": true, "accounttype": true,
	"token": true, "billno": true, "payamt_coins": true, "pubacct_payamt_coins": true, "appmeta": true, "providetype": true,
	"version": true, "clientver": true, "channel_id": true, "paychannel": true, "paychannelsubid": true, "cftid": true,
	"discountid": true, "giftcoins": true,
}
