package minigame

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Limits of a push.
const (
	maxPushBytes  = 128 << 10
	maxQueryBytes = 4 << 10
)

// A Push is one message that WeChat posted (minigame.md 2.3), its signatures verified.
type Push struct {
	MsgType, Event string
	Time           time.Time // CreateTime, zero where not told; old ones are not refused

	// Content is a *[Delivery], *[CoinPayment] or *[RefundPush]; of mini games also a *[Gift]; of
	// mini programs also a *[SubscriptionCharge], *[Complaint], *[MerchantNotice] or
	// *[RefundInquiry]. It is nil for a mock push and for what this package does not read.
	Content any

	// Mock says that the console's button 模拟推送 made it: random values, to be
	// acknowledged and nothing else.
	Mock bool

	// Authentic says that a signature covers the body: the push came encrypted, or its
	// PayEventSig matches. A mini game's push in plaintext mode that is not authentic may have
	// been written by anyone who has seen the URL of one; its Content is nil.
	Authentic bool

	Raw Raw

	verified, known         bool  // known: a row of events
	stake                   stake // of that row, or as it looks
	named                   names
	odd                     error // what is odd about an acknowledged push
	alarm                   bool  // a person must hear of it
	came                    time.Time
	flat                    bool           // a mini program's, or without the object MiniGame
	xml, encrypted          bool           // how it came, so how it is answered
	key                     func() PushKey // a func: printers show fields, not closures
	keyIndex, pushKeyIndex  int            // of the keys that it verified under
	appID, timestamp, nonce string
}

// Raw is a message as it was received, in JSON or XML, after decryption.
type Raw []byte

// String returns the message as text.
func (r Raw) String() string { return string(r) }

// names are what a push says about which payment it is: one that cannot be used must be found.
type names struct {
	env                Env
	openID, outTradeNo string
}

// Format prints which push it is.
func (p Push) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "minigame.Push{MsgType:%q Event:%q Mock:%t Authentic:%t}", p.MsgType, p.Event, p.Mock, p.Authentic)
}

// ParsePush returns the verified push in a POST request: the raw query of its URL, and its
// body. PushHandler does this and answers; ParsePush is for other HTTP stacks, which
// answer with [Push.Reply]. Raw may share the memory of body.
//
// Every error means that nothing may be granted. [ErrSignature] says that the push is not
// verified (answer 403), [ErrEnvironment] that it is a payment in an environment this
// server does not serve. A [*ParamError] names what is missing or wrong in a verified push, such
// as an Event of the other product. Answer all of them with new(Push).Reply(err). No error
// repeats text from the push.
func (c *core) ParsePush(rawQuery string, body []byte) (*Push, error) {
	p, err := c.parse(rawQuery, body)
	if err != nil {
		return nil, fmt.Errorf("minigame: push: %w", err)
	}
	return p, nil
}

// parse is ParsePush. With an error it returns what could be read.
func (c *core) parse(rawQuery string, body []byte) (*Push, error) {
	p := &Push{appID: c.config().AppID, came: c.config().Now()}
	query, err := pushQuery(rawQuery)
	if err != nil {
		return p, err
	}
	if len(body) > maxPushBytes {
		return p, unverified("the body is over 128 KiB")
	}
	p.timestamp, p.nonce = query.Get("timestamp"), query.Get("nonce")
	if query.Get("encrypt_type") == "aes" {
		// The parameter signature is there too, but does not cover the body; and of the
		// body in compatible mode only what was encrypted counts.
		var sealed struct{ Encrypt string }
		if _, err := decode(body, &sealed); err != nil {
			return p, unverified("the body is neither JSON nor XML")
		}
		if body, err = c.decryptPush(p, query, sealed.Encrypt); err != nil {
			return p, err
		}
		p.encrypted, p.Authentic = true, true
	} else if !c.signedURL(query, true) {
		return p, unverified("signature: check the Token; a key with an EncodingAESKey takes encrypted pushes only")
	}
	p.verified = true
	var outer envelope
	p.xml, err = decode(body, &outer)
	p.Raw, p.MsgType, p.Event, p.Time, p.flat = body, outer.MsgType, outer.Event, unix(outer.CreateTime), outer.MiniGame == nil || c.program
	row, known := events[p.Event]
	if p.known, p.stake = known, row.stake; known && row.program != c.program {
		return p, &ParamError{"Event", "is one of the other product: a mini game's pushes go to a Game, a mini program's to a Program"}
	}
	switch {
	case err != nil:
		return p, wrongType(err)
	case !known && c.looksPaid(p.Raw, outer.MiniGame):
		p.stake = gift
	}
	if c.program {
		return p, c.readProgram(p)
	}
	return p, c.readGame(p, outer.MiniGame)
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

// signedURL reports whether the parameter signature holds under one of the keys. For a push only
// those without encryption count: where encryption is expected, dropping encrypt_type from a URL
// that was seen must not let a forged body in.
func (c *core) signedURL(query url.Values, push bool) bool {
	ok := false
	for _, key := range c.config().PushKeys {
		want := PushSignature(string(key.Token), query.Get("timestamp"), query.Get("nonce"))
		ok = equal(query.Get("signature"), want) && !(push && key.EncodingAESKey != "") || ok
	}
	return ok
}

func (c *core) decryptPush(p *Push, query url.Values, encrypted string) ([]byte, error) {
	encrypted = strings.TrimSpace(encrypted) // the signature does not cover what XML has around it
	refused := unverified("msg_signature: check Token and EncodingAESKey")
	if strings.Contains(encrypted, " ") {
		refused = unverified("Encrypt has blanks inside: they were a + each, until something read the body as a form")
	}
	for i, key := range c.config().PushKeys {
		want := PushSignature(string(key.Token), p.timestamp, p.nonce, encrypted)
		if key.EncodingAESKey == "" || !equal(query.Get("msg_signature"), want) {
			continue
		}
		message, err := DecryptPush(string(key.EncodingAESKey), p.appID, encrypted)
		if err != nil {
			refused = unverified(err.Error()) // but another key may have the same Token
			continue
		}
		p.key, p.pushKeyIndex = func() PushKey { return key }, i
		return message, nil
	}
	return nil, refused
}

// An envelope is what every push has, read from JSON or XML.
type envelope struct {
	MsgType, Event string
	CreateTime     loose
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

// loose is an integer no decision depends on; anything else reads as 0.
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

// text is an optional string; a value of another type reads as "".
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		_ = json.Unmarshal(b, (*string)(t))
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

// unverified returns the error of a push that anyone can have sent.
func unverified(reason string) error { return fmt.Errorf("%w: %s", ErrSignature, reason) }
