package minigame

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/internal/call"
)

// An OrderRequest is what an order is made of. Prices come from the server's catalogue.
type OrderRequest struct {
	SessionKey Secret // the player's newest, as code2Session returned it
	Env        Env    // Live or Sandbox

	ProductID string       // the item, configured and published in the console for Env
	Quantity  int          // at least 1
	Price     midas.Amount // for one piece, in fen; must equal the price in the console

	// SellingPrice is a lower price for one piece, which is then charged: at least 40 % of
	// Price. For mini programs only; zero means none.
	SellingPrice midas.Amount

	// OutTradeNo is the order's number: at most 32 of A-Z a-z 0-9 _ - | * @, not beginning
	// with "_"; for mini programs at least 8. Each can be used once, and the server has to
	// see to that. If empty, a random one of 26 characters is made.
	OutTradeNo string

	// Attach comes back in the push: valid UTF-8, at most MaxAttach bytes of the
	// configuration. Give mini programs one: it is required there, and whether it may be empty
	// is not documented.
	Attach string

	// ZoneID is a published zone of Env. Empty means GameConfig.ZoneID. For mini games only.
	ZoneID string

	// Coins makes it an order of game coins (代币): Quantity is how many, Price that of one
	// coin (mini games) or zero (mini programs). ProductID must be empty, and for mini games
	// Attach too.
	Coins bool

	// Extra holds further members of signData, such as extraInfo for an activity (活动). They
	// are signed with the rest. A name that signData has already is refused.
	Extra map[string]any
}

// An Order is signed and not yet opened: what the app passes to wx.requestMidasPaymentGameItem
// or wx.requestVirtualPayment, byte for byte. Its JSON holds exactly that; the other fields
// are read back from signData. Marshal it and send it, after OutTradeNo was stored.
type Order struct {
	Mode      string `json:"mode,omitempty"` // of mini programs, which have it outside signData
	SignData  string `json:"signData"`
	PaySig    string `json:"paySig"`
	Signature string `json:"signature"`

	OutTradeNo string `json:"-"`
	Env        Env    `json:"-"`
	ZoneID     string `json:"-"` // the one that was signed; of mini games
}

// UnmarshalJSON reads what the app gets.
func (o *Order) UnmarshalJSON(b []byte) error {
	type plain Order
	err := json.Unmarshal(b, (*plain)(o))
	if err != nil {
		return err
	}
	var in signData
	err = json.Unmarshal([]byte(o.SignData), &in)
	o.OutTradeNo, o.Env, o.ZoneID = in.OutTradeNo, in.Env, in.ZoneID
	return err
}

// LogValue shows the order's number and environment; the signatures are the app's.
func (o Order) LogValue() slog.Value {
	return slog.GroupValue(slog.String("out_trade_no", o.OutTradeNo), slog.Int("env", int(o.Env)))
}

// Format prints the order's number and environment.
func (o Order) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "minigame.Order{OutTradeNo:%q Env:%d}", o.OutTradeNo, o.Env)
}

// NewOrder returns the order for a player who picked an item (minigame.md 3.1 and 4.1). It
// makes no call: WeChat hears of the order when the player pays.
//
// The error joins a [*FieldError] for each field that is wrong, or is a [*ConfigError] if the
// key of Env or the offer id is not set.
//
// signData holds no time, so the app may present an order late. Whether an old order is
// still honoured is decided at delivery; once paid, it must be granted or refunded.
func (c *core) NewOrder(req OrderRequest) (*Order, error) {
	order, err := c.newOrder(req)
	if err != nil {
		return nil, fmt.Errorf("minigame: NewOrder: %w", err)
	}
	return order, nil
}

func (c *core) newOrder(req OrderRequest) (*Order, error) {
	cfg := c.config()
	key, err := cfg.appKey(req.Env)
	if err := cmp.Or(err, cfg.offered()); err != nil {
		return nil, err
	}
	req.OutTradeNo = cmp.Or(req.OutTradeNo, rand.Text())
	req.ZoneID = cmp.Or(req.ZoneID, cfg.ZoneID)
	signData, err := req.signData(cfg, c.program)
	if err != nil {
		return nil, err
	}
	if c.program && req.Attach == "" {
		c.warnAttach.Do(func() {
			c.events.Log(context.Background(), "minigame: an order without Attach: a mini program's is required, and whether it may be empty is not documented")
		})
	}
	order := &Order{SignData: signData, OutTradeNo: req.OutTradeNo, Env: req.Env, ZoneID: req.ZoneID}
	method := requestMidasPaymentGameItem
	if c.program {
		method = requestVirtualPayment
		order.Mode = "short_series_goods"
		if req.Coins {
			order.Mode = "short_series_coin"
		}
	}
	order.PaySig = PaySig(method, order.SignData, key)
	order.Signature = Signature(order.SignData, string(req.SessionKey))
	return order, nil
}

// A signData has its members in the order of the documented examples. Any JSON would do as long as
// what is signed is what is sent.
type signData struct {
	Mode         string  `json:"mode,omitempty"`
	OfferID      string  `json:"offerId"`
	Quantity     int     `json:"buyQuantity"`
	Env          Env     `json:"env"` // the default is 0, but a missing one hides a mistake
	Currency     string  `json:"currencyType"`
	Platform     string  `json:"platform,omitempty"`
	ZoneID       string  `json:"zoneId,omitempty"`
	ProductID    string  `json:"productId,omitempty"`
	Price        int64   `json:"goodsPrice,omitempty"`
	SellingPrice int64   `json:"activitySellingPrice,omitempty"`
	OutTradeNo   string  `json:"outTradeNo"`
	Attach       *string `json:"attach,omitempty"`
}

// signDataMembers are the names of its members.
var signDataMembers = strings.Fields("mode offerId buyQuantity env currencyType platform zoneId productId goodsPrice activitySellingPrice outTradeNo attach")

func (req *OrderRequest) signData(cfg *GameConfig, program bool) (string, error) {
	if err := req.validate(cfg, program); err != nil {
		return "", err
	}
	data := signData{
		OfferID: cfg.OfferID, Quantity: req.Quantity, Env: req.Env, Currency: "CNY", ZoneID: req.ZoneID, ProductID: req.ProductID,
		Price: int64(req.Price / midas.Fen), SellingPrice: int64(req.SellingPrice / midas.Fen), OutTradeNo: req.OutTradeNo,
	}
	if !program {
		data.Mode, data.Platform = "goods", "android" // iPhones too: WeChat picks the channel
		if req.Coins {
			data.Mode = "coins"
		}
	}
	if program || req.Attach != "" { // a mini program's is required, if only empty
		data.Attach = &req.Attach
	}
	text, err := plainJSON(data)
	if err != nil || len(req.Extra) == 0 {
		return text, err
	}
	extra, err := plainJSON(req.Extra)
	if err != nil {
		return "", &FieldError{Field: "Extra", Reason: "has no JSON"}
	}
	return strings.TrimSuffix(text, "}") + "," + strings.TrimPrefix(extra, "{"), nil
}

// plainJSON is the JSON of v without the escapes that only HTML needs.
func plainJSON(v any) (string, error) {
	var b strings.Builder
	w := json.NewEncoder(&b)
	w.SetEscapeHTML(false)
	err := w.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

func (req *OrderRequest) validate(cfg *GameConfig, program bool) error {
	var errs []error
	refuse := func(is bool, field, param, reason string) {
		if is {
			errs = append(errs, &FieldError{field, param, reason})
		}
	}
	noPrice, sale := req.Coins && program, req.SellingPrice
	refuse(req.SessionKey == "" || call.BadlyCopied(string(req.SessionKey)), "SessionKey", "session_key", "empty, or holds whitespace or quotes: it is the string that code2Session returned")
	refuse(req.Quantity < 1, "Quantity", "buyQuantity", "below 1")
	refuse(req.Coins && req.ProductID != "", "ProductID", "productId", "given with Coins, which are not an item")
	refuse(!req.Coins && (req.ProductID == "" || call.BadlyCopied(req.ProductID)), "ProductID", "productId", "empty, or holds whitespace or quotes")
	refuse(noPrice && req.Price != 0, "Price", "goodsPrice", "given with Coins: a mini program's coins have the price of the console")
	refuse(!noPrice && req.Price < midas.Fen, "Price", "goodsPrice", "below one fen")
	refuse(sale != 0 && (!program || req.Coins), "SellingPrice", "activitySellingPrice", "only items of mini programs have one")
	refuse(sale != 0 && (sale < midas.Fen || sale >= req.Price || 5*sale < 2*req.Price), "SellingPrice", "activitySellingPrice", "not below Price, or below 40 % of it")
	reason := wrongOutTradeNo(req.OutTradeNo, program)
	refuse(reason != "", "OutTradeNo", "outTradeNo", reason)
	refuse(req.Coins && !program && req.Attach != "", "Attach", "attach", "given with Coins: a mini game's coins have none")
	refuse(len(req.Attach) > cfg.MaxAttach, "Attach", "attach", fmt.Sprintf("over %d bytes (MaxAttach of the configuration)", cfg.MaxAttach))
	refuse(!utf8.ValidString(req.Attach), "Attach", "attach", "not valid UTF-8")
	refuse(program && req.ZoneID != "" || call.BadlyCopied(req.ZoneID), "ZoneID", "zoneId", "holds whitespace or quotes, or is given for a mini program, which has no zones")
	for name := range req.Extra {
		taken := slices.ContainsFunc(signDataMembers, func(of string) bool { return strings.EqualFold(of, name) })
		refuse(taken || name == "" || !only(name, alphanumeric+"_"), "Extra", name, "is a member that signData has already, or not a name of A-Z a-z 0-9 _")
	}
	return errors.Join(errs...)
}

// wrongOutTradeNo says what is wrong with an order's number, or "".
func wrongOutTradeNo(s string, program bool) string {
	switch {
	case len(s) > 32:
		return "over 32 characters"
	case program && len(s) < 8:
		return "under 8 characters"
	case strings.HasPrefix(s, "_"):
		return `begins with "_"`
	case !only(s, alphanumeric+"_-|*@"):
		return "holds other than A-Z a-z 0-9 _ - | * @"
	}
	return ""
}
