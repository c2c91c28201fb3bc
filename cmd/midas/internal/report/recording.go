// Package report makes of a recording of "midas tap" a sheet: which of the points that the
// protocol leaves open it decides, and which of its lines show that.
//
// Everything here is masked, whatever the recording is, and what is printed of it are numbers,
// times, and names of parameters that Midas itself sent. Callbacks and pushes count only if they
// verified when they came, since a stranger may have sent one; orders and calls only by the answer that
// the gateway gave.
package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/midas-go/midas/midastest"
)

// How a signature was made, in tap.Verdict.Signed: what is open, and what only the signature tells.
const (
	SignedYSDK        = "ysdk-path" // an order: its path with /v3/r
	SignedGet         = "get"       // a callback, by its method
	SignedPost        = "post"
	SignedPlusSpace   = "plus-space" // a bare + was a space
	SignedPlusItself  = "plus-itself"
	SignedCEE         = "cee-extend" // cee_extend took part
	SignedNoCEE       = "no-cee-extend"
	SignedEscapedPath = "escaped-path"
	SignedDecodedPath = "decoded-path"
	SignedEncrypted   = "encrypted" // a push
	SignedJSON        = "json"
	SignedXML         = "xml"
	SignedPayEvent    = "pay-event-sig-" // and the number of the AppKey among those given
)

// OwnAgent is the User-Agent of the commands that send callbacks of their own: they are not Midas's.
const OwnAgent = "midas-go/midas"

func agentOf(e *tap.Exchange) string { return strings.Join(e.Request.Header("User-Agent"), ",") }

var pushSignature, pushNonce = regexp.MustCompile(`[?&]signature=.`), regexp.MustCompile(`[?&]nonce=.`)

// IsPush reports whether what a request asks for is signed as WeChat signs its pushes.
func IsPush(target string) bool {
	return pushSignature.MatchString(target) && pushNonce.MatchString(target)
}

// A recording is what the lines of a file say.
type recording struct {
	orders    []order
	byToken   map[string]int // of orders
	callbacks []callback     // that verified
	pushes    []push         // that verified
	calls     []call
	seen      counts
	whole     bool // nothing is missing, so a first one is the first
}

// counts says what a recording holds.
type counts struct {
	Lines     int       `json:"lines"`
	Torn      int       `json:"torn"` // lines that are not whole
	Lost      int       `json:"lost"` // exchanges that tap says it did not record
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`       // the end of the last exchange
	Gateways  []string  `json:"gateways"` // scheme and host
	Orders    int       `json:"orders"`
	Taken     int       `json:"orders_taken"`
	Callbacks int       `json:"callbacks"`
	Pushes    int       `json:"pushes"`
	Calls     int       `json:"calls"`
	Verified  int       `json:"verified"` // callbacks and pushes
}

// An exchange is what all have.
type exchange struct {
	line   int // the number that it has there
	time   time.Time
	end    time.Time // of the answer, or when it broke off
	params []explain.Param
	signed []string
}

func (e exchange) value(name string) string { return explain.Value(e.params, name) }

func (e exchange) has(signed string) bool { return slices.Contains(e.signed, signed) }

// An order is one that the gateway took.
type order struct {
	exchange
	method, token, attach string
	cookies               map[string]string // values as they came
}

// A callback is one that verified.
type callback struct {
	exchange
	method     string
	agent      string // User-Agent
	outcome    string // what Midas was answered: ok, ret1 …, late, broken
	caller     tap.Caller
	http       string // version
	connection string // the header
	direct     bool   // it is Midas that connected, not a proxy
}

// A call is one of a mini game's or a mini program's server that was answered.
type call struct {
	exchange
	path           string
	fields, answer map[string]any
}

// A push is one that verified.
type push struct {
	exchange
	path, event string
	agent       string         // User-Agent
	fields      map[string]any // beside the event
	payload     map[string]any // what the event is about: of a mini game Payload, of a mini program all
	mock        bool
	answered    string // the body
	status      int
}

// read reads a recording.
func read(file io.Reader, mask func(*tap.Exchange), compared *Comparison) (*recording, error) {
	r := &recording{whole: true, byToken: map[string]int{}}
	torn, err := tap.Read(file, func(e *tap.Exchange) error {
		mask(e)
		printable(e.Verdict)
		compared.Add(e)
		r.seen.Lines++
		r.whole = r.whole && e.Seq == r.seen.Lines // which a line that tap was killed at does not change
		r.add(e)
		return nil
	})
	r.seen.Torn = torn
	return r, err
}

func (r *recording) add(e *tap.Exchange) {
	r.seen.Lost += e.Lost
	if r.seen.From.IsZero() || e.Time.Before(r.seen.From) {
		r.seen.From = e.Time
	}
	x := exchange{line: e.Seq, time: e.Time, end: e.Time.Add(e.Broke)}
	if e.Answer != nil && e.Answer.Ended > 0 {
		x.end = e.Time.Add(e.Answer.Ended)
	}
	if x.end.After(r.seen.To) {
		r.seen.To = x.end
	}
	if e.Request == nil || e.Request.Cut || e.Method() == "" {
		return
	}
	path, _, _ := strings.Cut(e.Target(), "?")
	if u, err := url.Parse(path); err == nil && u.Host != "" {
		path = u.EscapedPath()
	}
	x.params = params(e)
	if e.Verdict != nil {
		x.signed = e.Verdict.Signed
	}
	switch {
	case e.Kind == tap.Order && strings.Contains(path, "/mpay/"):
		r.addOrder(e, x)
	case e.Kind == tap.Order && (strings.HasPrefix(path, "/wxa/game/") || strings.HasPrefix(path, "/xpay/")):
		r.addCall(e, x, path)
	case e.Kind == tap.Callback && IsPush(e.Target()):
		r.addPush(e, x, path)
	case e.Kind == tap.Callback && x.value("billno") != "":
		r.addCallback(e, x)
	}
}

// params returns the parameters of a request, those of a form among them.
func params(e *tap.Exchange) []explain.Param {
	_, query, _ := strings.Cut(e.Target(), "?")
	if e.Method() == http.MethodPost && strings.HasPrefix(strings.Join(e.Request.Header("Content-Type"), ""), "application/x-www-form-urlencoded") {
		query += "&" + string(e.Request.Body)
	}
	return (&explain.Message{RawQuery: query}).Params()
}

func (r *recording) addGateway(e *tap.Exchange) {
	before, _, _ := strings.Cut(e.URL, "?")
	if u, err := url.Parse(before); err == nil && gateway.MatchString(u.Scheme+"://"+u.Host) && !slices.Contains(r.seen.Gateways, u.Scheme+"://"+u.Host) {
		r.seen.Gateways = append(r.seen.Gateways, u.Scheme+"://"+u.Host)
	}
}

func (r *recording) addOrder(e *tap.Exchange, x exchange) {
	r.seen.Orders++
	r.addGateway(e)
	answer := answerOf(e)
	if ret, ok := number(answer["ret"]); !ok || ret != 0 || x.end.Equal(x.time) {
		return
	}
	r.seen.Taken++
	o := order{exchange: x, method: e.Method(), cookies: map[string]string{}}
	o.token, _ = answer["token"].(string)
	o.attach, _ = answer["attach"].(string)
	for _, header := range e.Request.Header("Cookie") {
		for pair := range strings.SplitSeq(header, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			o.cookies[name] = value
		}
	}
	if _, known := r.byToken[o.token]; !known && o.token != "" {
		r.byToken[o.token] = len(r.orders)
	}
	r.orders = append(r.orders, o)
}

var (
	gateway     = regexp.MustCompile(`^https?://[A-Za-z0-9.-]+(:[0-9]+)?$`)
	tlsVersion  = regexp.MustCompile(`^TLS 1\.[0-3]$`)
	httpVersion = regexp.MustCompile(` (HTTP/1\.[01])$`)
	proxies     = []string{"X-Forwarded-For", "X-Real-IP", "X-Forwarded-Proto", "Forwarded", "Via"}
)

func (r *recording) addCallback(e *tap.Exchange, x exchange) {
	r.seen.Callbacks++
	agent := agentOf(e)
	if !x.has(SignedGet) && !x.has(SignedPost) || agent == OwnAgent {
		return
	}
	r.seen.Verified++
	c := callback{
		exchange: x, method: e.Method(), agent: agent, caller: e.Caller,
		connection: strings.ToLower(strings.Join(e.Request.Header("Connection"), ",")),
	}
	if !tlsVersion.MatchString(c.caller.TLS) { // whoever wrote the file
		c.caller.TLS = ""
	}
	// A proxy that does not say so is one that took off the TLS: without TLS here, there may be one.
	c.direct = c.caller.TLS != "" && !slices.ContainsFunc(proxies, func(name string) bool { return len(e.Request.Header(name)) > 0 })
	if found := httpVersion.FindStringSubmatch(e.Line()); found != nil {
		c.http = found[1]
	}
	c.outcome = outcome(e, x)
	r.callbacks = append(r.callbacks, c)
}

func outcome(e *tap.Exchange, x exchange) string {
	ret, ok := number(answerOf(e)["ret"])
	switch {
	case e.Request.Ended > 0 && x.end.Sub(e.Time.Add(e.Request.Ended)) > midastest.Patience:
		return "late"
	case e.AnsweredOK:
		return "ok"
	case e.Answer != nil && e.Answer.Ended > 0 && e.Answer.Status == http.StatusOK && ok && 1 <= ret && ret <= 4:
		return "ret" + strconv.Itoa(ret)
	}
	return "broken"
}

func (r *recording) addCall(e *tap.Exchange, x exchange, path string) {
	r.seen.Calls++
	r.addGateway(e)
	c := call{exchange: x, path: path, answer: answerOf(e)}
	if c.fields = decode(e.Request.Body); c.fields == nil || c.answer == nil || e.Answer.Status != http.StatusOK {
		return
	}
	r.calls = append(r.calls, c)
}

// code is the errcode of a call's answer. Where there is none, the call counts as done (minigame.md 2.4),
// but the answer may be another server's: it decides nothing.
func (c call) code() (code int, ok bool) { return number(c.answer["errcode"]) }

func (r *recording) addPush(e *tap.Exchange, x exchange, path string) {
	r.seen.Pushes++
	p := push{exchange: x, path: path, agent: agentOf(e)}
	if e.Verdict == nil || !e.Verdict.OK || p.agent == OwnAgent {
		return
	}
	if p.fields = decode(e.Verdict.Message); p.fields == nil {
		return
	}
	r.seen.Verified++
	p.event, _ = p.fields["Event"].(string)
	p.payload = p.fields
	if mini, ok := p.fields["MiniGame"].(map[string]any); ok {
		p.payload = mini
		if inner, ok := mini["Payload"].(map[string]any); ok {
			p.payload = inner
		}
		p.mock = fmt.Sprint(mini["IsMock"]) == "true"
	}
	if e.Answer != nil && e.Answer.Ended > 0 {
		p.answered, p.status = string(e.Answer.Body), e.Answer.Status
	}
	r.pushes = append(r.pushes, p)
}

func answerOf(e *tap.Exchange) map[string]any {
	if e.Answer == nil || e.Answer.Cut {
		return nil
	}
	return decode(e.Answer.Body)
}

func decode(text []byte) (fields map[string]any) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if d.Decode(&fields) != nil {
		return nil
	}
	return fields
}

// number reads a number, or a string that holds one.
func number(v any) (n int, ok bool) {
	switch v.(type) {
	case json.Number, string:
		n, err := strconv.Atoi(fmt.Sprint(v))
		return n, err == nil
	}
	return 0, false
}
