package explain

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// miniSearch lists what can be wrong with an HMAC over a prefix and a text.
func miniSearch(keys, prefixes, texts []slip) *search {
	s := &search{contexts: []string{".mini"}}
	s.addAll(keys)
	s.addAll(prefixes)
	s.addAll(texts)
	s.addAll(hashSlips)
	s.addWritten(writtenHex)
	return s
}

// pushSearch lists what can be wrong with a push's own signature.
func pushSearch(tokens, parts []slip) *search {
	s := &search{contexts: []string{".push", ".mini"}}
	s.addAll(tokens)
	s.addAll(parts)
	s.addAll([]slip{
		{"not-sorted", func(r *recipe) { r.sort = func([]string) {} }, nil},
		{"sorted-as-numbers", func(r *recipe) { r.sort = func(parts []string) { slices.SortStableFunc(parts, byNumber) } }, nil},
		{"joined-with-ampersand", func(r *recipe) { r.join = "&" }, nil},
		{"joined-with-comma", func(r *recipe) { r.join = "," }, nil},
		{"md5", func(r *recipe) { r.digest = plain(md5.New) }, nil},
		{"sha256", func(r *recipe) { r.digest = plain(sha256.New) }, nil},
	})
	s.addWritten(writtenHex)
	return s
}

// keysInstead are what the right key, the first of given, may have been turned into, and keys
// of two other kinds that may have been used instead.
func keysInstead(given []string, used string, others []string, alsoUsed string, more []string) (slips []slip) {
	right := first(given)
	add := func(key, wrong string, args ...any) {
		slips = append(slips, slip{key, func(r *recipe) { r.key = wrong }, args})
	}
	for i, key := range given[min(len(given), 1):] {
		add("other-key", key, i+2)
	}
	for _, key := range others {
		add(used, key)
	}
	for _, key := range more {
		add(alsoUsed, key)
	}
	add("key-with-ampersand", right+"&")
	for _, blank := range blanks {
		add("key-with-blank", right+blank, strconv.Quote(blank))
	}
	add("key-with-bom", "\ufeff"+right)
	if decoded, err := base64.StdEncoding.DecodeString(right); err == nil && len(decoded) > 0 {
		add("key-base64-decoded", string(decoded))
		add("key-without-padding", strings.TrimRight(right, "="))
	}
	if decoded, err := hex.DecodeString(right); err == nil && len(decoded) > 0 {
		add("key-hex-decoded", string(decoded))
	}
	add("key-plus-lost", strings.ReplaceAll(right, "+", " "))
	return slips
}

// The events whose payload PayEventSig covers (minigame.md 3.3).
var signedEvents = []string{
	"minigame_game_pay_goods_deliver_notify", "minigame_h5_goods_deliver_notify", "minigame_deliver_h5_pay_products",
	"minigame_coin_deliver_completed", "minigame_recharge_center_coin_deliver_completed", "minigame_pay_refund_succ_notify",
}

// prefixSlips are wrong prefixes: what should stand there is a client's method, the path of a
// call or the event of a push. What belongs to one of them is tried with the others, too.
func prefixSlips(what, query string) (slips []slip) {
	add := func(key, prefix string, args ...any) {
		slips = append(slips, slip{key, func(r *recipe) { r.prefix = prefix }, args})
	}
	add("prefix-missing", "")
	add("ampersand-missing", what)
	path := what
	if strings.HasPrefix(what, "/") {
		add("path-without-slash", what[1:]+"&")
	} else {
		path = "/" + what
		add("method-with-slash", path+"&")
		add("prefix-with-wx", "wx."+what+"&")
	}
	add("trailing-slash", what+"/&")
	add("whole-url", "https://api.weixin.qq.com"+path+"&")
	if unsigned, err := url.ParseQuery(query); err == nil && query != "" {
		for _, name := range []string{"pay_sig", "signature", "sig_method"} {
			unsigned.Del(name)
		}
		add("path-with-query", what+"?"+unsigned.Encode()+"&")
	}
	for _, method := range []string{"POST", "GET"} {
		add("method-signed", method+"&"+what+"&")
	}
	for _, change := range []func(string) string{strings.ToLower, strings.ToUpper} {
		add("prefix-in-other-case", change(what)+"&", change(what))
	}
	for _, name := range calls[what].names {
		add("api-name", name+"&", name)
	}
	others := slices.Concat(clientMethods, []string{"requestMidasPayment"}, signedEvents)
	for path := range calls {
		others = append(others, path)
	}
	slices.Sort(others)
	for _, other := range others {
		add("other-prefix", other+"&", other)
	}
	return append(slips, slip{"swapped", func(r *recipe) { r.swapped = true }, nil})
}

// textSlips are what may have been signed in place of a text: what a JSON writer makes of it,
// one encoding too many or too few, a form for JSON or the other way round.
func textSlips(text string) (slips []slip) {
	add := func(key, signed string, args ...any) {
		slips = append(slips, slip{key, func(r *recipe) { r.text = signed }, args})
	}
	styled := func(key, text string) {
		for _, style := range jsonStyles {
			if written, ok := style.rewrite(text); ok {
				add(key+style.name, written)
			}
		}
	}
	add("text-trimmed", strings.TrimSpace(text))
	styled("re-serialised", text)
	add("line-end-signed", text+"\n")
	add("line-end-signed", text+"\r\n")
	add("text-missing", "")
	if object := strings.HasPrefix(strings.TrimSpace(text), "{"); !object {
		var inner string
		if json.Unmarshal([]byte(text), &inner) == nil {
			add("json-string-sent", inner)
		}
		for _, object := range formToJSON(text) {
			styled("form-sent", object)
		}
	} else {
		add("json-string-signed", jsonStyle{}.text(text))
		add("json-string-signed", jsonStyle{ascii: true}.text(text))
		forms, pay := jsonToForm(text)
		for _, form := range forms {
			add("form-signed", form)
		}
		if pay != "" {
			slips = append(slips, slip{"wechat-pay", func(r *recipe) {
				r.prefix, r.text, r.digest = "", pay+"&key="+r.key, plain(md5.New)
			}, nil}, slip{"wechat-pay/hmac", func(r *recipe) { r.prefix, r.text = "", pay+"&key="+r.key }, nil})
		}
	}
	for _, e := range []encoder{encodeE, encodeE.alsoKeeping("~").withPlus(), encodeE.alsoKeeping("!'()*~")} {
		add("percent-encoding-signed", string(e.append(nil, text)))
	}
	if strings.Contains(text, "%") {
		add("percent-encoding-sent", literalPlus(text))
		add("percent-encoding-sent", Decode(text))
	}
	add("html-signed", html.EscapeString(text))
	add("html-signed", strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(text))
	add("html-sent", html.UnescapeString(text))
	return slips
}

// maxForm is how many fields of a form are turned into JSON, and the other way round.
const maxForm = 40

// formToJSON returns the JSON objects that a form may have been made from: its numbers and
// booleans without quotes where the tables of calls have such, wherever they can be, and nowhere.
func formToJSON(form string) (objects []string) {
	pairs := strings.Split(form, "&")
	if !strings.Contains(form, "=") || len(pairs) > maxForm {
		return nil
	}
	for _, bare := range []func(name, value string) bool{
		func(name, value string) bool { return unquoted[name] && isScalar(value) },
		func(_, value string) bool { return isScalar(value) },
		func(_, _ string) bool { return false },
	} {
		var fields []string
		for _, pair := range pairs {
			name, value, _ := strings.Cut(pair, "=")
			name, value = Decode(name), Decode(value)
			if !bare(name, value) {
				value = jsonStyle{}.text(value)
			}
			fields = append(fields, jsonStyle{}.text(name)+":"+value)
		}
		if object := "{" + strings.Join(fields, ",") + "}"; !slices.Contains(objects, object) {
			objects = append(objects, object)
		}
	}
	return objects
}

func isScalar(s string) bool {
	return s == "0" || s == "true" || s == "false" || s != "" && s[0] != '0' && strings.Trim(s, "0123456789") == "" && len(s) < 16
}

// A member of a flat object in compact JSON.
var member = regexp.MustCompile(`"((?:[^"\\]|\\.)*)":("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false)`)

// jsonToForm returns the forms of a flat JSON object, and what WeChat Pay signs of it: sorted,
// raw, without what is empty.
func jsonToForm(object string) (forms []string, pay string) {
	compact, _ := jsonStyle{}.rewrite(object)
	var encoded, raw, filled []string
	for _, found := range member.FindAllStringSubmatch(compact, maxForm) {
		value, _ := text(json.RawMessage(found[2]))
		raw = append(raw, found[1]+"="+value)
		encoded = append(encoded, url.QueryEscape(found[1])+"="+url.QueryEscape(value))
		if value != "" {
			filled = append(filled, raw[len(raw)-1])
		}
	}
	slices.Sort(filled)
	for _, pairs := range [][]string{encoded, raw} {
		forms = append(forms, strings.Join(pairs, "&"), strings.Join(slices.Sorted(slices.Values(pairs)), "&"))
	}
	return forms, strings.Join(filled, "&")
}
