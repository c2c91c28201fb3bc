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
// (5 or 15 minutes; protocol.md 1, the whole flow); the shorter one is assumed.
const TokenLifetime = 5 * time.Minute

// Limits of protocol.md 3, parameters.
const (
	maxGuestOpenID = 32            // characters
	maxPF          = 150           // bytes
	maxPayItem     = 511           // bytes
	maxGoodsMeta   = 256           // characters
	maxGoodsURL    = 511           // bytes
	maxMetadata    = 128           // bytes
	maxTotal       = 2_000_000_000 // fen

	// maxSecret is the library's own limit, in bytes, on each credential and other text that
	// the app sends: several times what was ever seen, and little enough to be searched for
	// in an answer.
	maxSecret = 1024
)

// OrderRequest is an order to be placed. Printed, logged or marshalled it does not
// show OpenKey, PayToken, PFKey and the values of Extra. The limits are those of
// protocol.md 3, parameters; if one is not met, nothing is sent.
type OrderRequest struct {
	Login  Login  // how the player logged in; required
	OpenID string // the player, case-sensitive; required

	// OpenKey is the player's credential; required. On YSDK it is what the app calls
	// pay_token for QQ, the access_token for WeChat, and any text for guests. On the
	// older gateways it is the access_token. Like every credential, at most 1024 bytes.
	OpenKey string

	// PayToken is for the older gateways only, where QQ players need it; others ignore it.
	PayToken string

	PF     string // platform and channel (平台信息) from the login, as received; at most 150 bytes; required
	PFKey  string // what vouches for PF, from the login; required
	ZoneID string // server zone (大区), "1" if empty; for a role in it "zone_role", the role percent-encoded; at most 1024 bytes

	// Items are what is bought; required. Together they take less than 512 bytes on the
	// wire and cost at most 20 million yuan.
	Items []Item

	// GoodsName and GoodsDescription are shown to the player, one pair even for several
	// items; together under 256 characters, without "*" and line breaks; required.
	GoodsName, GoodsDescription string

	GoodsURL    string // picture; under 512 bytes
	Metadata    string // the game's own reference, ASCII, at most 128 bytes; comes back as Delivery.Metadata
	UserIP      string // the player's public IP address
	AccountType string // "common" or "security"; left out if empty

	// MaxQuantity lets the player choose the quantity of a single item, up to this
	// number, which must be above the item's Quantity (appmode 2, max_num). Zero fixes
	// the quantity (appmode 1).
	MaxQuantity int

	// Extra holds parameters that this struct does not know, one value each, signed like
	// all others. Names of protocol.md 3, parameters, and values over 1024 bytes are refused.
	Extra url.Values
}

// Order is an order that Midas accepted. Store it before the app gets it: the delivery
// may arrive at once. Its JSON can be sent to the app as is.
type Order struct {
	Token     string    `json:"token"`            // comes back as Delivery.Token
	URLParams string    `json:"url_params"`       // for the client SDK, byte for byte as received
	Attach    string    `json:"attach,omitempty"` // as received; mostly empty
	Expires   time.Time `json:"expires"`          // TokenLifetime after the order was sent, by Config.Now
}

// CreateOrder places an order (下单, protocol.md 3, parameters, and 4, answer) and returns its token.
//
// It is sent again after network faults, 5xx and 429 (see Config.MaxRetries), which is
// safe: an order moves no money. One try takes as long as Config.HTTPClient allows,
// 5 s by default, so three take over 15 s: give ctx the time that the app waits.
//
// The error is one of these, wrapped: every wrong field of req as joined
// [*ParamError] values (nothing was sent); an [*Error] if Midas refused, see
// [ErrLoginExpired]; a [*ResponseError] if there was no usable answer; ctx.Err() if
// ctx ended; or a network fault, whose cause errors.Is and errors.As match. What
// errors.As takes out of a fault is the transport's own error, which may show the URL:
// branch on it, do not log it.
func (c *Client) CreateOrder(ctx context.Context, req OrderRequest) (*Order, error) {
	order, err := c.createOrder(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("midas: buy_goods_m: %w", err)
	}
	return order, nil
}

func (c *Client) createOrder(ctx context.Context, req OrderRequest) (*Order, error) {
	if ctx == nil {
		return nil, &ParamError{Field: "ctx", Reason: "is nil: pass the context of the player's request"}
	}
	params, err := c.orderValues(req)
	if err != nil {
		return nil, err
	}
	answer, sent, err := c.get(ctx, buyGoods, params, req.Login)
	if err != nil {
		return nil, err
	}
	return &Order{
		Token:     answer.Token,
		URLParams: answer.URLParams,
		Attach:    string(answer.Attach),
		Expires:   sent.Add(TokenLifetime),
	}, nil
}

// orderParams is the table of protocol.md 3, parameters, without ts and sig, which each
// try makes anew, and without amt, which is best left out.
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

// orderParamNames are the names of protocol.md 3, parameters: the library sets these, and
// Extra may not.
var orderParamNames = map[string]bool{
	"openid": true, "openkey": true, "pay_token": true, "appid": true, "ts": true, "pf": true, "pfkey": true,
	"zoneid": true, "payitem": true, "goodsmeta": true, "goodsurl": true, "amt": true, "appmode": true,
	"max_num": true, "app_metadata": true, "userip": true, "format": true, "accounttype": true, "sig": true,
}

// orderValues checks req and returns what is sent for it.
func (c *Client) orderValues(req OrderRequest) (url.Values, error) {
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

// validate returns a *ParamError for each limit of protocol.md 3, parameters, that r does not meet,
// joined.
func (r *OrderRequest) validate(g Gateway) error {
	var errs []error
	refuse := func(field, param, format string, args ...any) {
		errs = append(errs, &ParamError{Field: field, Param: param, Reason: fmt.Sprintf(format, args...)})
	}
	if id, _ := r.Login.session(); id == "" {
		refuse("Login", "session_type", `unknown: want midas.QQ ("qq"), midas.WeChat ("wx"), midas.Guest ("guest") or midas.H5 ("h5")`)
	}
	r.validateLogin(g, refuse)
	validateItems(r.Items, refuse)
	r.validateGoods(refuse)
	if r.MaxQuantity != 0 {
		switch {
		case len(r.Items) > 1:
			refuse("MaxQuantity", "max_num", "the player can change the quantity of a single item only")
		case len(r.Items) == 1 && r.MaxQuantity <= r.Items[0].Quantity:
			refuse("MaxQuantity", "max_num", "not above the item's quantity; 0 fixes the quantity")
		}
	}
	if len(r.Metadata) > maxMetadata {
		refuse("Metadata", "app_metadata", "%d bytes, at most %d are allowed", len(r.Metadata), maxMetadata)
	}
	if strings.ContainsFunc(r.Metadata, func(c rune) bool { return c >= utf8.RuneSelf }) {
		refuse("Metadata", "app_metadata", "not ASCII: Tencent's SDKs disagree on its signature in the callback; encode it, in hex or base64")
	}
	if _, err := netip.ParseAddr(r.UserIP); r.UserIP != "" && err != nil {
		refuse("UserIP", "userip", "not an IP address; give it without a port")
	}
	if r.AccountType != "" && r.AccountType != "common" && r.AccountType != "security" {
		refuse("AccountType", "accounttype", `want "common" or "security"`)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Extra)) { // sorted: the same request gets the same error
		field := fmt.Sprintf("Extra[%q]", clip(name, 64))
		switch {
		case orderParamNames[name]:
			refuse(field, name, "not allowed here: the library sets it")
		case !isPlainName(name):
			refuse(field, "", "a name holds letters, digits and _ . - only")
		case len(r.Extra[name]) > 1:
			refuse(field, name, "%d values, want one", len(r.Extra[name]))
		case len(r.Extra.Get(name)) > maxSecret || !utf8.ValidString(r.Extra.Get(name)):
			refuse(field, name, "over %d bytes, or not UTF-8", maxSecret)
		}
	}
	return errors.Join(errs...)
}

// validateLogin checks what comes from the app, the login and the zone.
func (r *OrderRequest) validateLogin(g Gateway, refuse func(field, param, format string, args ...any)) {
	for _, f := range []struct{ field, param, value string }{
		{"OpenID", "openid", r.OpenID}, {"OpenKey", "openkey", r.OpenKey}, {"PF", "pf", r.PF}, {"PFKey", "pfkey", r.PFKey}, {"PayToken", "pay_token", r.PayToken}, {"ZoneID", "zoneid", r.ZoneID},
	} {
		switch {
		case f.value == "" && f.field != "PayToken" && f.field != "ZoneID":
			refuse(f.field, f.param, "missing; it comes from the player's login")
		case len(f.value) > maxSecret || !utf8.ValidString(f.value):
			refuse(f.field, f.param, "over %d bytes, or not UTF-8", maxSecret)
		case f.field == "PF" && len(r.PF) > maxPF:
			refuse(f.field, f.param, "%d bytes, at most %d are allowed", len(r.PF), maxPF)
		}
	}
	if g.PayToken && r.Login == QQ && r.PayToken == "" {
		refuse("PayToken", "pay_token", "missing; this gateway asks for it with a QQ login")
	}
	if r.Login == Guest && utf8.RuneCountInString(r.OpenID) > maxGuestOpenID {
		refuse("OpenID", "openid", "a guest's has at most %d characters", maxGuestOpenID)
	}
	if r.Login == Guest && strings.ContainsAny(r.OpenID, `'<>()|&=*^`) {
		refuse("OpenID", "openid", "a guest's holds none of ' < > ( ) | & = * ^")
	}
}

// validateGoods checks what the cashier shows.
func (r *OrderRequest) validateGoods(refuse func(field, param, format string, args ...any)) {
	for _, f := range []struct{ field, value string }{
		{"GoodsName", r.GoodsName}, {"GoodsDescription", r.GoodsDescription},
	} {
		switch {
		case f.value == "":
			refuse(f.field, "goodsmeta", "missing")
		case !utf8.ValidString(f.value):
			refuse(f.field, "goodsmeta", "not UTF-8")
		case strings.ContainsAny(f.value, "*\r\n"):
			refuse(f.field, "goodsmeta", `holds a "*" or a line break`)
		}
	}
	if n := utf8.RuneCountInString(r.GoodsName) + 1 + utf8.RuneCountInString(r.GoodsDescription); n > maxGoodsMeta {
		refuse("GoodsName", "goodsmeta", `%d characters with the "*" and GoodsDescription, at most %d are allowed`, n, maxGoodsMeta)
	}
	if len(r.GoodsURL) > maxGoodsURL {
		refuse("GoodsURL", "goodsurl", "%d bytes, at most %d are allowed", len(r.GoodsURL), maxGoodsURL)
	}
}

// orderAnswer is the answer to an order (protocol.md 4, answer).
type orderAnswer struct {
	Ret       *retCode `json:"ret"`
	Msg       anyText  `json:"msg"`
	Code      anyText  `json:"err_code"`
	Token     string   `json:"token"`
	URLParams string   `json:"url_params"`
	Attach    anyText  `json:"attach"`
}

// decodeOrderAnswer returns an answer with a ret and, where that is 0, a token and
// url_params. The reason says what is wrong, without text from the body.
func decodeOrderAnswer(body []byte) (answer orderAnswer, reason string) {
	err := json.Unmarshal(body, &answer)
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) { // a refusal may come with "url_params":[]; such a field is skipped
		err = nil
	}
	switch {
	case err != nil:
		reason = "it is not the JSON of an answer"
	case answer.Ret == nil:
		reason = "it has no ret"
	case *answer.Ret != 0:
	case answer.Token == "" || answer.URLParams == "":
		reason = "ret is 0, but token or url_params is missing"
	case strings.ContainsRune(answer.Token+answer.URLParams, utf8.RuneError):
		reason = "token or url_params is not UTF-8, so it cannot be handed on as received"
	}
	return answer, reason
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
