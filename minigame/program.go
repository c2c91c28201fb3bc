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

// A ProgramOrderQuery names an order of a mini program by OrderID, which is the OutTradeNo, or by
// WxOrderID.
type ProgramOrderQuery struct {
	OpenID             string
	Env                Env
	OrderID, WxOrderID string
}

// call sends a call about an order.
func (q ProgramOrderQuery) call(ctx context.Context, p *Program, api serverCall, more body, out any, wrong ...error) (repeated bool, err error) {
	if (q.OrderID == "") == (q.WxOrderID == "") {
		wrong = append(wrong, &FieldError{Field: "OrderID", Reason: "set either OrderID or WxOrderID"})
	}
	more["order_id"], more["wx_order_id"], more["env"] = q.OrderID, q.WxOrderID, q.Env
	return p.post(ctx, api, q.Env, "", more, out, wrong...)
}

// An OrderStatus is where an order of a mini program stands.
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
	OrderRefundFailed OrderStatus = 7 // still paid: for a person to look at
	OrderUserRefunded OrderStatus = 8
	OrderAdReclaimed  OrderStatus = 9
	OrderSplitBack    OrderStatus = 10
)

// A ProgramOrder is what WeChat knows of an order of a mini program.
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
	return o.Status != OrderRefundFailed && (o.RefundFee > 0 || o.PaidFee > 0 && o.LeftFee < o.PaidFee)
}

// QueryOrder asks WeChat about an order, or about a refund by its number (/xpay/query_order,
// minigame.md 4.4). It needs no session_key, so it serves a nightly reconciliation too. It is
// repeated after a fault. An order that WeChat does not know is ErrNotFound; a wrong q is a
// [FieldError], an answer that says no is an [Error], one that cannot be read a [ResponseError].
func (p *Program) QueryOrder(ctx context.Context, q ProgramOrderQuery) (*ProgramOrder, error) {
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
	if _, err := q.call(ctx, p, callProgramOrder, body{"openid": q.OpenID}, &a, given("OpenID", q.OpenID)); err != nil {
		return nil, err
	}
	o := a.Order
	if o == nil {
		return nil, fmt.Errorf("minigame: %w", &ResponseError{callProgramOrder.path, http.StatusOK, "no order in it"})
	}
	if differ(o.OrderID, q.OrderID) || differ(o.WxOrderID, q.WxOrderID) {
		return nil, fmt.Errorf("minigame: %w", &ResponseError{callProgramOrder.path, http.StatusOK, "it is about another order"})
	}
	if o.EnvType != 0 && Env(o.EnvType-1) != q.Env { // env_type counts from 1
		return nil, fmt.Errorf("minigame: %s: %w: the order is of the other environment", callProgramOrder.path, ErrEnvironment)
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

// NotifyDelivered tells WeChat that an order was delivered whose push could not be answered
// (/xpay/notify_provide_goods). It is repeated after a fault.
func (p *Program) NotifyDelivered(ctx context.Context, q ProgramOrderQuery) error {
	_, err := q.call(ctx, p, callNotifyDelivered, body{}, nil)
	return err
}

// A RefundRequest asks for a refund. LeftFee is what QueryOrder says is left.
type RefundRequest struct {
	ProgramOrderQuery
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

// RefundOrder begins a refund (/xpay/refund_order, minigame.md 4.4); whether it succeeded is told
// by QueryOrder or by a [RefundPush], whose MchRefundID is this RefundOrderID. An order that was
// paid through Apple cannot be refunded by a call.
//
// [ErrNotReady]: repeat later with the same parameters. [ErrOutcomeUnknown]: the same.
func (p *Program) RefundOrder(ctx context.Context, r RefundRequest) (*StartedRefund, error) {
	wrong := []error{given("OpenID", r.OpenID), numbered("RefundOrderID", r.RefundOrderID, 8, 32)}
	refuse := func(is bool, field, reason string) {
		if is {
			wrong = append(wrong, &FieldError{Field: field, Reason: reason})
		}
	}
	refuse(r.RefundFee < midas.Fen || r.RefundFee > r.LeftFee, "RefundFee", "below one fen, or over LeftFee")
	refuse(len(r.BizMeta) > 1024, "BizMeta", "over 1024 bytes")
	refuse(r.Reason < 0 || r.Reason > 5, "Reason", "not 0 to 5")
	refuse(r.From < 1 || r.From > 3, "From", "not 1 to 3")
	var started StartedRefund
	repeated, err := r.call(ctx, p, callRefundOrder, body{
		"openid": r.OpenID, "refund_order_id": r.RefundOrderID, "left_fee": int64(r.LeftFee / midas.Fen), "refund_fee": int64(r.RefundFee / midas.Fen),
		"biz_meta": r.BizMeta, "refund_reason": strconv.Itoa(r.Reason), "req_from": strconv.Itoa(r.From),
	}, &started, wrong...)
	if err != nil {
		return nil, err
	}
	started.RefundOrderID, started.Repeated = r.RefundOrderID, repeated
	return &started, nil
}

// TokenBalance returns a player's tokens (代币; /xpay/query_user_balance). It is repeated after a
// fault.
func (p *Program) TokenBalance(ctx context.Context, player CallPlayer, env Env) (*Balance, error) {
	var a struct {
		Balance
		FirstSave flag `json:"first_save_flag"` // a bool in the table, 0 or 1 in its text
	}
	_, err := p.post(ctx, callTokenBalance, env, player.SessionKey, body{"openid": player.OpenID, "env": env, "user_ip": player.IP}, &a,
		given("OpenID", player.OpenID), given("SessionKey", string(player.SessionKey)), given("IP", player.IP))
	if err != nil {
		return nil, err
	}
	a.Balance.FirstSave = bool(a.FirstSave)
	return &a.Balance, nil
}

// A TokenMove spends, returns or gives tokens. OrderID is its number: store it before the call
// and repeat with the same after a fault.
type TokenMove struct {
	Player  CallPlayer
	Env     Env
	OrderID string // 8 to 32 of A-Z a-z 0-9 _ -
	Amount  int64  // of tokens

	PayOrderID string      // of ReturnTokens: the spending that tokens are returned for
	Items      []TokenItem // of SpendTokens, optional
	Remark     string      // of SpendTokens, optional
}

// A TokenItem is what tokens were spent on. UnitPrice is in tokens.
type TokenItem struct {
	ProductID string `json:"productid"`
	UnitPrice int64  `json:"unit_price"`
	Quantity  int64  `json:"quantity"`
}

func (p *Program) moveTokens(ctx context.Context, api serverCall, m TokenMove, more body, wrong ...error) (*MoveResult, error) {
	more["openid"], more["env"], more["order_id"], more["amount"] = m.Player.OpenID, m.Env, m.OrderID, m.Amount
	wrong = append(wrong, given("OpenID", m.Player.OpenID), numbered("OrderID", m.OrderID, 8, 32), positive("Amount", m.Amount))
	if api.userSig {
		more["user_ip"] = m.Player.IP
		wrong = append(wrong, given("SessionKey", string(m.Player.SessionKey)), given("IP", m.Player.IP))
	}
	var result MoveResult
	repeated, err := p.post(ctx, api, m.Env, m.Player.SessionKey, more, &result, wrong...)
	if err != nil {
		return nil, err
	}
	result.Repeated = repeated
	return &result, nil
}

// SpendTokens takes Amount tokens from the player (/xpay/currency_pay). Its errors are those of
// [Game.SpendCoins].
func (p *Program) SpendTokens(ctx context.Context, m TokenMove) (*MoveResult, error) {
	more := body{"remark": m.Remark}
	if len(m.Items) > 0 {
		items, _ := json.Marshal(m.Items) // of strings and numbers
		more["payitem"] = string(items)
	}
	return p.moveTokens(ctx, callSpendTokens, m, more)
}

// ReturnTokens gives back Amount tokens of the spending PayOrderID (/xpay/cancel_currency_pay).
// OrderID is this return's own number. Its errors are those of [Game.SpendCoins].
func (p *Program) ReturnTokens(ctx context.Context, m TokenMove) (*MoveResult, error) {
	return p.moveTokens(ctx, callReturnTokens, m, body{"pay_order_id": m.PayOrderID}, numbered("PayOrderID", m.PayOrderID, 1, 63))
}

// GiveTokens gives Amount tokens to the player for free (/xpay/present_currency). It cannot be
// queried: repeat with the same OrderID until it succeeds. SessionKey and IP are not needed.
func (p *Program) GiveTokens(ctx context.Context, m TokenMove) (*MoveResult, error) {
	return p.moveTokens(ctx, callGiveTokens, m, body{})
}
