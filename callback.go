package midas

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of a callback.
const (
	maxQueryBytes = 16 << 10
	maxBillNo     = 64           // characters; protocol.md 5, delivery callback
	maxUnixTime   = 253402300799 // the last second of 9999, beyond which time.Time has no JSON
)

// A Delivery is a verified callback: Midas says that this player paid for these
// items. It comes from [Client.ParseDelivery], [Client.ParseDeliveryQuery] or
// [Client.DeliveryHandler]. Before granting, compare it with the stored order.
// Nothing verifies a Delivery you construct yourself.
type Delivery struct {
	AppID   string // offer id, Config.AppID
	OpenID  string // the player, as in the order; case-sensitive
	BillNo  string // Midas's serial number, at most 64 characters; (OpenID, BillNo) identifies the payment
	Token   string // of the order
	ZoneID  string // as in the order
	Items   []Item // what was really bought: with MaxQuantity the player may have changed the quantity
	Charged Amount // what was really paid; a discount makes it less than the items' prices, so never require them to be equal

	// Metadata is the order's. PayMethod ("wechat", "qqwallet", "qdqb" …) and Platform
	// ("qq", "wechat" …) are what Midas appended to it. All three are empty if the order
	// had no Metadata. An appmeta with fewer than two "*" is all Metadata.
	Metadata, PayMethod, Platform string

	// Numbers are what the payment system itself calls the payment (cftid, if it is there): the number
	// that a player's receipt may show, and that a refund may be known by.
	Numbers []string

	Time        time.Time // when Midas sent the callback; old ones are not refused
	ProvideType int       // 5 for mobile direct purchase; 0 also when absent

	// Params holds every verified parameter, decoded: without sig, and without
	// cee_extend unless it was signed.
	Params Params
}

// PaymentID returns one id for the payment (openID, billNo), unique among all
// players: the openid, percent-encoded, a slash, and the billno. Where the player's
// items are not in the same database as the payments, save it in the same write as
// the items; that is what keeps a repeated delivery from being granted twice. Keep it in
// the player's record for at least 30 days (how long Midas repeats is not known), and for as
// long as you might restore a backup made before that save (see midassql.Inbox).
func PaymentID(openID, billNo string) string {
	id := make([]byte, 0, len(openID)+1+len(billNo))
	return string(append(append(requestValue.append(id, openID), '/'), billNo...))
}

// ParseDelivery returns the delivery that r asks for. It reads r.Method and
// r.URL.RawQuery only. A method other than GET is [ErrSignature]; for the other errors see
// [Client.ParseDeliveryQuery].
func (c *Client) ParseDelivery(r *http.Request) (*Delivery, error) {
	if r.Method != http.MethodGet {
		return nil, fmt.Errorf("midas: callback: %w: %w", ErrSignature, errNotGet)
	}
	return c.ParseDeliveryQuery(r.URL.RawQuery)
}

// ParseDeliveryQuery returns the delivery in the raw query of a callback: what
// follows the "?" in the request line, untouched. A query that went through a
// parser does not verify any more (protocol.md 5, delivery callback).
//
// After any error nothing may be granted; [ReplyTo] turns each into an answer.
// [ErrSignature] means that the query is not verified; a [*ParamError] wrapped with
// it says why it cannot be. A *ParamError alone is about a verified callback in
// which a parameter is missing, does not fit, or is another app's. A [*ConfigError]
// means that Config.DeliveryPath is not set. No error repeats text from the query.
//
// The age of a callback does not matter: a late repeat must be honoured. A query
// over 16 KiB is refused.
func (c *Client) ParseDeliveryQuery(rawQuery string) (*Delivery, error) {
	d, _, err := c.parse(rawQuery)
	if err != nil {
		return nil, fmt.Errorf("midas: callback: %w", err)
	}
	return d, nil
}

var (
	errNotGet         = errors.New("the method is not GET")
	errNoDeliveryPath = &ConfigError{"DeliveryPath", "empty: set it to the path of the delivery URL as registered at Tencent"}
)

// parse is ParseDeliveryQuery, except that for a verified callback with an error it also
// returns what could be read: the player has paid, so support must be able to find it. key is
// that of the callback: 0 is AppKey, n OtherAppKeys[n-1].
func (c *Client) parse(rawQuery string) (d *Delivery, key int, err error) {
	if c.cfg.DeliveryPath == "" {
		return nil, 0, errNoDeliveryPath
	}
	params, key, err := c.verify(rawQuery)
	if err != nil {
		return nil, 0, err
	}
	d = &Delivery{Params: params}
	return d, key, d.read(c.cfg.AppID)
}

// verify returns the verified parameters of a callback, and its key.
func (c *Client) verify(rawQuery string) (params Params, key int, err error) {
	for _, plus := range []byte{' ', '+'} { // whether Midas ever means a literal "+" is open: try that last
		params, err := splitQuery(rawQuery, plus)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		if signed, key := c.signed(params); signed != nil {
			return signed, key, nil
		}
		if strings.IndexByte(rawQuery, '+') < 0 {
			break
		}
	}
	return nil, 0, fmt.Errorf("%w: check the pay key, its environment, and that DeliveryPath, %s, is the registered path", ErrSignature, c.cfg.DeliveryPath)
}

// signed returns the parameters that the signature among them covers, and under which key, or
// nil. It reuses the memory of params.
func (c *Client) signed(params Params) (signed Params, key int) {
	sig := []byte(strings.ReplaceAll(params.Get("sig"), " ", "+")) // base64 has no space: a "+" was not escaped
	params = params.without("sig")
	candidates := []Params{params}
	// The documentation leaves cee_extend out of the signature, Tencent's SDKs do not.
	if slices.ContainsFunc(params, isCEEExtend) {
		candidates = []Params{slices.DeleteFunc(slices.Clone(params), isCEEExtend), params}
	}
	for key, appKey := range c.keys() {
		for _, params := range candidates {
			var want [sigLength]byte
			signInto(&want, http.MethodGet, c.cfg.DeliveryPath, params, appKey, &callbackValue)
			if subtle.ConstantTimeCompare(sig, want[:]) == 1 {
				return params, key
			}
		}
	}
	return nil, 0
}

func isCEEExtend(p Param) bool { return p.Name == "cee_extend" }

func (p Params) without(name string) Params {
	return slices.DeleteFunc(p, func(param Param) bool { return param.Name == name })
}

// splitQuery reads a raw query the way Midas writes it (protocol.md 5, delivery
// callback), which no standard parser does, and returns its parameters, sorted. A
// bare "+" is read as plus. It refuses what no signature could make safe: odd
// names, repeated names, another protocol.
func splitQuery(rawQuery string, plus byte) (Params, error) {
	if len(rawQuery) > maxQueryBytes {
		return nil, &ParamError{Param: "query", Reason: "over 16 KiB"}
	}
	params := make(Params, 0, strings.Count(rawQuery, "&")+1)
	var decoded strings.Builder // of all names and values, so that they share one allocation
	decoded.Grow(len(rawQuery))
	for pair := range strings.SplitSeq(rawQuery, "&") { // ";" is data
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=") // a bare name has an empty value
		p := Param{unescape(&decoded, name, plus), unescape(&decoded, value, plus)}
		// Names are not encoded before signing: "amt%3D1%26appid=145" would carry the
		// signature of "amt=1&appid=145".
		if !isPlainName(p.Name) {
			return nil, &ParamError{Param: "query", Reason: "a name holds something other than letters, digits and _ . -"}
		}
		params = append(params, p)
	}
	params.sort()
	for i := 1; i < len(params); i++ {
		if params[i].Name == params[i-1].Name {
			return nil, &ParamError{Param: knownName(params[i].Name), Reason: "comes twice"}
		}
	}
	if params.Get("version") == "v5" {
		return nil, &ParamError{Param: "version", Reason: "v5 is the order centre's callback, signed with RSA: another protocol"}
	}
	if params.Get("sig") == "" {
		return nil, &ParamError{Param: "sig", Reason: "missing"}
	}
	return params, nil
}

// unescape decodes %XX, and "+" as plus, in the memory of b, so that all parts of a query share
// one allocation. A "%" that starts no valid escape is itself.
func unescape(b *strings.Builder, s string, plus byte) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	start := b.Len()
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b.WriteByte(plus)
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b.WriteByte(fromHex(s[i+1])<<4 | fromHex(s[i+2]))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()[start:]
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}

func fromHex(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b&^0x20 - 'A' + 10
}

// read sets the fields of d from its verified Params. A number that does not fit is
// an error, never a wrong value; the fields after it stay empty then.
func (d *Delivery) read(appID string) error {
	var payItem, amt, ts, appMeta, provideType string
	version := "v3" // may be absent
	for _, p := range d.Params {
		switch p.Name {
		case "appid":
			d.AppID = p.Value
		case "openid":
			d.OpenID = p.Value
		case "billno":
			d.BillNo = p.Value
		case "token":
			d.Token = p.Value
		case "zoneid":
			d.ZoneID = p.Value
		case "payitem":
			payItem = p.Value
		case "amt":
			amt = p.Value
		case "ts":
			ts = p.Value
		case "appmeta":
			appMeta = p.Value
		case "providetype":
			provideType = p.Value
		case "cftid":
			if p.Value != "" {
				d.Numbers = []string{p.Value}
			}
		case "version":
			version = p.Value
		}
	}
	for _, required := range [...]Param{
		{"appid", d.AppID}, {"openid", d.OpenID}, {"billno", d.BillNo}, {"token", d.Token}, {"payitem", payItem}, {"amt", amt}, {"ts", ts},
	} {
		if required.Value == "" {
			return &ParamError{Param: required.Name, Reason: "missing"}
		}
	}
	switch {
	case d.AppID != appID:
		return &ParamError{Param: "appid", Reason: "is not this client's; each app needs a Client of its own"}
	case version != "v3":
		return &ParamError{Param: "version", Reason: "is not v3"}
	case utf8.RuneCountInString(d.BillNo) > maxBillNo:
		return &ParamError{Param: "billno", Reason: "over 64 characters"}
	}
	d.Metadata, d.PayMethod, d.Platform = splitAppMeta(appMeta)

	var reason string
	if d.Items, reason = parseItems(payItem); reason != "" {
		return &ParamError{Param: "payitem", Reason: reason}
	}
	charged, err := parseNumber("amt", amt, math.MaxInt64)
	if err != nil {
		return err
	}
	d.Charged = Amount(charged) // 0.1 Q-points, that is fen
	unix, err := parseNumber("ts", ts, maxUnixTime)
	if err != nil {
		return err
	}
	d.Time = time.Unix(unix, 0)
	if provideType != "" {
		n, err := parseNumber("providetype", provideType, math.MaxInt32)
		if err != nil {
			return err
		}
		d.ProvideType = int(n)
	}
	return nil
}

// parseNumber reads the value of a parameter as decimal digits up to limit.
func parseNumber(param, value string, limit int64) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if !isDigits(value) || err != nil || n > limit {
		return 0, &ParamError{Param: param, Reason: fmt.Sprintf("not a number from 0 to %d", limit)}
	}
	return n, nil
}

// splitAppMeta splits "<app_metadata>*<pay method>*<platform>" from the right: the
// game's part may hold "*".
func splitAppMeta(s string) (metadata, payMethod, platform string) {
	last := strings.LastIndexByte(s, '*')
	if last < 0 {
		return s, "", ""
	}
	middle := strings.LastIndexByte(s[:last], '*')
	if middle < 0 {
		return s, "", ""
	}
	return s[:middle], s[middle+1 : last], s[last+1:]
}

// callbackNames are the parameters of protocol.md 5, delivery callback. Only these are repeated in
// answers and errors; any other name is text from the caller.
var callbackNames = []string{
	"openid", "appid", "zoneid", "token", "billno", "payitem", "amt", "payamt_coins", "pubacct_payamt_coins",
	"appmeta", "ts", "providetype", "version", "clientver", "channel_id", "paychannel", "paychannelsubid",
	"cftid", "discountid", "giftcoins", "cee_extend", "sig",
}

// knownName returns name if it is one of callbackNames, else "query".
func knownName(name string) string {
	if slices.Contains(callbackNames, name) {
		return name
	}
	return "query"
}
