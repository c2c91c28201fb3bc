package midas

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/go-querystring/query"
)

// buyGoods is the API path of an order, as it follows each of a Gateway's prefixes.
const buyGoods = "/mpay/buy_goods_m"

// TokenLifetime is how long a player can pay for an order. Tencent's texts disagree
// (5 or 15 minutes, protocol.md 1); the shorter one is assumed.
const TokenLifetime = 5 * time.Minute

// Limits of protocol.md 3.
const (
	maxGuestOpenID = 32            // characters
	maxPF          = 150           // bytes
	maxPayItem     = 511           // bytes
	maxGoodsMeta   = 256           // characters
	maxGoodsURL    = 511           // bytes
	maxMetadata    = 128           // bytes
	maxTotal       = 2_000_000_000 // fen

	// maxSecret is the library's own limit, in bytes, on what the app sends as credentials:
	// several times what was ever seen, and little enough to be searched for in an answer.
	maxSecret = 1024
)

// An Item is something a player buys: its id in the game's catalogue, the price of one,
// and how many. ID is printable ASCII without "*", ";", "|" and blanks; in an order
// Price is at least one fen and Quantity at least one.
type Item struct {
	ID       string
	Price    Amount
	Quantity int
}

// OrderRequest is an order to be placed. Printed, logged or marshalled it does not show
// OpenKey, PayToken, PFKey and the values of Extra. Limits are those of protocol.md 3;
// nothing is sent when one is not met.
type OrderRequest struct {
	Login  Login  // how the player logged in; required
	OpenID string // the player, case-sensitive; required

	// OpenKey is the player's credential, at most 1024 bytes as all of them; required. On YSDK: for QQ the value the app
	// calls pay_token, for WeChat the access_token, for guests any text. On the older
	// gateways: the access_token.
	OpenKey string

	// PayToken is for the older gateways only, where QQ players need it; others ignore it.
	PayToken string

	PF     string // platform and channel (平台信息) from the login, as received; at most 150 bytes; required
	PFKey  string // what vouches for PF, from the login; required
	ZoneID string // server zone (大区); for a role in it "zone_role", the role percent-encoded; empty means "1"

	// Items are what is bought; required. On the wire they take less than 512 bytes, and
	// cost 20 million yuan at most.
	Items []Item

	// GoodsName and GoodsDescription are shown to the player, one pair even for several
	// items; together under 256 characters, without "*" and line breaks; required.
	GoodsName, GoodsDescription string

	GoodsURL    string // picture; under 512 bytes
	Metadata    string // the game's own reference, ASCII, at most 128 bytes; comes back as Delivery.Metadata
	UserIP      string // the player's public IP address
	AccountType string // "common" or "security"; empty leaves it out

	// MaxQuantity lets the player choose the quantity of a single item, up to it; it is
	// above the item's Quantity (appmode 2, max_num). Zero fixes the quantity (appmode 1).
	MaxQuantity int

	// Extra holds parameters that this struct does not know, one value each. They are
	// signed like all others. A name from protocol.md 3 is refused, and so is a value that
	// is over 1024 bytes or not UTF-8.
	Extra url.Values
}

// Order is an order that Midas accepted. Store it before the app gets it: the
// delivery may arrive at once. Its JSON goes to the app as it is.
type Order struct {
	Token     string    `json:"token"`            // comes back as Delivery.Token
	URLParams string    `json:"url_params"`       // for the client SDK, byte for byte as received
	Attach    string    `json:"attach,omitempty"` // as received; mostly empty
	Expires   time.Time `json:"expires"`          // TokenLifetime after the order was sent, by Config.Now
}

// CreateOrder places an order (下单, protocol.md 3 and 4) and returns its token.
//
// It is sent again after network faults, 5xx and 429 (see Config.MaxRetries), which is
// safe: an order moves no money. Errors are a [*ParamError] (nothing was sent), an
// [*Error] (Midas refused; see [ErrLoginExpired]), a [*ResponseError] (no usable answer),
// ctx.Err() when ctx ended, or the network fault, whose cause errors.Is and errors.As match.
// (What errors.As takes out of a fault is the transport's own error: branch on it, do not log it.)
// One try takes as long as Config.HTTPClient allows, 5 s by default, so that three take over
// 15 s: give ctx the time that the app waits.
func (c *Client) CreateOrder(ctx context.Context, req OrderRequest) (*Order, error) {
	order, err := c.createOrder(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("midas: buy_goods_m: %w", err)
	}
	return order, nil
}

func (c *Client) createOrder(ctx context.Context, req OrderRequest) (*Order, error) {
	params, err := c.orderParams(req)
	if err != nil {
		return nil, err
	}
	resp, err := c.get(ctx, buyGoods, params, req.Login)
	if err != nil {
		return nil, err
	}
	answer, err := decodeOrderAnswer(resp.body)
	switch {
	case err != nil:
		return nil, resp.unusable(err.Error())
	case *answer.Ret != 0:
		return nil, &Error{
			Ret:  int(*answer.Ret),
			Msg:  excerpt([]byte(answer.Msg), resp.redact),
			Code: excerpt([]byte(answer.Code), resp.redact),
		}
	}
	return &Order{
		Token:     answer.Token,
		URLParams: answer.URLParams,
		Attach:    string(answer.Attach),
		Expires:   resp.sent.Add(TokenLifetime),
	}, nil
}

// orderParams is the table of protocol.md 3, without ts and sig, which are made anew
// for each try. amt is best left out.
type orderParams struct {
	OpenID      text     `url:"openid"`
	OpenKey     text     `url:"openkey"`
	PayToken    *text    `url:"pay_token,omitempty"` // sent empty where it points to ""
	AppID       text     `url:"appid"`
	PF          text     `url:"pf"`
	PFKey       text     `url:"pfkey"`
	ZoneID      text     `url:"zoneid"`
	Items       payItems `url:"payitem"`
	GoodsMeta   text     `url:"goodsmeta"`
	GoodsURL    text     `url:"goodsurl"` // always sent
	AppMode     text     `url:"appmode"`
	MaxNum      int      `url:"max_num,omitempty"`
	Metadata    text     `url:"app_metadata,omitempty"`
	UserIP      text     `url:"userip,omitempty"`
	Format      text     `url:"format"`
	AccountType text     `url:"accounttype,omitempty"`
}

// text is a string that is its own query.Encoder: half the work of go-querystring's way
// through package fmt.
type text string

// EncodeValues implements query.Encoder.
func (t text) EncodeValues(name string, values *url.Values) error {
	values.Set(name, string(t))
	return nil
}

// orderParamNames are the names of protocol.md 3: the library decides about them, Extra
// does not.
var orderParamNames = map[string]bool{
	"openid": true, "openkey": true, "pay_token": true, "appid": true, "ts": true, "pf": true, "pfkey": true,
	"zoneid": true, "payitem": true, "goodsmeta": true, "goodsurl": true, "amt": true, "appmode": true,
	"max_num": true, "app_metadata": true, "userip": true, "format": true, "accounttype": true, "sig": true,
}

// orderParams checks req against protocol.md 3 and returns what is sent for it.
func (c *Client) orderParams(req OrderRequest) (url.Values, error) {
	if err := req.validate(c.cfg.Gateway); err != nil {
		return nil, err
	}
	p := orderParams{
		OpenID:      text(req.OpenID),
		OpenKey:     text(req.OpenKey),
		AppID:       text(c.cfg.AppID),
		PF:          text(req.PF),
		PFKey:       text(req.PFKey),
		ZoneID:      text(cmp.Or(req.ZoneID, "1")),
		Items:       req.Items,
		GoodsMeta:   text(req.GoodsName + "*" + req.GoodsDescription),
		GoodsURL:    text(req.GoodsURL),
		AppMode:     "1", // Midas's own default, 2, lets the player change the quantity
		Metadata:    text(req.Metadata),
		UserIP:      text(req.UserIP),
		Format:      "json",
		AccountType: text(req.AccountType),
	}
	if req.MaxQuantity > 0 {
		p.AppMode, p.MaxNum = "2", req.MaxQuantity
	}
	if c.cfg.Gateway.PayToken {
		payToken := text(req.PayToken)
		if req.Login == WeChat {
			payToken = ""
		}
		p.PayToken = &payToken
	}
	params, err := query.Values(p)
	if err != nil {
		return nil, err
	}
	for name, values := range req.Extra {
		if len(values) == 1 {
			params[name] = values
		}
	}
	return params, nil
}

// validate returns a *ParamError for the first limit of protocol.md 3 that req does not meet.
func (r *OrderRequest) validate(g Gateway) error {
	refuse := func(param, format string, args ...any) error {
		return &ParamError{param, fmt.Sprintf(format, args...)}
	}

	if _, _, known := r.Login.session(); !known {
		return refuse("session_type", "Login must be midas.QQ, midas.WeChat, midas.Guest or midas.H5")
	}
	for _, required := range []struct{ name, value string }{
		{"openid", r.OpenID}, {"openkey", r.OpenKey}, {"pf", r.PF}, {"pfkey", r.PFKey},
	} {
		if required.value == "" {
			return refuse(required.name, "missing; it comes from the player's login")
		}
	}
	for _, secret := range []struct{ name, value string }{
		{"openid", r.OpenID}, {"openkey", r.OpenKey}, {"pay_token", r.PayToken}, {"pfkey", r.PFKey},
	} {
		if len(secret.value) > maxSecret || !utf8.ValidString(secret.value) {
			return refuse(secret.name, "over %d bytes, or not UTF-8", maxSecret)
		}
	}
	if r.Login == Guest {
		if utf8.RuneCountInString(r.OpenID) > maxGuestOpenID {
			return refuse("openid", "a guest's has at most %d characters", maxGuestOpenID)
		}
		if strings.ContainsAny(r.OpenID, `'<>()|&=*^`) {
			return refuse("openid", "a guest's holds none of ' < > ( ) | & = * ^")
		}
	}
	if g.PayToken && r.Login == QQ && r.PayToken == "" {
		return refuse("pay_token", "missing; this gateway asks for it with a QQ login")
	}
	if len(r.PF) > maxPF {
		return refuse("pf", "%d bytes, at most %d are allowed", len(r.PF), maxPF)
	}
	if err := validateItems(r.Items); err != nil {
		return err
	}
	for _, part := range []struct{ field, value string }{
		{"GoodsName", r.GoodsName}, {"GoodsDescription", r.GoodsDescription},
	} {
		switch {
		case part.value == "":
			return refuse("goodsmeta", "%s is missing", part.field)
		case !utf8.ValidString(part.value):
			return refuse("goodsmeta", "%s is not UTF-8", part.field)
		case strings.ContainsAny(part.value, "*\r\n"):
			return refuse("goodsmeta", `%s holds a "*" or a line break`, part.field)
		}
	}
	if n := utf8.RuneCountInString(r.GoodsName) + 1 + utf8.RuneCountInString(r.GoodsDescription); n > maxGoodsMeta {
		return refuse("goodsmeta", `%d characters with the "*" between name and description, at most %d are allowed`, n, maxGoodsMeta)
	}
	if len(r.GoodsURL) > maxGoodsURL {
		return refuse("goodsurl", "%d bytes, at most %d are allowed", len(r.GoodsURL), maxGoodsURL)
	}
	if r.MaxQuantity != 0 {
		switch {
		case len(r.Items) > 1:
			return refuse("max_num", "the player can change the quantity of a single item only")
		case r.MaxQuantity <= r.Items[0].Quantity:
			return refuse("max_num", "MaxQuantity is not above the quantity; leave it 0 to fix the quantity")
		}
	}
	if len(r.Metadata) > maxMetadata {
		return refuse("app_metadata", "%d bytes, at most %d are allowed", len(r.Metadata), maxMetadata)
	}
	if strings.ContainsFunc(r.Metadata, func(c rune) bool { return c >= utf8.RuneSelf }) {
		return refuse("app_metadata", "not ASCII: Tencent's SDKs disagree on its signature in the callback; encode it, in hex or base64")
	}
	if r.UserIP != "" {
		if _, err := netip.ParseAddr(r.UserIP); err != nil {
			return refuse("userip", "not an IP address; give it without a port")
		}
	}
	if r.AccountType != "" && r.AccountType != "common" && r.AccountType != "security" {
		return refuse("accounttype", `want "common" or "security"`)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Extra)) { // sorted: the same request gets the same error
		switch {
		case orderParamNames[name]:
			return refuse(name, "not allowed in Extra: the library sets it")
		case !plainName(name):
			return refuse(strconv.Quote(name), "a name in Extra holds letters, digits and _ . - only")
		case len(r.Extra[name]) > 1:
			return refuse(name, "%d values in Extra, want one", len(r.Extra[name]))
		case len(r.Extra.Get(name)) > maxSecret || !utf8.ValidString(r.Extra.Get(name)):
			return refuse(name, "over %d bytes, or not UTF-8", maxSecret)
		}
	}
	return nil
}

func validateItems(items []Item) error {
	refuse := func(format string, args ...any) error {
		return &ParamError{"payitem", fmt.Sprintf(format, args...)}
	}
	if len(items) == 0 {
		return refuse("Items is empty")
	}
	left := Amount(maxTotal)
	for i, item := range items {
		switch {
		case item.ID == "":
			return refuse("item %d has no ID", i)
		case strings.ContainsFunc(item.ID, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '*' || c == ';' || c == '|' }):
			return refuse("the ID of item %d is not plain ASCII without * ; | and blanks", i)
		case item.Price < Fen:
			return refuse("the price of item %d is below one fen", i)
		case item.Quantity < 1:
			return refuse("the quantity of item %d is below 1", i)
		case item.Price > left/Amount(item.Quantity): // no product that could overflow
			return refuse("the total is over %s yuan", Amount(maxTotal).Yuan())
		}
		left -= item.Price * Amount(item.Quantity)
	}
	if n := len(payItems(items).String()); n > maxPayItem {
		return refuse("%d bytes, at most %d are allowed", n, maxPayItem)
	}
	return nil
}

// payItems are items in the notation of the parameter payitem: id*price*num, joined by
// ";", the price in Q-points.
type payItems []Item

func (items payItems) String() string {
	parts := make([]string, len(items))
	for i, item := range items {
		parts[i] = item.ID + "*" + item.Price.QPoints() + "*" + strconv.Itoa(item.Quantity)
	}
	return strings.Join(parts, ";")
}

// EncodeValues implements query.Encoder.
func (items payItems) EncodeValues(name string, values *url.Values) error {
	values.Set(name, items.String())
	return nil
}

// parsePayItems reads the parameter payitem of a callback.
func parsePayItems(s string) ([]Item, error) {
	refuse := func(i int, what string) error {
		return &ParamError{"payitem", fmt.Sprintf("item %d: %s", i, what)}
	}
	items := make([]Item, 0, strings.Count(s, ";")+1)
	for part := range strings.SplitSeq(s, ";") {
		i := len(items)
		id, rest, _ := strings.Cut(part, "*")
		price, num, complete := strings.Cut(rest, "*")
		if id == "" || !complete {
			return nil, refuse(i, "want id*price*num")
		}
		amount, err := ParseQPoints(price)
		if err != nil {
			return nil, refuse(i, "the price is not a number of Q-points with one decimal at most, or does not fit")
		}
		quantity, err := strconv.ParseUint(num, 10, 31)
		if err != nil || quantity == 0 {
			return nil, refuse(i, "the quantity is not a number from 1 to 2147483647")
		}
		items = append(items, Item{id, amount, int(quantity)})
	}
	return items, nil
}

// orderAnswer is the JSON of protocol.md 4.
type orderAnswer struct {
	Ret       *retCode `json:"ret"`
	Msg       anyText  `json:"msg"`
	Code      anyText  `json:"err_code"`
	Token     string   `json:"token"`
	URLParams string   `json:"url_params"`
	Attach    anyText  `json:"attach"`
}

// decodeOrderAnswer returns an answer with a ret and, where that is 0, a token and
// url_params. The error says what is wrong, without text from the body.
func decodeOrderAnswer(body []byte) (*orderAnswer, error) {
	var answer orderAnswer
	err := json.Unmarshal(body, &answer)
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) { // a refusal may come with "url_params":[]; such a field is skipped
		err = nil
	}
	switch {
	case len(body) == 0:
		return nil, errors.New("it is empty")
	case err != nil:
		return nil, errors.New("it is not the JSON of an answer")
	case answer.Ret == nil:
		return nil, errors.New("it has no ret")
	case *answer.Ret == 0 && (answer.Token == "" || answer.URLParams == ""):
		return nil, errors.New("ret is 0, but token or url_params is missing")
	case *answer.Ret == 0 && strings.ContainsRune(answer.Token+answer.URLParams, utf8.RuneError):
		return nil, errors.New("token or url_params is not UTF-8, so it cannot be handed on as received")
	}
	return &answer, nil
}

// retCode is a number, or a string that holds one.
type retCode int

func (r *retCode) UnmarshalJSON(data []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(data), `"`), 10, 32)
	*r = retCode(n)
	return err
}

// anyText is a string; of anything else the JSON text is kept.
type anyText string

func (t *anyText) UnmarshalJSON(data []byte) error {
	switch {
	case data[0] == '"' && bytes.IndexByte(data, '\\') < 0:
		*t = anyText(data[1 : len(data)-1])
	case data[0] == '"':
		return json.Unmarshal(data, (*string)(t))
	case string(data) != "null":
		*t = anyText(data)
	}
	return nil
}
