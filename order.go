package midas

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/go-querystring/query"
	"github.com/midas-go/midas/internal/call"
)

// TokenLifetime is how long a player can pay for an order. Tencent's texts disagree
// (5 or 15 minutes; protocol.md 1, the whole flow); the shorter one is assumed.
const TokenLifetime = 5 * time.Minute

// Limits of protocol.md 3, parameters.
const (
	maxGoodsMeta = 256 // characters
	maxGoodsURL  = 511 // bytes
	maxMetadata  = 128 // bytes
)

// OrderRequest is an order to be placed. Printed, logged or marshalled it does not
// show the Player's secrets and the values of Extra. The limits are those of
// protocol.md 3, parameters; if one is not met, nothing is sent.
type OrderRequest struct {
	Player Player // who pays; required

	// Items are what is bought; required. Together they take less than 512 bytes on the
	// wire and cost at most 20 million yuan.
	Items []Item

	// GoodsName and GoodsDescription are shown to the player, one pair even for several
	// items; together under 256 characters, without "*" and line breaks; required.
	GoodsName, GoodsDescription string

	GoodsURL    string // picture; under 512 bytes
	Metadata    string // the game's own reference, ASCII, at most 128 bytes; comes back as Delivery.Metadata
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
// It is tried again after network faults, 5xx and 429 (see Config.MaxRetries), which is
// safe: an order moves no money. One try may take as long as Config.HTTPClient allows, 5 s by
// default, so three may take over 15 s: give ctx the time that the app waits.
//
// The error is one of these, wrapped: every wrong field of req as joined
// [*FieldError] values (nothing was sent); an [*Error] if Midas refused, see
// [ErrLoginExpired]; a [*ResponseError] if there was no usable answer; ctx.Err() if
// ctx ended; or a network fault, whose cause errors.Is and errors.As match. errors.As yields
// the transport's own error, whose text may contain the URL: branch on it, never log it.
// [ErrNotSent] comes with the reason where nothing left the process.
func (c *Client) CreateOrder(ctx context.Context, req OrderRequest) (*Order, error) {
	order, err := c.createOrder(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("midas: buy_goods_m: %w", err)
	}
	return order, nil
}

func (c *Client) createOrder(ctx context.Context, req OrderRequest) (*Order, error) {
	if ctx == nil {
		return nil, wrongFields([]error{&FieldError{Field: "ctx", Reason: "is nil: pass the context of the player's request"}})
	}
	if err := req.validate(c.cfg.Gateway); err != nil {
		return nil, err
	}
	params, err := c.orderParams(req)
	if err != nil {
		return nil, err
	}
	var a orderAnswer
	sent, err := c.call(ctx, apiCall{path: buyGoods, login: req.Player.Login, params: params, shown: shownParams}, &a)
	if err != nil {
		return nil, err
	}
	return &Order{
		Token:     a.Token,
		URLParams: a.URLParams,
		Attach:    string(a.Attach),
		Expires:   sent.Add(TokenLifetime),
	}, nil
}

// orderParams is the table of protocol.md 3, parameters, without ts and sig, which each
// try makes anew, and without amt, which is best left out. A field has the name of the
// OrderRequest's that it comes from.
type orderParams struct {
	commonParams
	Items       payItems `url:"payitem"`
	Goods       text     `url:"goodsmeta"`
	GoodsURL    text     `url:"goodsurl"` // always sent
	AppMode     text     `url:"appmode"`
	MaxQuantity int      `url:"max_num,omitempty"`
	Metadata    text     `url:"app_metadata,omitempty"`
	AccountType text     `url:"accounttype,omitempty"`
}

// orderNames are the parameters of an order that the library sets, by field.
var orderNames = func() map[string]string {
	names := namesIn[orderParams]()
	maps.Copy(names, commonNames)
	names["GoodsName"], names["GoodsDescription"], names["amt"] = names["Goods"], names["Goods"], "amt"
	return names
}()

// shownParams are those that an error may show where Midas repeats them.
var shownParams = slices.DeleteFunc(slices.Collect(maps.Values(orderNames)), func(name string) bool {
	return slices.Contains([]string{"openid", "openkey", "pfkey", "pay_token"}, name)
})

// orderParams returns what is sent for a valid request.
func (c *Client) orderParams(req OrderRequest) (url.Values, error) {
	p := orderParams{
		commonParams: c.commonParams(&req.Player),
		Items:        req.Items,
		Goods:        text(req.GoodsName + "*" + req.GoodsDescription),
		GoodsURL:     text(req.GoodsURL),
		AppMode:      "1", // Midas's own default, 2, lets the player change the quantity
		Metadata:     text(req.Metadata),
		AccountType:  text(req.AccountType),
	}
	if req.MaxQuantity > 0 {
		p.AppMode, p.MaxQuantity = "2", req.MaxQuantity
	}
	params, err := query.Values(p)
	if err != nil {
		return nil, err
	}
	add(params, req.Extra)
	return params, nil
}

// validate returns a *FieldError for each limit of protocol.md 3, parameters, that r does
// not meet, joined.
func (r *OrderRequest) validate(g Gateway) error {
	var errs []error
	refuse := refuseInto(&errs, orderNames)
	r.Player.validate(g, refuse)
	checkTexts(refuse, []textRule{
		{"GoodsName", r.GoodsName, call.MaxSecret, "missing"},
		{"GoodsDescription", r.GoodsDescription, call.MaxSecret, "missing"},
		{"GoodsURL", r.GoodsURL, maxGoodsURL, ""},
		{"Metadata", r.Metadata, maxMetadata, ""},
	})
	validateItems(r.Items, refuse)
	if strings.ContainsAny(r.GoodsName, "*\r\n") {
		refuse("GoodsName", `holds a "*" or a line break`)
	}
	if strings.ContainsAny(r.GoodsDescription, "*\r\n") {
		refuse("GoodsDescription", `holds a "*" or a line break`)
	}
	if n := utf8.RuneCountInString(r.GoodsName) + 1 + utf8.RuneCountInString(r.GoodsDescription); n > maxGoodsMeta {
		refuse("GoodsName", `%d characters with the "*" and GoodsDescription, at most %d are allowed`, n, maxGoodsMeta)
	}
	switch {
	case r.MaxQuantity == 0:
	case len(r.Items) > 1:
		refuse("MaxQuantity", "the player can change the quantity of a single item only")
	case len(r.Items) == 1 && r.MaxQuantity <= r.Items[0].Quantity:
		refuse("MaxQuantity", "not above the item's quantity; 0 fixes the quantity")
	}
	if strings.ContainsFunc(r.Metadata, func(c rune) bool { return c >= utf8.RuneSelf }) {
		refuse("Metadata", "not ASCII: Tencent's SDKs disagree on its signature in the callback; encode it, in hex or base64")
	}
	if r.AccountType != "" && r.AccountType != "common" && r.AccountType != "security" {
		refuse("AccountType", `want "common" or "security"`)
	}
	errs = append(errs, wrongValues("Extra", r.Extra, orderNames)...)
	return wrongFields(errs)
}

// orderAnswer is the answer to an order (protocol.md 4, answer).
type orderAnswer struct {
	answerHead
	Token     string  `json:"token"`
	URLParams string  `json:"url_params"`
	Attach    anyText `json:"attach"`
}

func (a *orderAnswer) wrong() string {
	switch {
	case a.Token == "" || a.URLParams == "":
		return "ret is 0, but token or url_params is missing"
	case strings.ContainsRune(a.Token+a.URLParams, utf8.RuneError):
		return "token or url_params is not UTF-8, so it cannot be handed on as received"
	}
	return ""
}
