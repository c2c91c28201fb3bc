package minigame

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

// Limits of a push.
const (
	maxPushBytes  = 128 << 10
	maxQueryBytes = 4 << 10
)

// A Push is one message that WeChat posted (minigame.md 4), its signatures verified. At
// most one of Delivery, Coins, Refund, Complaint and RefundInquiry is set; none is for a
// mock push or a message this package does not know.
type Push struct {
	MsgType, Event string
	Time           time.Time // CreateTime, zero where not told; old ones are not refused

	// Mock says that the console's button 模拟推送 made it: random values, to be
	// acknowledged and nothing else.
	Mock bool

	// Authentic says that a signature covers the body: the push came encrypted, or its
	// PayEventSig matches. What is not authentic may have been written by anybody who has
	// seen one URL of a push. Deliveries, Coins and Refunds are always authentic or
	// confirmed by a query, but with Config.TrustPlaintext; a complaint or an inquiry that is
	// not authentic is in Body only, but with Config.TrustPlaintext.
	Authentic bool

	Delivery      *Delivery
	Coins         *CoinPayment
	Refund        *Refund
	Complaint     *Complaint
	RefundInquiry *RefundInquiry

	// Body is the whole message after decryption, in JSON or XML.
	Body []byte

	named                   names          // of a push that cannot be used
	believed                bool           // by Config.TrustPlaintext, or query_order has confirmed it
	paid                    bool           // of an event that is not known: it looks like a delivery
	note                    error          // of an acknowledged push, what is odd about it
	flat                    bool           // without the object MiniGame
	xml, encrypted          bool           // how it came, so how it is answered
	key                     func() PushKey // a func: printers show fields, not closures
	appID, timestamp, nonce string
}

// ParsePush returns the verified push in a POST request: the raw query of its URL, and its
// body. PushHandler does this and answers; ParsePush is for other HTTP stacks, which
// answer with [Push.Reply].
//
// Every error means that nothing may be granted. [ErrSignature] says that the push is not
// verified (answer 403), [ErrEnvironment] that it is a payment in an environment this
// server does not serve, a [*ConfigError] that it is one of the product that
// Config.MiniProgram does not name. A [*midas.ParamError] names what is missing or wrong in a
// verified push. Answer these with [Push.Reply] of the zero Push. No error repeats text
// from the push. ctx is for query_order, which confirms what came in plaintext mode for a
// mini program; see Config.TrustPlaintext.
func (c *Client) ParsePush(ctx context.Context, rawQuery string, body []byte) (*Push, error) {
	p, err := c.parsePush(rawQuery, body)
	if err == nil {
		err = c.confirm(ctx, p)
	}
	if err != nil {
		return nil, fmt.Errorf("minigame: push: %w", err)
	}
	return p, nil
}

// parsePush is ParsePush without the confirmation.
func (c *Client) parsePush(rawQuery string, body []byte) (*Push, error) {
	query, err := pushQuery(rawQuery)
	if err != nil {
		return nil, err
	}
	if len(body) > maxPushBytes {
		return nil, unverified("the body is over 128 KiB")
	}
	p := &Push{timestamp: query.Get("timestamp"), nonce: query.Get("nonce"), appID: c.config().AppID, believed: c.config().TrustPlaintext}
	var outer envelope
	if query.Get("encrypt_type") == "aes" {
		// The parameter signature is there too, but does not cover the body; and of the
		// body in compatible mode only what was encrypted counts.
		var sealed struct{ Encrypt string }
		if _, err := decode(body, &sealed); err != nil {
			return nil, unverified("the body is neither JSON nor XML")
		}
		if body, err = c.decryptPush(p, query, sealed.Encrypt); err != nil {
			return nil, err
		}
		p.encrypted, p.Authentic = true, true
	} else if !c.verifyPlain(query) {
		return nil, unverified("signature: check the Token; a key with an EncodingAESKey takes encrypted pushes only")
	}
	if p.xml, err = decode(body, &outer); err != nil {
		return nil, &midas.ParamError{Param: "body", Reason: "neither JSON nor XML of a push"}
	}
	p.Body, p.MsgType, p.Event, p.flat = body, outer.MsgType, outer.Event, outer.MiniGame == nil
	p.Time = unix(outer.CreateTime)
	if err := c.otherProduct(p.Event); err != nil {
		return p, err
	}
	if c.config().MiniProgram {
		return p, c.readFlat(p)
	}
	return p, c.readMiniGame(p, outer.MiniGame)
}

// pushQuery reads the query of a push or a verification. A parameter that comes twice is
// refused: two readers could take different ones.
func pushQuery(rawQuery string) (url.Values, error) {
	if len(rawQuery) > maxQueryBytes {
		return nil, unverified("the query is over 4 KiB")
	}
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, unverified("the query is not well-formed")
	}
	for _, values := range query {
		if len(values) > 1 {
			return nil, unverified("a parameter comes twice")
		}
	}
	return query, nil
}

// verifyPlain reports whether the parameter signature holds under a key without
// encryption. Where encryption is expected, dropping encrypt_type from a URL that was seen
// must not let a forged body in.
func (c *Client) verifyPlain(query url.Values) bool {
	ok := false
	for _, key := range c.config().PushKeys {
		want := PushSignature(string(key.Token), query.Get("timestamp"), query.Get("nonce"))
		ok = equal(query.Get("signature"), want) && key.EncodingAESKey == "" || ok
	}
	return ok
}

// verifyURL reports whether a GET verification is WeChat's.
func (c *Client) verifyURL(query url.Values) bool {
	ok := false
	for _, key := range c.config().PushKeys {
		want := PushSignature(string(key.Token), query.Get("timestamp"), query.Get("nonce"))
		ok = equal(query.Get("signature"), want) || ok
	}
	return ok
}

func (c *Client) decryptPush(p *Push, query url.Values, encrypted string) ([]byte, error) {
	refused := unverified("msg_signature: check Token and EncodingAESKey")
	for _, key := range c.config().PushKeys {
		want := PushSignature(string(key.Token), p.timestamp, p.nonce, encrypted)
		if key.EncodingAESKey == "" || !equal(query.Get("msg_signature"), want) {
			continue
		}
		message, err := DecryptPush(string(key.EncodingAESKey), p.appID, encrypted)
		if err != nil {
			refused = unverified(err.Error()) // but another key may have the same Token
			continue
		}
		p.key = func() PushKey { return key }
		return message, nil
	}
	return nil, refused
}

// confirm asks query_order about what came for a mini program without a signature over
// its body.
func (c *Client) confirm(ctx context.Context, p *Push) error {
	cfg := c.config()
	if !cfg.MiniProgram || p.Authentic || cfg.TrustPlaintext {
		return nil
	}
	var openID, outTradeNo string
	env, paid := Live, true
	if cfg.AppKey == "" {
		env = Sandbox
	}
	switch {
	case p.Delivery != nil:
		openID, outTradeNo, env = p.Delivery.OpenID, p.Delivery.OutTradeNo, p.Delivery.Env
	case p.Coins != nil:
		openID, outTradeNo, env = p.Coins.OpenID, p.Coins.OutTradeNo, p.Coins.Env
	case p.Refund != nil:
		openID, outTradeNo, paid = p.Refund.OpenID, p.Refund.OutTradeNo, false
	default:
		return nil
	}
	order, err := c.QueryOrder(ctx, OrderQuery{OpenID: openID, Env: env, OrderID: outTradeNo})
	switch {
	case err != nil:
		return fmt.Errorf("a push in plaintext mode cannot be confirmed: %w", err)
	case order.OrderID != outTradeNo, paid && !order.Paid(), !paid && !order.Refunded():
		return fmt.Errorf("%w: query_order does not confirm what came in plaintext mode", ErrSignature)
	}
	p.believed = true
	return nil
}

// An envelope is what every push has, read from JSON or XML.
type envelope struct {
	MsgType, Event string
	CreateTime     number
	MiniGame       *miniGame
}

type miniGame struct {
	Payload     string // JSON inside JSON or XML: its decoded bytes are what is signed
	PayEventSig string
	IsMock      flag
}

// decode reads JSON or XML into v and reports which it was.
func decode(body []byte, v any) (isXML bool, err error) {
	body = bytes.TrimSpace(body)
	if len(body) > 0 && body[0] == '<' {
		return true, xml.Unmarshal(body, v)
	}
	return false, json.Unmarshal(body, v)
}

// A number is an integer that may have come as a string of digits, as in XML.
type number int64

func (n *number) UnmarshalText(text []byte) error {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		*n = 0
		return nil
	}
	i, err := strconv.ParseInt(string(text), 10, 64)
	*n = number(i)
	if err != nil {
		return errors.New("not an integer")
	}
	return nil
}

func (n *number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if b[0] == '"' {
		b = b[1 : len(b)-1]
	}
	return n.UnmarshalText(b)
}

// A loose is a number that decides about nothing: what is not an integer is left out.
type loose int64

func (l *loose) UnmarshalText(text []byte) error {
	var n number
	if n.UnmarshalText(text) == nil {
		*l = loose(n)
	}
	return nil
}

func (l *loose) UnmarshalJSON(b []byte) error {
	var n number
	if n.UnmarshalJSON(b) == nil {
		*l = loose(n)
	}
	return nil
}

// A text is a string that decides about nothing: what has another type is left out.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// A flag is a bool that may have come as text or a number.
type flag bool

func (f *flag) UnmarshalText(text []byte) error {
	s := strings.ToLower(strings.TrimSpace(string(text)))
	*f = flag(s == "true" || s == "1")
	return nil
}

func (f *flag) UnmarshalJSON(b []byte) error { return f.UnmarshalText(bytes.Trim(b, `"`)) }

// unverified returns the error of a push that anybody can have sent.
func unverified(reason string) error { return fmt.Errorf("%w: %s", ErrSignature, reason) }
