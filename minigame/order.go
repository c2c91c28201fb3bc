package minigame

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/midas-go/midas"
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

	// Attach comes back in the push: valid UTF-8, at most Config.MaxAttach bytes. Give mini
	// programs one: it is required there, and whether it may be empty is not documented.
	Attach string

	// ZoneID is a published zone of Env. Empty means Config.ZoneID. For mini games only.
	ZoneID string

	// Coins makes it an order of game coins (代币): Quantity is how many, Price that of one
	// coin (mini games) or zero (mini programs). ProductID must be empty, and for mini games
	// Attach too.
	Coins bool
}

// An Order is what the app passes to wx.requestMidasPaymentGameItem or
// wx.requestVirtualPayment, byte for byte. Its JSON holds exactly that. Marshal it and
// send it, after OutTradeNo was stored.
type Order struct {
	Mode      string `json:"mode,omitempty"` // of mini programs, which have it outside signData
	SignData  string `json:"signData"`
	PaySig    string `json:"paySig"`
	Signature string `json:"signature"`

	OutTradeNo string `json:"-"`
	Env        Env    `json:"-"`
}

// LogValue shows the order's number and environment; the signatures are the app's.
func (o Order) LogValue() slog.Value {
	return slog.GroupValue(slog.String("out_trade_no", o.OutTradeNo), slog.Int("env", int(o.Env)))
}

// Format prints the order's number and environment.
func (o Order) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "minigame.Order{OutTradeNo:%q Env:%d}", o.OutTradeNo, o.Env)
}

// NewOrder returns the order for a player who picked an item (minigame.md 1.1, 1.2 and 2). It
// calls nobody: WeChat hears of the order when the player pays.
//
// The error joins a [*midas.ParamError] for each field that is wrong, or is a
// [*ConfigError] if the key of Env or the offer id is not set.
//
// signData holds no time, so the app may present an order late. Whether an old order is
// still honoured is decided at delivery; once paid, it must be granted or refunded.
func (c *Client) NewOrder(req OrderRequest) (*Order, error) {
	cfg := c.config()
	key, err := cfg.appKey(req.Env)
	if err != nil {
		return nil, fmt.Errorf("minigame: NewOrder: %w", err)
	}
	if cfg.OfferID == "" {
		return nil, fmt.Errorf("minigame: NewOrder: %w", &ConfigError{"OfferID", "empty: set the offer id of virtual payment 2.0"})
	}
	if req.OutTradeNo == "" {
		req.OutTradeNo = rand.Text()
	}
	if !cfg.MiniProgram && req.ZoneID == "" {
		req.ZoneID = cfg.ZoneID
	}
	if err := req.validate(cfg); err != nil {
		return nil, fmt.Errorf("minigame: NewOrder: %w", err)
	}
	if cfg.MiniProgram && req.Attach == "" && c.log != nil {
		c.warnAttach.Do(func() {
			c.log.Add("", func(missed int) {
				cfg.Logger.Warn("minigame: an order without Attach: a mini program's is required, and whether it may be empty is not documented", "missed", missed)
			})
		})
	}
	order := &Order{OutTradeNo: req.OutTradeNo, Env: req.Env}
	method := requestMidasPaymentGameItem
	if cfg.MiniProgram {
		method = requestVirtualPayment
		order.Mode = "short_series_goods"
		if req.Coins {
			order.Mode = "short_series_coin"
		}
	}
	order.SignData = req.signData(cfg)
	order.PaySig = PaySig(method, order.SignData, key)
	order.Signature = Signature(order.SignData, string(req.SessionKey))
	return order, nil
}

// signData writes the fields in the order of the documented examples. Any JSON would do as
// long as what is signed is what is sent.
func (req *OrderRequest) signData(cfg *Config) string {
	w := make(jsonObject, 0, 320+len(req.Attach))
	if !cfg.MiniProgram {
		mode := "goods"
		if req.Coins {
			mode = "coins"
		}
		w = w.text("mode", mode)
	}
	w = w.text("offerId", cfg.OfferID)
	w = w.number("buyQuantity", int64(req.Quantity))
	w = w.number("env", int64(req.Env)) // the default is 0, but a missing one hides a mistake
	w = w.text("currencyType", "CNY")
	if !cfg.MiniProgram {
		w = w.text("platform", "android") // iPhones too: WeChat picks the channel
		w = w.text("zoneId", req.ZoneID)
	}
	if !req.Coins {
		w = w.text("productId", req.ProductID)
	}
	if !req.Coins || !cfg.MiniProgram {
		w = w.number("goodsPrice", int64(req.Price/midas.Fen))
	}
	if req.SellingPrice != 0 {
		w = w.number("activitySellingPrice", int64(req.SellingPrice/midas.Fen))
	}
	w = w.text("outTradeNo", req.OutTradeNo)
	if cfg.MiniProgram || req.Attach != "" { // a mini program's is required, if only empty
		w = w.text("attach", req.Attach)
	}
	return w.end()
}

func (req *OrderRequest) validate(cfg *Config) error {
	var errs []error
	refuse := func(field, param, reason string) {
		errs = append(errs, &midas.ParamError{Param: param, Field: field, Reason: reason})
	}
	if req.SessionKey == "" || badlyCopied(string(req.SessionKey)) {
		refuse("SessionKey", "session_key", "empty, or holds whitespace or quotes: it is the string that code2Session returned")
	}
	if req.Quantity < 1 {
		refuse("Quantity", "buyQuantity", "below 1")
	}
	switch {
	case req.Coins && req.ProductID != "":
		refuse("ProductID", "productId", "given with Coins: coins are no item")
	case !req.Coins && (req.ProductID == "" || badlyCopied(req.ProductID)):
		refuse("ProductID", "productId", "empty, or holds whitespace or quotes")
	}
	switch noPrice := req.Coins && cfg.MiniProgram; {
	case noPrice && req.Price != 0:
		refuse("Price", "goodsPrice", "given with Coins: a mini program's coins have the price of the console")
	case !noPrice && req.Price < midas.Fen:
		refuse("Price", "goodsPrice", "below one fen")
	}
	switch sale := req.SellingPrice; {
	case sale == 0:
	case !cfg.MiniProgram || req.Coins:
		refuse("SellingPrice", "activitySellingPrice", "only items of mini programs have one")
	case sale < midas.Fen || sale >= req.Price || 5*sale < 2*req.Price:
		refuse("SellingPrice", "activitySellingPrice", "not below Price, or below 40 % of it")
	}
	if reason := wrongOutTradeNo(req.OutTradeNo, cfg.MiniProgram); reason != "" {
		refuse("OutTradeNo", "outTradeNo", reason)
	}
	switch {
	case req.Coins && !cfg.MiniProgram && req.Attach != "":
		refuse("Attach", "attach", "given with Coins: a mini game's coins have none")
	case len(req.Attach) > cfg.MaxAttach:
		refuse("Attach", "attach", fmt.Sprintf("over %d bytes (Config.MaxAttach)", cfg.MaxAttach))
	case !utf8.ValidString(req.Attach):
		refuse("Attach", "attach", "not valid UTF-8")
	}
	if cfg.MiniProgram && req.ZoneID != "" || badlyCopied(req.ZoneID) {
		refuse("ZoneID", "zoneId", "holds whitespace or quotes, or is given for a mini program, which has no zones")
	}
	return errors.Join(errs...)
}

// wrongOutTradeNo says what is wrong with an order's number, or "".
func wrongOutTradeNo(s string, miniProgram bool) string {
	switch {
	case len(s) > 32:
		return "over 32 characters"
	case miniProgram && len(s) < 8:
		return "under 8 characters"
	case strings.HasPrefix(s, "_"):
		return `begins with "_"`
	}
	for i := 0; i < len(s); i++ {
		if !isAlphanumeric(s[i]) && strings.IndexByte("_-|*@", s[i]) < 0 {
			return "holds other than A-Z a-z 0-9 _ - | * @"
		}
	}
	return ""
}

// A jsonObject is a JSON object being written: its members in the given order, and no
// escape that JSON does not ask for.
type jsonObject []byte

func (w jsonObject) name(name string) jsonObject {
	if len(w) == 0 {
		w = append(w, '{')
	} else {
		w = append(w, ',')
	}
	return append(append(append(w, '"'), name...), `":`...)
}

func (w jsonObject) number(name string, n int64) jsonObject {
	return strconv.AppendInt(w.name(name), n, 10)
}

// text adds a string, which must be valid UTF-8.
func (w jsonObject) text(name, s string) jsonObject {
	w = append(w.name(name), '"')
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case b == '"' || b == '\\':
			w = append(w, '\\', b)
		case b == '\n':
			w = append(w, `\n`...)
		case b == '\r':
			w = append(w, `\r`...)
		case b == '\t':
			w = append(w, `\t`...)
		case b < ' ':
			w = append(w, `\u00`...)
			w = append(w, "0123456789abcdef"[b>>4], "0123456789abcdef"[b&15])
		default:
			w = append(w, b)
		}
	}
	return append(w, '"')
}

func (w jsonObject) end() string { return string(append(w, '}')) }
