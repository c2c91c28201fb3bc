package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/cmd/midas/internal/report"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/midas-go/midas/minigame"
)

// A verifier says of messages whether the library takes their signature, and how it was made.
type verifier struct {
	keys            []string
	appID, path     string
	tokens, aesKeys []string // of pushes
}

func (v verifier) verdict(e *tap.Exchange) *tap.Verdict {
	path, query, _ := strings.Cut(e.Target(), "?")
	if u, err := url.Parse(path); err == nil && u.Host != "" { // an absolute URL
		path = u.EscapedPath()
	}
	body := ""
	if e.Method() == http.MethodPost && e.Request != nil {
		body = string(e.Request.Body)
	}
	switch {
	case e.Kind == tap.Order && strings.Contains(path, "/mpay/") && v.keys != nil:
		return v.order(e.Method(), path, (&explain.Message{RawQuery: query + "&" + body}).Params())
	case e.Kind == tap.Order:
		return nil // no call of this protocol
	case report.IsPush(e.Target()):
		return v.push(query, body)
	case v.keys == nil:
		return nil
	case e.Method() != http.MethodGet:
		no := verdict(false, lang.T("tap.not-get"))
		if v.signed(e.Method(), path, query+"&"+body) {
			no.Signed = []string{report.SignedPost}
		}
		return no
	}
	return v.callback(path, query)
}

func verdict(ok bool, why lang.Text) *tap.Verdict {
	return &tap.Verdict{OK: ok, English: why.In("en"), Chinese: why.In("zh")}
}

func (v verifier) callback(path, query string) *tap.Verdict {
	cfg := midas.Config{AppID: v.appID, AppKey: v.keys[0], OtherAppKeys: v.keys[1:], DeliveryPath: v.path}
	if cfg.AppID == "" {
		cfg.AppID = explain.Value((&explain.Message{RawQuery: query}).Params(), "appid")
	}
	if cfg.DeliveryPath == "" {
		cfg.DeliveryPath = path
	}
	client, err := midas.New(cfg)
	if err != nil { // such a path or appid is nobody's
		no := verdict(false, lang.T("tap.not-verified"))
		no.Signed = v.escapedPath(path, query)
		return no
	}
	d, err := client.ParseDeliveryQuery(query)
	var wrong *midas.ParamError
	switch {
	case err == nil:
		yes := verdict(true, lang.T("tap.verified"))
		yes.Signed = howSigned(d, query)
		return yes
	case errors.As(err, &wrong):
		no := verdict(false, lang.Said(fmt.Sprintf("parameter %s: %s", wrong.Param, wrong.Reason)))
		if !errors.Is(err, midas.ErrSignature) {
			no.Signed = []string{report.SignedGet}
		}
		return no
	}
	return verdict(false, lang.T("tap.not-verified"))
}

// howSigned says how a callback that verifies was signed, where protocol.md 5 leaves that open.
func howSigned(d *midas.Delivery, query string) []string {
	signed := []string{report.SignedGet}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name = explain.Decode(name)
		switch {
		case name == "sig": // base64 has no space
		case name == "cee_extend" && value != "" && d.Params.Get(name) != "":
			signed = append(signed, report.SignedCEE)
		case name == "cee_extend" && value != "":
			signed = append(signed, report.SignedNoCEE)
		case strings.Contains(value, "+") && d.Params.Get(name) == explain.Decode(value):
			signed = append(signed, report.SignedPlusSpace)
		case strings.Contains(value, "+"):
			signed = append(signed, report.SignedPlusItself)
		}
	}
	return signed
}

// escapedPath says which form of a path with escapes was signed, if the callback verifies with one:
// the library takes no such path.
func (v verifier) escapedPath(path, query string) []string {
	decoded, err := url.PathUnescape(path)
	switch {
	case v.path != "", err != nil, decoded == path:
		return nil
	case v.signed(http.MethodGet, path, query):
		return []string{report.SignedGet, report.SignedEscapedPath}
	case v.signed(http.MethodGet, decoded, query):
		return []string{report.SignedGet, report.SignedDecodedPath}
	}
	return nil
}

// signed reports whether a callback verifies with a method or a path that the library does not take.
func (v verifier) signed(method, path, query string) bool {
	if v.path != "" {
		path = v.path
	}
	return v.fits((&explain.Message{RawQuery: query}).Params(), func(values url.Values, key string) string {
		return midas.SignCallback(method, path, values, key)
	})
}

// fits reports whether one of the keys makes the sig among params. What comes twice is signed once,
// so it never fits.
func (v verifier) fits(params []explain.Param, sign func(url.Values, string) string) bool {
	values := url.Values{}
	for _, p := range params {
		if values.Has(p.Name) {
			return false
		}
		values.Set(p.Name, p.Value)
	}
	got := strings.ReplaceAll(values.Get("sig"), " ", "+")
	for _, key := range v.keys {
		if subtle.ConstantTimeCompare([]byte(sign(values, key)), []byte(got)) == 1 {
			return true
		}
	}
	return false
}

// order checks the signature of a call: its path is signed with or without YSDK's prefix.
func (v verifier) order(method, path string, params []explain.Param) *tap.Verdict {
	signs := func(signed string) bool {
		return v.fits(params, func(values url.Values, key string) string { return midas.Sign(method, signed, values, key) })
	}
	yes := verdict(true, lang.T("tap.verified"))
	switch {
	case signs(midas.Production().SignPrefix + path):
		yes.Signed = []string{report.SignedYSDK}
		return yes
	case signs(path):
		return yes
	}
	return verdict(false, lang.T("tap.not-verified"))
}

// push checks what vouches for a push (minigame.md 2.2): msg_signature if it is encrypted, PayEventSig
// if it has one. Of a push with neither, and where what is needed was not given, there is no verdict.
func (v verifier) push(query, body string) *tap.Verdict {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil
	}
	outer, format := readPush(body)
	if outer == nil {
		return nil // the console's GET, or the body of another
	}
	no := verdict(false, lang.T("tap.not-verified"))
	signed := []string{format}
	vouched := false
	if encrypted, _ := outer["Encrypt"].(string); encrypted != "" {
		if len(v.tokens) == 0 || len(v.aesKeys) == 0 {
			return nil // it cannot be checked
		}
		if outer = v.open(values, strings.TrimSpace(encrypted)); outer == nil {
			return no
		}
		vouched, signed = true, append(signed, report.SignedEncrypted)
	}
	event, _ := outer["Event"].(string)
	mini, _ := outer["MiniGame"].(map[string]any)
	payload, _ := mini["Payload"].(string)
	sig, _ := mini["PayEventSig"].(string)
	for i, key := range v.keys {
		if payload != "" && subtle.ConstantTimeCompare([]byte(minigame.PayEventSig(event, payload, key)), []byte(sig)) == 1 {
			vouched, signed = true, append(signed, report.SignedPayEvent+strconv.Itoa(i+1))
		}
	}
	switch {
	case !vouched && (payload == "" || v.keys == nil):
		return nil // it cannot be checked
	case !vouched:
		return no
	}
	if payload != "" {
		if unpacked, ok := unmarshal(payload); ok {
			mini["Payload"] = unpacked
		}
	}
	yes := verdict(true, lang.T("tap.verified"))
	yes.Signed = signed
	yes.Message, _ = json.Marshal(outer)
	return yes
}

// open returns what is in an encrypted push that verifies, or nil.
func (v verifier) open(values url.Values, encrypted string) map[string]any {
	for _, token := range v.tokens {
		want := minigame.PushSignature(token, values.Get("timestamp"), values.Get("nonce"), encrypted)
		if subtle.ConstantTimeCompare([]byte(want), []byte(values.Get("msg_signature"))) != 1 {
			continue
		}
		for _, key := range v.aesKeys {
			if message, err := minigame.DecryptPush(key, v.appID, encrypted); err == nil {
				inner, _ := readPush(string(message))
				return inner
			}
		}
	}
	return nil
}

// readPush reads the body of a push, JSON or XML, or returns nil.
func readPush(body string) (fields map[string]any, format string) {
	if strings.HasPrefix(strings.TrimSpace(body), "<") {
		d := xml.NewDecoder(strings.NewReader(body))
		for {
			token, err := d.Token()
			if err != nil {
				return nil, ""
			}
			if _, ok := token.(xml.StartElement); ok {
				fields, _ = readElement(d, 1).(map[string]any)
				return fields, report.SignedXML
			}
		}
	}
	if read, ok := unmarshal(body); ok {
		fields, _ = read.(map[string]any)
	}
	return fields, report.SignedJSON
}

func unmarshal(text string) (v any, ok bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber() // a number stays as it is written
	return v, d.Decode(&v) == nil
}

// readElement reads an element up to its end: its text, or its elements.
func readElement(d *xml.Decoder, depth int) any {
	var text bytes.Buffer
	var fields map[string]any
	for {
		token, err := d.Token()
		if err != nil || depth > 10 {
			return nil
		}
		switch token := token.(type) {
		case xml.CharData:
			text.Write(token)
		case xml.StartElement:
			if fields == nil {
				fields = map[string]any{}
			}
			fields[token.Name.Local] = readElement(d, depth+1)
		case xml.EndElement:
			if fields != nil {
				return fields
			}
			return text.String()
		}
	}
}
