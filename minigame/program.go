package minigame

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/midas-go/midas"
)

// programBody is the body of the /xpay calls. Env is a pointer for the one call without it.
type programBody struct {
	OpenID string `json:"openid,omitempty"`
	Env    *Env   `json:"env,omitempty"`
	UserIP string `json:"user_ip,omitempty"`

	OrderID    string `json:"order_id,omitempty"`
	WxOrderID  string `json:"wx_order_id,omitempty"`
	PayOrderID string `json:"pay_order_id,omitempty"`
	Amount     int64  `json:"amount,omitempty"`
	PayItem    string `json:"payitem,omitempty"`
	Remark     string `json:"remark,omitempty"`

	RefundOrderID string `json:"refund_order_id,omitempty"`
	LeftFee       int64  `json:"left_fee,omitempty"`
	RefundFee     int64  `json:"refund_fee,omitempty"`
	BizMeta       string `json:"biz_meta,omitempty"`
	RefundReason  string `json:"refund_reason,omitempty"`
	ReqFrom       string `json:"req_from,omitempty"`

	BeginDS int `json:"begin_ds,omitempty"`
	EndDS   int `json:"end_ds,omitempty"`
}

func (c *Client) program(ctx context.Context, api serverCall, env Env, sessionKey Secret, body programBody, out any) (repeated bool, err error) {
	if api.path != callDownloadBill.path {
		body.Env = &env
	}
	return c.post(ctx, api, env, sessionKey, func(int64) any { return body }, out)
}

// An OrderQuery names a mini program's order by OrderID, which is the OutTradeNo, or by
// WxOrderID.
type OrderQuery struct {
	OpenID             string
	Env                Env
	OrderID, WxOrderID string
}

func (q OrderQuery) check(call string) error {
	if (q.OrderID == "") == (q.WxOrderID == "") {
		return fmt.Errorf("minigame: %s: %w", call, &midas.ParamError{Field: "OrderID", Reason: "set either OrderID or WxOrderID"})
	}
	return nil
}

// An OrderStatus is where a mini program's order stands.
type OrderStatus int

// The statuses of orders.
const (
	OrderInit         OrderStatus = 0 // cannot be paid
	OrderCreated      OrderStatus = 1
	OrderPaid         OrderStatus = 2 // to be delivered
	OrderDelivering   OrderStatus = 3
	OrderDelivered    OrderStatus = 4
	OrderRefunded     OrderStatus = 5
	OrderClosed       OrderStatus = 6
	OrderRefundFailed OrderStatus = 7 // still paid: somebody should look at it
	OrderUserRefunded OrderStatus = 8
	OrderAdReclaimed  OrderStatus = 9
	OrderSplitBack    OrderStatus = 10
)

// A ProgramOrder is what WeChat knows of a mini program's order. Fees are in fen.
type ProgramOrder struct {
	OrderID   string
	WxOrderID string
	Status    OrderStatus
	Env       Env
	OrderType int // 0 payment, 1 refund; newer: 7 Apple's payment, 8 Apple's refund

	OrderFee, CouponFee, PaidFee, RefundFee midas.Amount

	// LeftFee is what can still be refunded; where WeChat does not tell it, PaidFee less RefundFee.
	LeftFee midas.Amount

	CreateTime, PaidTime, ProvideTime time.Time // zero where not told

	ChannelOrderID, WxPayOrderID, BizMeta string
}

// Paid reports whether the order is paid and to be granted, or granted.
func (o *ProgramOrder) Paid() bool { return o.Status >= OrderPaid && o.Status <= OrderDelivered }

// Refunded reports whether the money went back, all of it or a part.
func (o *ProgramOrder) Refunded() bool {
	switch o.Status {
	case OrderRefunded, OrderUserRefunded, OrderAdReclaimed, OrderSplitBack:
		return true
	}
	return o.RefundFee > 0 || o.PaidFee > 0 && o.LeftFee < o.PaidFee && o.Status != OrderRefundFailed
}

// QueryOrder asks about a mini program's order, or about a refund by its number
// (minigame.md 6). It needs no session_key, so it serves a nightly reconciliation too. It is
// repeated after a fault.
func (c *Client) QueryOrder(ctx context.Context, q OrderQuery) (*ProgramOrder, error) {
	if err := q.check(callQueryOrder.path); err != nil {
		return nil, err
	}
	if err := required(callQueryOrder.path, "OpenID", q.OpenID); err != nil {
		return nil, err
	}
	var a struct {
		Order *struct {
			OrderID        string  `json:"order_id"`
			WxOrderID      string  `json:"wx_order_id"`
			Status         number  `json:"status"`
			EnvType        number  `json:"env_type"`
			OrderType      number  `json:"order_type"`
			OrderFee       number  `json:"order_fee"`
			CouponFee      number  `json:"coupon_fee"`
			PaidFee        number  `json:"paid_fee"`
			RefundFee      number  `json:"refund_fee"`
			LeftFee        *number `json:"left_fee"`
			CreateTime     number  `json:"create_time"`
			PaidTime       number  `json:"paid_time"`
			ProvideTime    number  `json:"provide_time"`
			ChannelOrderID string  `json:"channel_order_id"`
			WxPayOrderID   string  `json:"wxpay_order_id"`
			BizMeta        string  `json:"biz_meta"`
		} `json:"order"`
	}
	_, err := c.program(ctx, callQueryOrder, q.Env, "", programBody{OpenID: q.OpenID, OrderID: q.OrderID, WxOrderID: q.WxOrderID}, &a)
	if err != nil {
		return nil, err
	}
	o := a.Order
	if o == nil {
		return nil, fmt.Errorf("minigame: %w", &ResponseError{callQueryOrder.path, http.StatusOK, "no order in it"})
	}
	if o.EnvType != 0 && Env(o.EnvType-1) != q.Env { // env_type counts from 1
		return nil, fmt.Errorf("minigame: %s: %w: the order is of the other environment", callQueryOrder.path, ErrEnvironment)
	}
	left := fen(o.PaidFee - o.RefundFee)
	if o.LeftFee != nil {
		left = fen(*o.LeftFee)
	}
	return &ProgramOrder{
		OrderID: o.OrderID, WxOrderID: o.WxOrderID, Status: OrderStatus(o.Status), Env: q.Env, OrderType: int(o.OrderType),
		OrderFee: fen(o.OrderFee), CouponFee: fen(o.CouponFee), PaidFee: fen(o.PaidFee), RefundFee: fen(o.RefundFee), LeftFee: left,
		CreateTime: unix(o.CreateTime), PaidTime: unix(o.PaidTime), ProvideTime: unix(o.ProvideTime),
		ChannelOrderID: o.ChannelOrderID, WxPayOrderID: o.WxPayOrderID, BizMeta: o.BizMeta,
	}, nil
}

func unix(n number) (t time.Time) {
	if n > 0 {
		t = time.Unix(int64(n), 0)
	}
	return t
}

// NotifyProvideGoods tells WeChat that an order was delivered whose push could not be
// answered. It is repeated after a fault.
func (c *Client) NotifyProvideGoods(ctx context.Context, q OrderQuery) error {
	if err := q.check(callNotifyProvideGoods.path); err != nil {
		return err
	}
	_, err := c.program(ctx, callNotifyProvideGoods, q.Env, "", programBody{OrderID: q.OrderID, WxOrderID: q.WxOrderID}, nil)
	return err
}

// A RefundRequest asks for a refund. LeftFee is what QueryOrder says is left.
type RefundRequest struct {
	OrderQuery
	RefundOrderID      string // this refund's own number: 8 to 32 of A-Z a-z 0-9 _ -
	LeftFee, RefundFee midas.Amount
	BizMeta            string // at most 1024 bytes, comes back in QueryOrder
	Reason             int    // 0 to 5, see docs/minigame.md
	From               int    // 1 customer service, 2 the player, 3 other
}

// A StartedRefund is a refund that has begun.
type StartedRefund struct {
	RefundOrderID   string `json:"refund_order_id"`
	RefundWxOrderID string `json:"refund_wx_order_id"`
	PayOrderID      string `json:"pay_order_id"`
	PayWxOrderID    string `json:"pay_wx_order_id"`
	Repeated        bool   `json:"-"` // it had begun before
}

// RefundOrder begins a refund (minigame.md 6); whether it succeeded is told by QueryOrder or by
// a Refund that is pushed. Orders paid through Apple cannot be refunded.
//
// [ErrNotReady]: repeat later with the same parameters. [ErrOutcomeUnknown] likewise.
func (c *Client) RefundOrder(ctx context.Context, r RefundRequest) (*StartedRefund, error) {
	call := callRefundOrder.path
	var wrong error
	refuse := func(field, reason string) {
		wrong = fmt.Errorf("minigame: %s: %w", call, &midas.ParamError{Field: field, Reason: reason})
	}
	switch {
	case r.RefundFee < midas.Fen || r.RefundFee > r.LeftFee:
		refuse("RefundFee", "below one fen, or over LeftFee")
	case len(r.BizMeta) > 1024:
		refuse("BizMeta", "over 1024 bytes")
	case r.Reason < 0 || r.Reason > 5:
		refuse("Reason", "not 0 to 5")
	case r.From < 1 || r.From > 3:
		refuse("From", "not 1 to 3")
	}
	for _, err := range []error{r.check(call), required(call, "OpenID", r.OpenID), wrongBillNo(call, "RefundOrderID", r.RefundOrderID, 8, 32), wrong} {
		if err != nil {
			return nil, err
		}
	}
	var started StartedRefund
	repeated, err := c.program(ctx, callRefundOrder, r.Env, "", programBody{
		OpenID: r.OpenID, OrderID: r.OrderID, WxOrderID: r.WxOrderID, RefundOrderID: r.RefundOrderID,
		LeftFee: int64(r.LeftFee / midas.Fen), RefundFee: int64(r.RefundFee / midas.Fen), BizMeta: r.BizMeta,
		RefundReason: strconv.Itoa(r.Reason), ReqFrom: strconv.Itoa(r.From),
	}, &started)
	if err != nil {
		return nil, err
	}
	started.RefundOrderID, started.Repeated = r.RefundOrderID, repeated
	return &started, nil
}

// QueryUserBalance returns a player's tokens (代币). It is repeated after a fault.
func (c *Client) QueryUserBalance(ctx context.Context, p Player, env Env) (*Balance, error) {
	call := callQueryUserBalance
	if err := required(call.path, "OpenID", p.OpenID, "SessionKey", string(p.SessionKey), "IP", p.IP); err != nil {
		return nil, err
	}
	var a struct {
		Balance
		FirstSave flag `json:"first_save_flag"` // a bool in the table, 0 or 1 in its text
	}
	if _, err := c.program(ctx, call, env, p.SessionKey, programBody{OpenID: p.OpenID, UserIP: p.IP}, &a); err != nil {
		return nil, err
	}
	a.Balance.FirstSave = bool(a.FirstSave)
	return &a.Balance, nil
}

// A TokenPayment is a movement of a mini program's tokens. OrderID is its number: store it
// before the call and repeat with the same after a fault.
type TokenPayment struct {
	Player  Player
	Env     Env
	OrderID string // 8 to 32 of A-Z a-z 0-9 _ -
	Amount  int64

	PayOrderID string      // of CancelCurrencyPay: the payment that tokens are returned for
	Items      []TokenItem // of CurrencyPay, optional
	Remark     string      // of CurrencyPay, optional
}

// A TokenItem is what tokens were spent on.
type TokenItem struct {
	ProductID string `json:"productid"`
	UnitPrice int64  `json:"unit_price"`
	Quantity  int64  `json:"quantity"`
}

// A TokenResult is the outcome of a TokenPayment.
type TokenResult struct {
	OrderID           string `json:"order_id"`
	Balance           int64  `json:"balance"`
	PresentBalance    int64  `json:"present_balance"`
	UsedPresentAmount int64  `json:"used_present_amount"`
	Repeated          bool   `json:"-"` // WeChat had taken this number before: a success
}

func (c *Client) moveTokens(ctx context.Context, api serverCall, p TokenPayment, body programBody) (*TokenResult, error) {
	checks := []error{required(api.path, "OpenID", p.Player.OpenID), wrongBillNo(api.path, "OrderID", p.OrderID, 8, 32), positive(api.path, "Amount", p.Amount)}
	if api.userSig {
		checks = append(checks, required(api.path, "SessionKey", string(p.Player.SessionKey), "IP", p.Player.IP))
		body.UserIP = p.Player.IP
	}
	for _, err := range checks {
		if err != nil {
			return nil, err
		}
	}
	body.OpenID, body.OrderID, body.Amount = p.Player.OpenID, p.OrderID, p.Amount
	var result TokenResult
	repeated, err := c.program(ctx, api, p.Env, p.Player.SessionKey, body, &result)
	if err != nil {
		return nil, err
	}
	result.OrderID, result.Repeated = p.OrderID, repeated
	return &result, nil
}

// CurrencyPay takes Amount tokens from the player (minigame.md 6). Errors as those of Pay.
func (c *Client) CurrencyPay(ctx context.Context, p TokenPayment) (*TokenResult, error) {
	body := programBody{Remark: p.Remark}
	if len(p.Items) > 0 {
		items, err := json.Marshal(p.Items)
		if err != nil {
			return nil, fmt.Errorf("minigame: %w", err)
		}
		body.PayItem = string(items)
	}
	return c.moveTokens(ctx, callCurrencyPay, p, body)
}

// CancelCurrencyPay returns Amount tokens of the payment PayOrderID. OrderID is this return's
// own number. Errors as those of Pay.
func (c *Client) CancelCurrencyPay(ctx context.Context, p TokenPayment) (*TokenResult, error) {
	if err := wrongBillNo(callCancelCurrencyPay.path, "PayOrderID", p.PayOrderID, 1, 63); err != nil {
		return nil, err
	}
	return c.moveTokens(ctx, callCancelCurrencyPay, p, programBody{PayOrderID: p.PayOrderID})
}

// PresentCurrency gives Amount tokens to the player for free. It cannot be queried: repeat
// with the same OrderID until it succeeds. SessionKey and IP are not needed.
func (c *Client) PresentCurrency(ctx context.Context, p TokenPayment) (*TokenResult, error) {
	p.Player.SessionKey = ""
	return c.moveTokens(ctx, callPresentCurrency, p, programBody{})
}

// DownloadBill returns the URL of the bill of the days from begin to end, which is good for
// 30 minutes. [ErrNotReady]: it is being made, ask again later. What the file holds is not
// documented.
func (c *Client) DownloadBill(ctx context.Context, env Env, begin, end time.Time) (string, error) {
	day := func(t time.Time) int { return t.Year()*10000 + int(t.Month())*100 + t.Day() }
	var a struct {
		URL string `json:"url"`
	}
	if _, err := c.program(ctx, callDownloadBill, env, "", programBody{BeginDS: day(begin), EndDS: day(end)}, &a); err != nil {
		return "", err
	}
	if a.URL == "" {
		return "", fmt.Errorf("minigame: %s: %w", callDownloadBill.path, ErrNotReady)
	}
	return a.URL, nil
}
