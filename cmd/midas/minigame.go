package main

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/midas-go/midas/minigame"
)

// Mini games and mini programs (minigame.md): an order's three strings, a server call, or a push.
type miniMessage struct {
	kind string // "order", "call" or "push"

	// Of an order.
	signData, paySig, signature string
	asObject                    bool // signData is an object, where a string is wanted

	// Of a call and a push.
	path  string
	query url.Values
	body  string

	// Of a push's body.
	event, payload, rawPayload, payEventSig, encrypt string
}

// maxMiniMessage is as much as is taken of one; orders and pushes have a kilobyte or two.
const maxMiniMessage = 64 << 10

// parseMiniMessage reads an order in JSON, the URL of a server call or of a push, with its
// body apart, or the body of a push alone. It returns nil for what is none of these.
func parseMiniMessage(text, body string) (*miniMessage, error) {
	text = strings.TrimSpace(text)
	if len(text)+len(body) > maxMiniMessage {
		return nil, errors.New("the input is over 64 KiB")
	}
	m := &miniMessage{body: body}
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "<") {
		var order struct {
			SignData          json.RawMessage
			PaySig, Signature string
		}
		if json.Unmarshal([]byte(text), &order) == nil && order.SignData != nil {
			m.kind, m.paySig, m.signature = "order", order.PaySig, order.Signature
			if json.Unmarshal(order.SignData, &m.signData) != nil {
				m.signData, m.asObject = string(order.SignData), true
			}
			return m, nil
		}
		m.kind, m.body = "push", text
		if readable := m.parsePush() == nil; readable && m.payload != "" {
			return m, nil
		}
		return nil, nil // such as a line of a log in JSON
	}
	before, query, isURL := strings.Cut(text, "?")
	u, _ := url.Parse(before)
	if !isURL || u == nil {
		return nil, nil
	}
	m.path = u.Path
	m.query, _ = url.ParseQuery(query) // the values wanted are hex and digits
	// The URLs of a game may have such paths, too: the query tells whose they are.
	ofWeChat := strings.HasPrefix(m.path, "/wxa/") || strings.HasPrefix(m.path, "/xpay/")
	switch {
	case m.query.Has("sig") && m.query.Has("openid") && m.query.Has("billno"): // a delivery callback
		return nil, nil
	case m.query.Has("timestamp") && m.query.Has("nonce") && (m.query.Has("signature") || m.query.Has("msg_signature")):
		m.kind = "push"
		return m, m.parsePush()
	case m.query.Has("pay_sig") || ofWeChat && (m.query.Has("signature") || m.query.Has("access_token")):
		m.kind = "call"
	default:
		return nil, nil
	}
	return m, nil
}

func (m *miniMessage) parsePush() error {
	if strings.TrimSpace(m.body) == "" {
		return nil // the verification of a URL
	}
	var push struct {
		Event    string
		Encrypt  string
		MiniGame struct {
			Payload     json.RawMessage `xml:"-"`
			Text        string          `json:"-" xml:"Payload"`
			PayEventSig string
		}
	}
	if strings.HasPrefix(strings.TrimSpace(m.body), "<") {
		if xml.Unmarshal([]byte(m.body), &push) != nil {
			return errors.New("the body is no XML")
		}
	} else {
		if json.Unmarshal([]byte(m.body), &push) != nil {
			return errors.New("the body is no JSON")
		}
		if json.Unmarshal(push.MiniGame.Payload, &push.MiniGame.Text) != nil { // not a string: as it stands
			push.MiniGame.Text = string(push.MiniGame.Payload)
		}
		m.rawPayload = strings.Trim(string(push.MiniGame.Payload), `"`)
	}
	m.event, m.encrypt = push.Event, push.Encrypt
	m.payload, m.payEventSig = push.MiniGame.Text, push.MiniGame.PayEventSig
	return nil
}

// miniKeys are the keys of a mini game, each with others that may have been used instead.
type miniKeys struct{ appKeys, sessionKeys, tokens []string }

// A miniSignature is one signature of a message.
type miniSignature struct {
	Name         string    `json:"name"`
	Verified     bool      `json:"verified"`
	Unchecked    string    `json:"unchecked,omitempty"` // why: the key is not given
	Sig          string    `json:"sig"`
	RightSig     string    `json:"correct_sig,omitempty"`
	Signed       string    `json:"signed,omitempty"` // the text that is signed
	Mistakes     finding   `json:"mistakes"`
	Alternatives []finding `json:"alternatives,omitempty"`
}

type miniExplanation struct {
	Kind       string          `json:"kind"`
	Verified   bool            `json:"verified"`
	Problem    string          `json:"problem,omitempty"`
	Signatures []miniSignature `json:"signatures"`
	Notes      []string        `json:"notes,omitempty"`
}

// print shows what explainMini found.
func (e *miniExplanation) print(t *terminal, lang string) {
	say := sayIn(lang)
	fmt.Fprintln(t.out, t.paint(bold, say(map[string]string{
		"order": "order of a mini game or mini program", "call": "server call of a mini game or mini program", "push": "push to a mini game or mini program",
	}[e.Kind], map[string]string{"order": "小游戏/小程序的下单参数", "call": "小游戏/小程序的服务端接口请求", "push": "小游戏/小程序的消息推送"}[e.Kind])))
	for _, s := range e.Signatures {
		fmt.Fprintf(t.out, "\n%s\n", t.paint(bold, s.Name))
		if s.Signed != "" {
			fmt.Fprintf(t.out, "  %s  %s\n", say("signed  ", "签名文本"), printable(s.Signed))
		}
		fmt.Fprintf(t.out, "  %s  %s\n", say("received", "收到的  "), printable(s.Sig))
		if s.RightSig != "" && !s.Verified {
			fmt.Fprintf(t.out, "  %s  %s\n", say("correct ", "正确的  "), s.RightSig)
		}
		bad := t.paint(red, say("NOT VERIFIED", "签名不对"))
		switch {
		case s.Unchecked != "":
			fmt.Fprintf(t.out, say("%s: %s.\n", "%s：%s。\n"), say("NOT CHECKED", "未校验"), s.Unchecked)
		case s.Verified:
			fmt.Fprintf(t.out, say("%s: the signature is right.\n", "%s：签名正确。\n"), t.paint(green, say("VERIFIED", "通过")))
		case s.Mistakes == nil:
			fmt.Fprintf(t.out, say(`%s: the signature is another one, and no known mistake makes it, nor any two of
them together. What is left: another key (give a second one), a text that is not the one signed,
or a forgery.
`, `%s：收到的是另一个签名，已知的错误及其两两组合都算不出它。剩下的可能：
用了另一个密钥（再给一个试试）、文本不是签名时的那一份，或者是伪造。
`), bad)
		default:
			fmt.Fprintf(t.out, say("%s: the signature is another one. It is made like this:\n", "%s：收到的是另一个签名，它是这样算出来的：\n"), bad)
			(&explanation{lang: lang, Mistakes: s.Mistakes, Alternatives: s.Alternatives}).printMistakes(t)
		}
	}
	for _, note := range e.Notes {
		fmt.Fprintf(t.out, say("\nNote: %s.\n", "\n注意：%s。\n"), printable(note))
	}
	if e.Problem != "" {
		fmt.Fprintf(t.out, say("\n%s: %s.\n", "\n%s：%s。\n"), t.paint(red, say("REFUSED", "拒绝")), printable(e.Problem))
	}
}

// explainMini verifies every signature of m for which a key is given.
func explainMini(lang string, m *miniMessage, keys miniKeys) *miniExplanation {
	say := sayIn(lang)
	e := &miniExplanation{Kind: m.kind, Verified: true}
	check := func(name, sig, missing string, key string, signed string, right func() string, search func() []finding) {
		s := miniSignature{Name: name, Sig: sig, Signed: signed}
		switch {
		case key == "":
			s.Unchecked = missing
		default:
			s.RightSig = right()
			s.Verified = s.RightSig == sig
		}
		if !s.Verified && key != "" {
			if found := search(); found != nil {
				s.Mistakes, s.Alternatives = found[0], found[1:]
			}
		}
		e.Verified = e.Verified && s.Verified
		e.Signatures = append(e.Signatures, s)
	}
	appKey, sessionKey, token := first(keys.appKeys), first(keys.sessionKeys), first(keys.tokens)
	noAppKey := say("give the AppKey with -key", "请用 -key 给出 AppKey（支付密钥）")
	noSession := say("give the session_key with -session-key", "请用 -session-key 给出 session_key")
	noToken := say("give the push Token with -token", "请用 -token 给出消息推送的 Token")
	paySig := func(name, sig, what, signed string, prefixes []choice) {
		check(name, sig, noAppKey, appKey, what+"&"+signed, func() string { return minigame.PaySig(what, signed, appKey) }, func() []finding {
			return findMini(lang, sig, appKeyChoices(lang, keys), append([]choice{{text: what + "&"}}, prefixes...), signedChoices(lang, signed))
		})
	}
	user := func(sig, signed string) {
		check("signature", sig, noSession, sessionKey, signed, func() string { return minigame.Signature(signed, sessionKey) }, func() []finding {
			prefixes := []choice{{}}
			for _, what := range append([]string{m.path}, clientMethods...) {
				if what != "" {
					prefixes = append(prefixes, choice{mistake{Name: "prefix-signed", What: fmt.Sprintf(say("%s and \"&\" are signed before it", "前面多签了 %s 和 \"&\""), quote(what)),
						Cure: say("signature covers signData or the body alone; only paySig and pay_sig have a prefix", "signature 只签 signData 或请求体；带前缀的只有 paySig、pay_sig")}, what + "&"})
				}
			}
			return findMini(lang, sig, sessionKeyChoices(lang, keys), prefixes, signedChoices(lang, signed))
		})
	}
	switch m.kind {
	case "order":
		if m.asObject {
			e.Problem = say("signData is an object: it must be a string, byte for byte as it was signed (client error -15011)", "signData 是对象：必须是字符串，与签名时一个字节都不差（客户端错误 -15011）")
			e.Verified = false
		}
		var fields map[string]json.RawMessage
		_ = json.Unmarshal([]byte(m.signData), &fields) // without "mode" it is a mini program's
		what := clientMethods[0]
		if fields["mode"] == nil {
			what = clientMethods[1]
		}
		paySig("paySig", m.paySig, what, m.signData, whatChoices(lang, what, m.query))
		user(m.signature, m.signData)
	case "call":
		if sig := m.query.Get("pay_sig"); m.query.Has("pay_sig") || !m.query.Has("signature") {
			paySig("pay_sig", sig, m.path, m.body, whatChoices(lang, m.path, m.query))
		}
		if m.query.Has("signature") {
			user(m.query.Get("signature"), m.body)
		}
	case "push":
		if m.query.Has("signature") {
			check("signature", m.query.Get("signature"), noToken, token, "", func() string {
				return minigame.PushSignature(token, m.query.Get("timestamp"), m.query.Get("nonce"))
			}, func() []finding { return findPush(lang, m, keys, m.query.Get("signature"), false) })
		}
		if m.query.Has("msg_signature") {
			check("msg_signature", m.query.Get("msg_signature"), noToken, token, "", func() string {
				return minigame.PushSignature(token, m.query.Get("timestamp"), m.query.Get("nonce"), m.encrypt)
			}, func() []finding { return findPush(lang, m, keys, m.query.Get("msg_signature"), true) })
		}
		if m.payload == "" && m.encrypt != "" {
			e.Notes = append(e.Notes, say("the body is encrypted: what is in it is not checked", "请求体是加密的：里面的内容没有校验"))
		}
		if m.payload != "" {
			signed := signedChoices(lang, m.payload)
			if m.rawPayload != "" && m.rawPayload != m.payload {
				signed = append(signed, choice{mistake{Name: "payload-not-decoded", What: say(`the Payload is signed as it stands between its quotes, with \" and \u`, `签的是 Payload 在引号之间的原文，带着 \" 和 \u`),
					Cure: say("sign the decoded string: the value that a JSON parser returns for Payload", "签解码后的字符串：JSON 解析器得到的 Payload 的值")}, m.rawPayload})
			}
			check("PayEventSig", m.payEventSig, noAppKey, appKey, m.event+"&"+m.payload, func() string { return minigame.PayEventSig(m.event, m.payload, appKey) }, func() []finding {
				return findMini(lang, m.payEventSig, appKeyChoices(lang, keys), append([]choice{{text: m.event + "&"}}, whatChoices(lang, m.event, nil)...), signed)
			})
		}
	}
	return e
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// A choice is one way to do a part of a signature. The first of several is right and has no name.
type choice struct {
	mistake
	text string
}

// pairsOf calls try with every selection of one choice each that has at most two mistakes in
// it, the fewer first, and returns the mistakes of those that fit.
func pairsOf(parts [][]choice, try func(picked []choice) (written []mistake, fits bool)) (found []finding) {
	picked := make([]choice, len(parts))
	for i := range parts {
		picked[i] = parts[i][0]
	}
	judge := func() {
		if written, fits := try(picked); fits {
			var made finding
			for _, c := range picked {
				if c.Name != "" {
					made = append(made, c.mistake)
				}
			}
			found = append(found, append(made, written...))
		}
	}
	judge()
	for i := range parts {
		for _, a := range parts[i][1:] {
			picked[i] = a
			judge()
			for j := i + 1; j < len(parts); j++ {
				for _, b := range parts[j][1:] {
					picked[j] = b
					judge()
				}
				picked[j] = parts[j][0]
			}
		}
		picked[i] = parts[i][0]
	}
	return simplest(found)
}

// findMini finds the mistakes in an HMAC over a prefix and a text.
func findMini(lang, sig string, keys, prefixes, texts []choice) []finding {
	say := sayIn(lang)
	cure := say("it is HMAC-SHA256 with the key as it is, in lower-case hex", "算法是 HMAC-SHA256，密钥原样使用，结果为小写十六进制")
	hashes := []choice{{}}
	for _, h := range [][3]string{
		{"hmac-sha1", "it is an HMAC-SHA1, as the older Midas has", "用的是 HMAC-SHA1，那是老米大师的算法"},
		{"hmac-md5", "it is an HMAC-MD5", "用的是 HMAC-MD5"},
		{"sha256-of-key-and-text", "it is the plain SHA-256 of the key and the text", "用的是“密钥 + 文本”的普通 SHA-256"},
		{"sha256-of-text-and-key", "it is the plain SHA-256 of the text and the key", "用的是“文本 + 密钥”的普通 SHA-256"},
	} {
		hashes = append(hashes, choice{mistake{Name: h[0], What: say(h[1], h[2]), Cure: cure}, h[0]})
	}
	swapped := choice{mistake{Name: "swapped", What: say("the text comes before the prefix", "文本放在了前缀前面"), Cure: say("first the method, path or event, then \"&\", then the text", "先是方法、路径或事件，再是 \"&\"，最后是文本")}, "\x00"}
	if prefixes[0].text != "" {
		prefixes = append(prefixes, swapped)
	}
	reader := miniReader(lang)
	return pairsOf([][]choice{keys, prefixes, texts, hashes}, func(picked []choice) ([]mistake, bool) {
		key, message := picked[0].text, picked[1].text+picked[2].text
		if picked[1].Name == swapped.Name {
			message = picked[2].text + "&" + strings.TrimSuffix(prefixes[0].text, "&")
		}
		var sum []byte
		switch picked[3].text {
		case "hmac-sha1":
			sum = hmacOf(sha1.New, key, message)
		case "hmac-md5":
			sum = hmacOf(md5.New, key, message)
		case "sha256-of-key-and-text":
			sum = sumOf(sha256.New(), key+message)
		case "sha256-of-text-and-key":
			sum = sumOf(sha256.New(), message+key)
		default:
			sum = hmacOf(sha256.New, key, message)
		}
		written, fits := reader.read(sig)[hex.EncodeToString(sum)]
		return written, fits
	})
}

func hmacOf(h func() hash.Hash, key, text string) []byte {
	mac := hmac.New(h, []byte(key))
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func sumOf(h hash.Hash, text string) []byte {
	h.Write([]byte(text))
	return h.Sum(nil)
}

// findPush finds the mistakes in a push's signature: the SHA-1 of its parts, sorted bytewise
// and joined (minigame.md 3).
func findPush(lang string, m *miniMessage, keys miniKeys, sig string, encrypted bool) []finding {
	say := sayIn(lang)
	sorted := say("sort token, timestamp and nonce (and Encrypt, for msg_signature) as strings, by their bytes, and join them with nothing between", "token、timestamp、nonce（msg_signature 还有 Encrypt）按字符串的字节序排序后直接拼接")
	named := func(name, en, zh, text string) choice {
		return choice{mistake{Name: name, What: say(en, zh), Cure: sorted}, text}
	}
	tokens := []choice{{text: first(keys.tokens)}}
	token := say("the Token is the one of the message push settings, as it is", "Token 是消息推送设置里的那个，原样使用")
	other := func(name, en, zh, text string) {
		tokens = append(tokens, choice{mistake{Name: name, What: say(en, zh), Cure: token}, text})
	}
	for i, text := range keys.tokens[1:] {
		other("other-key", fmt.Sprintf("Token number %d of those given is used", i+2), fmt.Sprintf("用的是给出的第 %d 个 Token", i+2), text)
	}
	for _, text := range keys.appKeys {
		other("app-key-used", "the AppKey is used in place of the Token", "用了 AppKey，而不是 Token", text)
	}
	other("token-missing", "the Token is missing", "漏了 Token", "")
	for _, blank := range []string{"\n", "\r\n", " "} {
		other("key-with-blank", fmt.Sprintf("the Token ends in %q", blank), fmt.Sprintf("Token 末尾带着 %q", blank), tokens[0].text+blank)
	}
	parts := []choice{{text: "plain"}, named("encrypt-signed", "Encrypt is among the parts: that is msg_signature", "多签了 Encrypt：那是 msg_signature", "encrypt"), named("body-signed", "the body is among the parts", "多签了请求体", "body")}
	if encrypted {
		parts = []choice{{text: "encrypt"}, named("encrypt-not-signed", "Encrypt is not among the parts: that is signature", "漏签了 Encrypt：那是 signature", "plain"), named("body-signed", "the whole body is among the parts in place of Encrypt", "签的是整个请求体，而不是 Encrypt", "body")}
	}
	orders := []choice{{}, named("not-sorted", "the parts are not sorted", "没有排序", "none"), named("sorted-as-numbers", "the parts are sorted as numbers", "按数值排序", "numbers")}
	joins := []choice{{}, named("joined-with-ampersand", `the parts are joined with "&"`, `用 "&" 拼接`, "&"), named("joined-with-comma", `the parts are joined with ","`, `用 "," 拼接`, ",")}
	hashes := []choice{{}, named("md5", "it is an MD5", "用的是 MD5", "md5"), named("sha256", "it is a SHA-256", "用的是 SHA-256", "sha256")}
	reader := miniReader(lang)
	return pairsOf([][]choice{tokens, parts, orders, joins, hashes}, func(picked []choice) ([]mistake, bool) {
		list := []string{picked[0].text, m.query.Get("timestamp"), m.query.Get("nonce")}
		switch picked[1].text {
		case "encrypt":
			list = append(list, m.encrypt)
		case "body":
			list = append(list, m.body)
		}
		switch picked[2].text {
		case "none":
		case "numbers":
			slices.SortStableFunc(list, func(a, b string) int { return byNumber(param{Name: a}, param{Name: b}) })
		default:
			slices.Sort(list)
		}
		text := strings.Join(list, picked[3].text)
		h := sha1.New()
		switch picked[4].text {
		case "md5":
			h = md5.New()
		case "sha256":
			h = sha256.New()
		}
		written, fits := reader.read(sig)[hex.EncodeToString(sumOf(h, text))]
		return written, fits
	})
}

// miniReader reads signatures that should be lower-case hex.
func miniReader(lang string) *search {
	say := sayIn(lang)
	cure := say("write the bytes of the signature in lower-case hex", "签名写成小写十六进制")
	s := &search{}
	for _, way := range []struct {
		name, what string
		reads      func(string) string
	}{
		{"sig-upper-case", say("the hex digits are capitals", "十六进制用了大写"), strings.ToLower},
		{"sig-line-end", say("there is blank space around it", "两边带着空白"), strings.TrimSpace},
		{"sig-in-base64", say("it is in base64", "写成了 base64"), func(sig string) string {
			if sum, err := base64.StdEncoding.DecodeString(sig); err == nil && isSum(sum) {
				return hex.EncodeToString(sum)
			}
			return sig
		}},
		{"sig-base64-of-hex", say("it is the base64 of hex digits", "是十六进制串的 base64"), func(sig string) string {
			if text, err := base64.StdEncoding.DecodeString(sig); err == nil && len(text)%2 == 0 && len(text) <= 64 {
				if _, err := hex.DecodeString(string(text)); err == nil {
					return string(text)
				}
			}
			return sig
		}},
	} {
		s.written = append(s.written, mistake{Name: way.name, What: way.what, Cure: cure, reads: way.reads})
	}
	return s
}

// keyChoices are the right key and what it may have been turned into.
func keyChoices(lang string, given []string, others ...[]choice) []choice {
	say := sayIn(lang)
	right := first(given)
	choices := []choice{{text: right}}
	asItIs := say("use the key as it is: nothing is appended, decoded or trimmed", "密钥原样使用：不追加、不解码、不截断")
	add := func(name, what, cure, key string) {
		if key != right {
			choices = append(choices, choice{mistake{Name: name, What: what, Cure: cure}, key})
		}
	}
	for i, key := range given[1:] {
		add("other-key", fmt.Sprintf(say("key number %d of those given is used", "用的是给出的第 %d 个密钥"), i+2),
			say("use the AppKey of the order's or push's env, and the player's newest session_key", "AppKey 用订单或推送的 env 对应的那个，session_key 用玩家最新的"), key)
	}
	for _, other := range slices.Concat(others...) {
		add(other.Name, other.What, say("paySig, pay_sig and PayEventSig are made with the AppKey, signature with the session_key", "paySig、pay_sig、PayEventSig 用 AppKey，signature 用 session_key"), other.text)
	}
	add("key-with-ampersand", say(`an "&" is appended to the key, as the older Midas wants`, `密钥后面加了 "&"，那是老米大师的做法`), asItIs, right+"&")
	for _, blank := range []string{"\n", "\r\n", " "} {
		add("key-with-blank", fmt.Sprintf(say("the key ends in %q", "密钥末尾带着 %q"), blank), asItIs, right+blank)
	}
	add("key-with-bom", say("the key begins with a byte order mark", "密钥开头带着 BOM"), asItIs, "\ufeff"+right)
	if decoded, err := base64.StdEncoding.DecodeString(right); err == nil && len(decoded) > 0 {
		add("key-base64-decoded", say("the key is base64-decoded", "密钥先做了 base64 解码"), asItIs, string(decoded))
		add("key-without-padding", say(`the key lacks its "=" at the end`, `密钥末尾的 "=" 被去掉了`), asItIs, strings.TrimRight(right, "="))
	}
	if decoded, err := hex.DecodeString(right); err == nil && len(decoded) > 0 {
		add("key-hex-decoded", say("the key is hex-decoded", "密钥先做了十六进制解码"), asItIs, string(decoded))
	}
	add("key-plus-lost", say(`"+" in the key became a space`, `密钥里的 "+" 变成了空格`), asItIs, strings.ReplaceAll(right, "+", " "))
	return choices
}

func appKeyChoices(lang string, keys miniKeys) []choice {
	say := sayIn(lang)
	return keyChoices(lang, keys.appKeys,
		usedInstead("session-key-used", say("the session_key is used in place of the AppKey", "用了 session_key，而不是 AppKey"), keys.sessionKeys),
		usedInstead("token-used", say("the push Token is used in place of the AppKey", "用了消息推送的 Token，而不是 AppKey"), keys.tokens))
}

func sessionKeyChoices(lang string, keys miniKeys) []choice {
	return keyChoices(lang, keys.sessionKeys,
		usedInstead("app-key-used", sayIn(lang)("the AppKey is used in place of the session_key", "用了 AppKey，而不是 session_key"), keys.appKeys))
}

func usedInstead(name, what string, keys []string) (choices []choice) {
	for _, key := range keys {
		choices = append(choices, choice{mistake{Name: name, What: what}, key})
	}
	return choices
}

// clientMethods are the methods of the client that sell items: of mini games, of mini programs.
var clientMethods = []string{"requestMidasPaymentGameItem", "requestVirtualPayment"}

// apiNames are the English names of calls, which are not what is signed.
var apiNames = map[string][]string{
	"/wxa/game/queryorderinfo": {"pay_v2.queryOrder", "pay_v2.queryOrderInfo"}, "/wxa/game/getbalance": {"pay_v2.getBalance"},
	"/wxa/game/pay": {"pay_v2.pay"}, "/wxa/game/cancelpay": {"pay_v2.cancelPay"}, "/wxa/game/present": {"pay_v2.present"},
	"/xpay/query_order": {"xpay.queryOrder", "queryOrder", "query_order"}, "/xpay/query_user_balance": {"xpay.queryUserBalance", "query_user_balance"},
	"/xpay/currency_pay": {"xpay.currencyPay", "currency_pay"}, "/xpay/notify_provide_goods": {"notify_provide_goods"}, "/xpay/refund_order": {"refund_order"},
}

// The two spellings of one event (minigame.md 3).
var eventSpellings = []string{"minigame_game_pay_goods_deliver_notify", "minigame_h5_goods_deliver_notify", "minigame_deliver_h5_pay_products"}

// whatChoices are wrong prefixes: what should stand there is a client's method, the path of a
// call or the event of a push.
func whatChoices(lang, what string, query url.Values) []choice {
	say := sayIn(lang)
	var choices []choice
	cure := say("the prefix is the client's method for an order, the path of the call for a server call, the Event for a push, and then \"&\"", "前缀：下单是客户端方法名，服务端接口是接口路径，推送是 Event，后面加 \"&\"")
	add := func(name, what, prefix string) {
		choices = append(choices, choice{mistake{Name: name, What: what, Cure: cure}, prefix})
	}
	add("prefix-missing", say("the text alone is signed, without its prefix", "只签了文本，漏了前缀"), "")
	add("ampersand-missing", say(`the "&" after the prefix is missing`, `前缀后面漏了 "&"`), what)
	if strings.HasPrefix(what, "/") {
		add("path-without-slash", say("the path is signed without its leading slash", "路径少了开头的斜杠"), what[1:]+"&")
		add("trailing-slash", say("the path has a trailing slash", "路径末尾多了斜杠"), what+"/&")
		add("whole-url", say("the whole URL is signed in place of the path", "签的是整个 URL，而不是路径"), "https://api.weixin.qq.com"+what+"&")
		unsigned := url.Values{}
		for name, values := range query {
			if name != "pay_sig" && name != "signature" && name != "sig_method" {
				unsigned[name] = values
			}
		}
		add("path-with-query", say("the path is signed with its query", "路径带上了查询串"), what+"?"+unsigned.Encode()+"&")
		for _, method := range []string{"POST", "GET"} {
			add("method-signed", say("the HTTP method is signed before the path", "路径前面多签了请求方法"), method+"&"+what+"&")
		}
	} else {
		add("prefix-with-wx", say(`the method is written with "wx."`, `方法名带了 "wx."`), "wx."+what+"&")
	}
	for _, name := range apiNames[what] {
		add("api-name", say("the name of the call is signed in place of its path: ", "签的是接口名，而不是路径：")+quote(name), name+"&")
	}
	others := slices.Concat(clientMethods, []string{"requestMidasPayment"}, eventSpellings)
	for path := range apiNames {
		others = append(others, path)
	}
	slices.Sort(others)
	for _, other := range others {
		if other != what {
			add("other-prefix", say("it is signed for something else: ", "前缀用错了：")+quote(other), other+"&")
		}
	}
	return choices
}

// signedChoices are the text and what a JSON writer may make of it.
func signedChoices(lang, text string) []choice {
	say := sayIn(lang)
	cure := say("build the text once, sign those bytes and send the same bytes: never parse it and write it anew", "文本只生成一次，签的和发的是同一串字节：不要解析后再重新生成")
	choices := []choice{{text: text}}
	for _, style := range []struct {
		what string
		jsonStyle
	}{
		{say("compact, as most JSON writers do", "紧凑格式"), jsonStyle{}},
		{say(`with ", " and ": ", as Python's json.dumps does`, `带 ", " 和 ": "，Python 的 json.dumps 就这样`), jsonStyle{spaces: true}},
		{say(`with ", " and ": " and \u escapes, as Python's json.dumps does`, `带 ", "、": " 和 \u 转义，Python 的 json.dumps 就这样`), jsonStyle{spaces: true, ascii: true}},
		{say(`with \u escapes`, `带 \u 转义`), jsonStyle{ascii: true}},
		{say(`with \/ and \u escapes, as PHP's json_encode does`, `带 \/ 和 \u 转义，PHP 的 json_encode 就这样`), jsonStyle{ascii: true, slashes: true}},
		{say(`with \/`, `带 \/`), jsonStyle{slashes: true}},
		{say("with < > & escaped, as Go's encoding/json does", "< > & 被转义，Go 的 encoding/json 就这样"), jsonStyle{html: true}},
		{say("with sorted keys", "键被排序"), jsonStyle{sorted: true}},
		{say("with sorted keys and < > & escaped, as Go does with a map", "键被排序，< > & 被转义，Go 的 map 就这样"), jsonStyle{sorted: true, html: true}},
	} {
		written, err := style.rewrite(text)
		if err == nil && written != text {
			choices = append(choices, choice{mistake{Name: "re-serialised", What: say("the JSON is written anew before it is signed, ", "签名之前把 JSON 重新生成了：") + style.what, Cure: cure}, written})
		}
	}
	for _, end := range []string{"\n", "\r\n"} {
		choices = append(choices, choice{mistake{Name: "line-end-signed", What: say("a line end is signed after the text, as json.Encoder writes one", "文本末尾多签了换行，json.Encoder 会写换行"), Cure: cure}, text + end})
	}
	if text != "" {
		choices = append(choices, choice{mistake{Name: "text-missing", What: say("the text itself is not signed", "文本本身没有签"), Cure: cure}, ""})
		if trimmed := strings.TrimSpace(text); trimmed != text {
			choices = append(choices, choice{mistake{Name: "text-trimmed", What: say("the text is trimmed before it is signed", "签名之前去掉了首尾空白"), Cure: cure}, trimmed})
		}
	}
	return choices
}

// maxMiniDepth is how deeply JSON may be nested to be written anew; orders and pushes have two levels or three.
const maxMiniDepth = 100

var errTooDeep = errors.New("nested too deeply")

// A jsonStyle is a way to write JSON.
type jsonStyle struct{ spaces, ascii, slashes, html, sorted bool }

// rewrite reads JSON and writes it in a style, its keys in their sequence.
func (s jsonStyle) rewrite(text string) (string, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	written, err := s.value(d, 1)
	if err == nil && d.More() {
		err = errors.New("more than one value")
	}
	return written, err
}

func (s jsonStyle) value(d *json.Decoder, depth int) (string, error) {
	token, err := d.Token()
	if err != nil {
		return "", err
	}
	comma, colon := ",", ":"
	if s.spaces {
		comma, colon = ", ", ": "
	}
	switch token := token.(type) {
	case json.Delim:
		if depth > maxMiniDepth { // each level copies all that is in it
			return "", errTooDeep
		}
		var parts []string
		for d.More() {
			var key string
			if token == '{' {
				name, err := d.Token()
				if err != nil {
					return "", err
				}
				key = s.text(name.(string)) + colon // in an object a key is always a string
			}
			value, err := s.value(d, depth+1)
			if err != nil {
				return "", err
			}
			parts = append(parts, key+value)
		}
		if _, err := d.Token(); err != nil { // the end
			return "", err
		}
		if token == '{' {
			if s.sorted {
				slices.Sort(parts)
			}
			return "{" + strings.Join(parts, comma) + "}", nil
		}
		return "[" + strings.Join(parts, comma) + "]", nil
	case string:
		return s.text(token), nil
	case nil:
		return "null", nil
	default:
		return fmt.Sprint(token), nil
	}
}

func (s jsonStyle) text(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, char := range text {
		switch {
		case char == '"' || char == '\\':
			b.WriteByte('\\')
			b.WriteRune(char)
		case char < ' ' && strings.ContainsRune("\b\f\n\r\t", char):
			b.WriteString(map[rune]string{'\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}[char])
		case char < ' ', s.html && strings.ContainsRune("<>&", char), s.ascii && char > '~':
			for _, unit := range utf16.Encode([]rune{char}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		case s.slashes && char == '/':
			b.WriteString(`\/`)
		default:
			b.WriteRune(char)
		}
	}
	b.WriteByte('"')
	return b.String()
}
