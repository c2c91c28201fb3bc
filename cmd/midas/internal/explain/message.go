package explain

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// What a message is.
const (
	Callback = "callback" // of the older Midas: a delivery callback
	Request  = "request"  // of the older Midas: an order, or another call
	Order    = "order"    // of a mini game or mini program: what the client passes on
	Call     = "call"     // of a mini game or mini program, to WeChat
	Push     = "push"     // to a mini game or mini program, from WeChat
)

// A Message is what went over the wire, with one signature or several in it.
type Message struct {
	Kind     string
	Method   string // as recorded, or ""
	RawQuery string
	FromJSON bool // RawQuery is made of parameters in JSON

	site   string     // "http://host", or ""
	path   string     // of the URL, decoded; "" where there was only a query
	values url.Values // of the query; of mini games
	body   string     // of a call or a push; "" where it is not known
	line   string     // a URL that was found in JSON

	// Of an order.
	signData, mode    string
	paySig, signature string
	asObject          bool // signData is an object, where a string is wanted

	// Of a push's body.
	event, payload, rawPayload, payEventSig string
	encrypt, rawEncrypt                     string // without and with what stands around it

	notes []lang.Text
}

// A Param is one parameter.
type Param struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

const (
	// MaxQuery is as much as the library takes of a callback; it keeps the search short.
	MaxQuery = 16 << 10
	// MaxInput is as much as is read of anything; orders and pushes have a kilobyte or two.
	MaxInput = 64 << 10
)

// Parse reads a message: JSON that holds an order, a push or a callback's parameters, an XML
// push, a URL, a raw query, or a line of a log that holds a URL. body is that of a server call
// or a push, if it is known. The error is a [lang.Text].
func Parse(text, body string) (*Message, error) {
	text = strings.TrimSpace(text)
	if len(text)+len(body) > MaxInput {
		return nil, lang.T("input.long")
	}
	m := &Message{}
	switch {
	case strings.HasPrefix(text, "<"):
		if m.readPush(text) == nil && m.isPush() {
			return m.with(body), nil
		}
	case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "["):
		if m.readJSON([]byte(text), 1) {
			return m.with(body), nil
		}
		text = cmp.Or(m.line, text)
	}
	if strings.Contains(text, "\n") {
		return nil, lang.T("input.lines")
	}
	m = &Message{body: body}
	target, err := m.readLine(text)
	if err != nil {
		return nil, err
	}
	before, query, isURL := strings.Cut(target, "?")
	if !isURL {
		before, query = "", target
	}
	m.RawQuery, _, _ = strings.Cut(query, "#")
	u, err := url.Parse(before)
	switch {
	case !strings.Contains(m.RawQuery, "="):
		return nil, lang.T("input.no-query")
	case err != nil:
		return nil, lang.T("input.no-url")
	}
	m.path = u.Path
	if u.Host != "" {
		m.site = u.Scheme + "://" + u.Host
	}
	m.values, _ = url.ParseQuery(m.RawQuery) // the values wanted are hex and digits
	if err := m.recognise(u.Hostname()); err != nil {
		return nil, err
	}
	if m.Kind == Callback || m.Kind == Request {
		if len(text) > MaxQuery {
			return nil, lang.T("input.long-query")
		}
		return m.with(body), nil
	}
	return m, nil
}

// with notes a body that nothing is signed of.
func (m *Message) with(body string) *Message {
	if body != "" {
		m.notes = append(m.notes, lang.T("note.body-unused"))
	}
	return m
}

var (
	// The request line in a line of an access log: a URL with a query, perhaps after a method.
	requestLine = regexp.MustCompile(`(?:\b([A-Z]{3,7}) +)?["']?([^\s"'<>]*\?[^\s"<>]*[^\s"'<>])`)
	// A body in a command line of curl.
	curlData = regexp.MustCompile(`(?:-d|--data(?:-raw|-binary)?) +'([^']*)'`)
	// One whose query was left out: Midas's callbacks and WeChat's pushes always have one.
	bareRequest = regexp.MustCompile(`\b(?:GET|POST) +"?((?:https?://[^\s"?/]+)?/[^\s"?]*)`)
	// nginx writes bytes that are not plain ASCII as \xHH.
	logEscape = regexp.MustCompile(`\\x[0-9A-Fa-f]{2}`)
	// What each signed query has.
	signedQuery = regexp.MustCompile(`[?&](sig|pay_sig|(msg_)?signature|access_token)=`)
)

// readLine returns the URL or query in a line, which may be all of it.
func (m *Message) readLine(text string) (target string, err error) {
	if !strings.ContainsAny(text, " \t\"") {
		return text, nil
	}
	found := requestLine.FindAllStringSubmatch(text, -1)
	i := slices.IndexFunc(found, func(f []string) bool { return signedQuery.MatchString(f[2]) })
	switch {
	case i >= 0:
		if found[i][1] != "" {
			m.Method = found[i][1]
		}
		if data := curlData.FindStringSubmatch(text); data != nil {
			m.body, m.Method = cmp.Or(m.body, data[1]), cmp.Or(m.Method, "POST")
		}
		return logEscape.ReplaceAllStringFunc(found[i][2], func(s string) string {
			b, _ := strconv.ParseUint(s[2:], 16, 8) // the pattern is two hex digits
			return string([]byte{byte(b)})
		}), nil
	case strings.HasPrefix(text, "{"), json.Valid([]byte(text)):
		return "", lang.T("input.json")
	case bareRequest.MatchString(text):
		return "", lang.T("input.query-left-out", bareRequest.FindStringSubmatch(text)[1])
	case strings.ContainsAny(text, " \t"):
		return "", lang.T("input.no-signature")
	}
	return text, nil
}

// recognise tells what a URL belongs to: by its host and path, or by its query, since the URLs
// of a game may have any path.
func (m *Message) recognise(host string) error {
	has := m.values.Has
	switch {
	case has("sig") && has("openid") && has("billno"):
		m.Kind = kindOf(m.params(Decode))
	case (has("timestamp") || has("nonce")) && (has("signature") || has("msg_signature")) && !has("pay_sig") && !has("access_token"):
		m.Kind = Push
		return m.readPush(m.body)
	case strings.HasPrefix(m.path, "/cgi-bin/midas/"):
		return lang.T("foreign.virtual-payment-1")
	case strings.HasPrefix(m.path, "/api/json/openApiPay/"):
		return lang.T("foreign.qq")
	case strings.HasPrefix(m.path, "/v3/pay/"), m.path == "/pay/unifiedorder":
		return lang.T("foreign.wechat-pay")
	case has("pay_sig"), signedCall(m.path) && (has("signature") || has("access_token")):
		m.Kind = Call
	case strings.HasSuffix(host, "api.weixin.qq.com"):
		return lang.T("foreign.wechat")
	default:
		m.Kind = kindOf(m.params(Decode))
	}
	return nil
}

// kindOf tells a request from a callback: openkey, pfkey and goodsmeta go to Midas and never
// come from it (protocol.md 3 and 5).
func kindOf(params []Param) string {
	if slices.ContainsFunc(params, func(p Param) bool { return p.Name == "openkey" || p.Name == "pfkey" || p.Name == "goodsmeta" }) {
		return Request
	}
	return Callback
}

// maxEnvelopes is how deep in JSON an order or a push is looked for.
const maxEnvelopes = 6

// readJSON looks for an order, a push or a callback's parameters in JSON: as they are, or in an
// envelope, such as a backend's answer or a line of its log.
func (m *Message) readJSON(text []byte, depth int) bool {
	var fields map[string]json.RawMessage
	var list []json.RawMessage
	var inner string
	switch {
	case depth > maxEnvelopes:
		return false
	case json.Unmarshal(text, &fields) == nil:
		// A decoder takes names in any case, and much is called payload or event.
		ofPush := slices.ContainsFunc([]string{"MiniGame", "Payload", "Encrypt", "Event"}, func(name string) bool { return fields[name] != nil })
		if m.readOrder(fields) || ofPush && m.readPush(string(text)) == nil && m.isPush() || m.readParams(fields) {
			return true
		}
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			list = append(list, fields[name])
		}
	case json.Unmarshal(text, &list) == nil:
	case json.Unmarshal(text, &inner) == nil:
		inner = strings.TrimSpace(inner)
		if m.line == "" && !strings.Contains(inner, "\n") && signedQuery.MatchString(inner) {
			m.line = inner
		}
		return strings.HasPrefix(inner, "{") && m.readJSON([]byte(inner), depth+1)
	}
	return slices.ContainsFunc(list, func(part json.RawMessage) bool { return m.readJSON(part, depth+1) })
}

// text returns a JSON string, or other JSON as it is.
func text(raw json.RawMessage) (s string, isString bool) {
	if json.Unmarshal(raw, &s) == nil && len(raw) > 0 && raw[0] == '"' {
		return s, true
	}
	return string(raw), false
}

func (m *Message) readOrder(fields map[string]json.RawMessage) bool {
	named := map[string]json.RawMessage{} // in any spelling: paySig, pay_sig, PaySig
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		raw, key := fields[name], strings.ToLower(strings.ReplaceAll(strings.TrimSuffix(name, "_str"), "_", ""))
		if had := named[key]; string(raw) != "null" && (had == nil || had[0] != '"' && raw[0] == '"') { // of two, the text that was signed
			named[key] = raw
		}
	}
	if named["signdata"] == nil {
		return false
	}
	m.Kind = Order
	m.paySig, _ = text(named["paysig"])
	m.signature, _ = text(named["signature"])
	m.mode, _ = text(named["mode"])
	isString := false
	m.signData, isString = text(named["signdata"])
	m.asObject = !isString
	return true
}

// readParams reads the parameters of a callback or a request that were logged as JSON.
func (m *Message) readParams(fields map[string]json.RawMessage) bool {
	if fields["sig"] == nil || fields["offer_id"] != nil || fields["openid"] == nil && fields["billno"] == nil { // offer_id is of virtual payment 1.0
		return false
	}
	var given []Param
	for name, raw := range fields {
		value, isString := text(raw)
		if !isString && (raw[0] == '{' || raw[0] == '[') {
			return false
		}
		if value == "null" && !isString {
			value = ""
		}
		given = append(given, Param{name, value})
	}
	for _, p := range sorted(given) {
		m.RawQuery += string(encodeE.append(append(encodeE.append([]byte{'&'}, p.Name), '='), p.Value))
	}
	m.Kind, m.FromJSON, m.notes = kindOf(given), true, append(m.notes, lang.T("note.from-json"))
	return true
}

// isPush reports whether a body is a push's.
func (m *Message) isPush() bool {
	m.Kind = Push
	return m.payload != "" || m.encrypt != "" || strings.HasPrefix(m.event, "xpay_") || slices.Contains(signedEvents, m.event)
}

// readPush reads a push's body, if there is one. In JSON and XML alike, blank space around
// Encrypt is not part of it (minigame.md 2.3).
func (m *Message) readPush(body string) error {
	m.body = body
	if strings.TrimSpace(body) == "" {
		return nil // a verification of the URL, or the body is not known
	}
	var push struct {
		Event, Encrypt string
		MiniGame       struct {
			Payload     json.RawMessage `xml:"-"`
			Text        string          `json:"-" xml:"Payload"`
			PayEventSig string
		}
		Payload     json.RawMessage `xml:"-"` // of Super App as a Service, which has both at the top
		PayEventSig string
	}
	if strings.HasPrefix(strings.TrimSpace(body), "<") {
		if xml.Unmarshal([]byte(body), &push) != nil {
			return lang.T("body.not-xml")
		}
	} else {
		if json.Unmarshal([]byte(body), &push) != nil {
			return lang.T("body.not-json")
		}
		if push.MiniGame.Payload == nil && push.Payload != nil {
			push.MiniGame.Payload, push.MiniGame.PayEventSig = push.Payload, push.PayEventSig
			m.notes = append(m.notes, lang.T("note.super-app"))
		}
		push.MiniGame.Text, _ = text(push.MiniGame.Payload)
		m.rawPayload = strings.Trim(string(push.MiniGame.Payload), `"`)
	}
	m.event, m.rawEncrypt, m.encrypt = push.Event, push.Encrypt, strings.TrimSpace(push.Encrypt)
	m.payload, m.payEventSig = push.MiniGame.Text, push.MiniGame.PayEventSig
	return nil
}

// Params returns the parameters received.
func (m *Message) Params() []Param { return m.params(Decode) }

// params splits the query as protocol.md 5 obliges, which no standard parser does: on "&"
// alone, empty pairs skipped, cut at the first "=", names decoded like values.
func (m *Message) params(decode func(string) string) []Param {
	var params []Param
	for pair := range strings.SplitSeq(m.RawQuery, "&") {
		if pair != "" {
			name, value, _ := strings.Cut(pair, "=")
			params = append(params, Param{decode(name), decode(value)})
		}
	}
	return params
}

// Decode decodes %XX, and "+" to a space; a "%" that starts no valid escape is itself.
func Decode(s string) string { return literalPlus(strings.ReplaceAll(s, "+", " ")) }

// literalPlus decodes %XX alone.
func literalPlus(s string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "%")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if b, err := hex.DecodeString(after[:min(len(after), 2)]); err == nil && len(b) == 1 {
			out.WriteByte(b[0])
			s = after[2:]
		} else {
			out.WriteByte('%')
			s = after
		}
	}
}

// Value returns the first value of a name, or "".
func Value(params []Param, name string) string {
	for _, p := range params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}
