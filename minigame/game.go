package minigame

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/midas-go/midas"
)

// A Player is whom a server call is about. SessionKey is the newest; IP is the player's
// public address, which calls about coins require.
type Player struct {
	OpenID     string
	SessionKey Secret
	IP         string
}

// required refuses what WeChat would refuse, before anything is sent.
func required(call string, pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" || len(pairs[i+1]) > maxSecret {
			return fmt.Errorf("minigame: %s: %w", call, &midas.ParamError{Field: pairs[i], Reason: "empty or over 1024 bytes"})
		}
	}
	return nil
}

// wrongBillNo says whether a number of a coin payment or a refund fits (minigame.md 5 and 6).
func wrongBillNo(call, field, s string, least, most int) error {
	ok := len(s) >= least && len(s) <= most && s[0] != '_'
	for i := 0; ok && i < len(s); i++ {
		ok = isAlphanumeric(s[i]) || s[i] == '_' || s[i] == '-'
	}
	if ok {
		return nil
	}
	return fmt.Errorf("minigame: %s: %w", call, &midas.ParamError{Field: field,
		Reason: fmt.Sprintf(`not %d to %d of A-Z a-z 0-9 _ - without "_" in front`, least, most)})
}

func positive(call, field string, n int64) error {
	if n > 0 {
		return nil
	}
	return fmt.Errorf("minigame: %s: %w", call, &midas.ParamError{Field: field, Reason: "below 1"})
}

// gameBody is the body of the /wxa/game calls; all but the last lines is common to them.
type gameBody struct {
	OpenID  string `json:"openid"`
	OfferID string `json:"offer_id"`
	TS      int64  `json:"ts"`
	ZoneID  string `json:"zone_id"`
	Env     Env    `json:"env"`
	UserIP  string `json:"user_ip,omitempty"`

	OutTradeNo string `json:"out_trade_no,omitempty"`
	BizID      int    `json:"biz_id,omitempty"`
	CoinType   int    `json:"coin_type,omitempty"`
	Amount     int64  `json:"amount,omitempty"`
	BillNo     string `json:"bill_no,omitempty"`
	PayBillNo  string `json:"pay_bill_no,omitempty"`
	PayItem    string `json:"payitem,omitempty"`
	Remark     string `json:"remark,omitempty"`
}

func (c *Client) game(ctx context.Context, api serverCall, p Player, zoneID string, more gameBody, out any) (repeated bool, err error) {
	cfg := c.config()
	if err := required(api.path, "OpenID", p.OpenID, "SessionKey", string(p.SessionKey), "Config.OfferID", cfg.OfferID); err != nil {
		return false, err
	}
	more.OpenID, more.OfferID, more.ZoneID, more.UserIP = p.OpenID, cfg.OfferID, zoneID, p.IP
	setDefault(&more.ZoneID, cfg.ZoneID)
	return c.post(ctx, api, more.Env, p.SessionKey, func(ts int64) any {
		more.TS = ts
		return more
	}, out)
}

// OrderInfo is what WeChat knows of a mini game's order. It tells neither price nor
// quantity: grant what the stored order says, after OutTradeNo and ProductID agree.
type OrderInfo struct {
	OutTradeNo, ProductID     string
	Paid, Delivered           bool
	PaidTime                  time.Time // zero if not paid
	MchOrderNo, TransactionID string    // of WeChat Pay's channel
}

// OrderInfoQuery names a mini game's order. It is for an item unless Coins is set.
type OrderInfoQuery struct {
	Player     Player // IP is not needed
	Env        Env
	OutTradeNo string
	ZoneID     string // empty means Config.ZoneID
	Coins      bool
}

// QueryOrderInfo asks about a mini game's order (pay_v2.queryOrder, minigame.md 5): from 10 s
// after the order, at growing intervals, for pushes that do not come. It needs the
// player's session_key, so it fails with [ErrLoginExpired] for players who have gone.
//
// [ErrNotFound]: the order was not opened, or not paid yet. It is repeated after a fault.
func (c *Client) QueryOrderInfo(ctx context.Context, q OrderInfoQuery) (*OrderInfo, error) {
	if err := required(callQueryOrderInfo.path, "OutTradeNo", q.OutTradeNo); err != nil {
		return nil, err
	}
	biz := 2
	if q.Coins {
		biz = 1
	}
	var a struct {
		OutTradeNo    string `json:"out_trade_no"`
		ProductID     string `json:"product_id"`
		PayState      int    `json:"pay_state"`
		DeliverState  int    `json:"deliver_state"`
		PayFinishTime int64  `json:"pay_finish_time"`
		MchOrderNo    string `json:"mch_order_no"`
		TransactionID string `json:"transaction_id"`
	}
	q.Player.IP = ""
	if _, err := c.game(ctx, callQueryOrderInfo, q.Player, q.ZoneID, gameBody{Env: q.Env, OutTradeNo: q.OutTradeNo, BizID: biz}, &a); err != nil {
		return nil, err
	}
	if a.OutTradeNo != q.OutTradeNo && a.OutTradeNo != "" {
		return nil, fmt.Errorf("minigame: %w", &ResponseError{callQueryOrderInfo.path, http.StatusOK, "it is about another order"})
	}
	info := &OrderInfo{
		OutTradeNo: a.OutTradeNo, ProductID: a.ProductID, Paid: a.PayState == 2, Delivered: a.DeliverState == 2,
		MchOrderNo: a.MchOrderNo, TransactionID: a.TransactionID,
	}
	if info.Paid && a.PayFinishTime > 0 {
		info.PaidTime = time.Unix(a.PayFinishTime, 0)
	}
	return info, nil
}

// A Balance is a player's account of coins or tokens.
type Balance struct {
	Balance        int64 `json:"balance"`         // all that can be spent
	PresentBalance int64 `json:"present_balance"` // of it, given for free
	SumSave        int64 `json:"sum_save"`        // ever bought
	SumPresent     int64 `json:"sum_present"`     // ever given
	SumBalance     int64 `json:"sum_balance"`
	SumCost        int64 `json:"sum_cost"` // ever spent
	FirstSave      bool  `json:"-"`
}

// A Coins call is about a player's coins in a zone of an environment.
type Coins struct {
	Player Player
	Env    Env
	ZoneID string // empty means Config.ZoneID
}

func (q Coins) check(call string) error { return required(call, "Player.IP", q.Player.IP) }

// GetBalance returns a player's game coins (minigame.md 5). It is repeated after a fault.
func (c *Client) GetBalance(ctx context.Context, q Coins) (*Balance, error) {
	if err := q.check(callGetBalance.path); err != nil {
		return nil, err
	}
	var a struct {
		Balance
		FirstSave flag `json:"first_save"`
	}
	if _, err := c.game(ctx, callGetBalance, q.Player, q.ZoneID, gameBody{Env: q.Env}, &a); err != nil {
		return nil, err
	}
	a.Balance.FirstSave = bool(a.FirstSave)
	return &a.Balance, nil
}

// A Payment is a movement of coins. BillNo is its number, at most 63 of A-Z a-z 0-9 _ -,
// not beginning with "_": WeChat moves coins once for each within 48 hours, so store it
// before the call and repeat with the same after a fault.
type Payment struct {
	Coins
	BillNo string
	Amount int64

	PayBillNo       string // of CancelPay: the payment that coins are returned for
	PayItem, Remark string // of Pay, optional
}

// A PaymentResult is the outcome of a Payment.
type PaymentResult struct {
	BillNo            string `json:"bill_no"`
	Balance           int64  `json:"balance"`
	UsedPresentAmount int64  `json:"used_present_amount"`

	// Repeated says that WeChat had taken this number before: a success, whose Balance is
	// not told again.
	Repeated bool `json:"-"`
}

func (c *Client) move(ctx context.Context, api serverCall, p Payment) (*PaymentResult, error) {
	for _, err := range []error{p.check(api.path), wrongBillNo(api.path, "BillNo", p.BillNo, 1, 63), positive(api.path, "Amount", p.Amount)} {
		if err != nil {
			return nil, err
		}
	}
	var result PaymentResult
	repeated, err := c.game(ctx, api, p.Player, p.ZoneID, gameBody{
		Env: p.Env, Amount: p.Amount, BillNo: p.BillNo, PayBillNo: p.PayBillNo, PayItem: p.PayItem, Remark: p.Remark,
	}, &result)
	if err != nil {
		return nil, err
	}
	result.BillNo, result.Repeated = p.BillNo, repeated
	return &result, nil
}

// Pay takes Amount coins from the player (minigame.md 5). The items may be granted once it
// succeeds; 90012, this number was taken before, is a success.
//
// Errors: [ErrInsufficient], [ErrLoginExpired] and the other refusals mean that this call took
// nothing. [ErrOutcomeUnknown], which may come together with one of them, means that an earlier try may
// have: repeat with the same BillNo, after a new login if need be. From then on only success settles it, or a
// refusal of the payment itself, such as ErrInsufficient; [ErrLoginExpired], [ErrSignature], [ErrAccessToken],
// [ErrRateLimit] and [ErrIPNotAllowed] do not.
func (c *Client) Pay(ctx context.Context, p Payment) (*PaymentResult, error) {
	p.PayBillNo = ""
	return c.move(ctx, callPay, p)
}

// CancelPay returns Amount coins of the payment PayBillNo, all or a part. BillNo is this
// return's own number. Errors as those of Pay.
func (c *Client) CancelPay(ctx context.Context, p Payment) (*PaymentResult, error) {
	if err := wrongBillNo(callCancelPay.path, "PayBillNo", p.PayBillNo, 1, 63); err != nil {
		return nil, err
	}
	p.PayItem, p.Remark = "", ""
	return c.move(ctx, callCancelPay, p)
}

// Present gives Amount coins to the player for free. Errors as those of Pay.
func (c *Client) Present(ctx context.Context, p Payment) (*PaymentResult, error) {
	p.PayBillNo, p.PayItem, p.Remark = "", "", ""
	return c.move(ctx, callPresent, p)
}
