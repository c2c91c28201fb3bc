package minigame

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"
)

// call sends a call of a mini game: the fields that each of them has are added here.
func (g *Game) call(ctx context.Context, api serverCall, env Env, p CallPlayer, zoneID string, more body, out any, wrong ...error) (repeated bool, err error) {
	cfg := g.config()
	more["openid"], more["offer_id"], more["zone_id"], more["env"] = p.OpenID, cfg.OfferID, cmp.Or(zoneID, cfg.ZoneID), env
	wrong = append(wrong, cfg.offered(), given("OpenID", p.OpenID), given("SessionKey", string(p.SessionKey)))
	return g.post(ctx, api, env, p.SessionKey, more, out, wrong...)
}

// A GameOrder is what WeChat knows of an order of a mini game. It tells neither price nor
// quantity: grant what the stored order says, after OutTradeNo and ProductID agree.
type GameOrder struct {
	OutTradeNo, ProductID     string
	Paid, Delivered           bool
	PaidTime                  time.Time // zero if not paid
	MchOrderNo, TransactionID string    // of WeChat Pay's channel
}

// A GameOrderQuery names an order of a mini game. It is for an item unless Coins is set.
type GameOrderQuery struct {
	Player     CallPlayer // IP is not needed
	Env        Env
	OutTradeNo string
	ZoneID     string // empty means GameConfig.ZoneID
	Coins      bool
}

// QueryOrder asks WeChat about an order (pay_v2.queryOrder, /wxa/game/queryorderinfo, minigame.md
// 3.4): from 10 s after it was made, at growing intervals, for pushes that do not come. It needs
// the player's session_key, so it fails with [ErrLoginExpired] for players who have gone.
//
// [ErrNotFound]: the order was not opened, or not paid yet. It is repeated after a fault.
func (g *Game) QueryOrder(ctx context.Context, q GameOrderQuery) (*GameOrder, error) {
	biz := 2
	if q.Coins {
		biz = 1
	}
	var a struct {
		OutTradeNo    string `json:"out_trade_no"`
		ProductID     string `json:"product_id"`
		PayState      int    `json:"pay_state"`
		DeliverState  int    `json:"deliver_state"`
		PayFinishTime number `json:"pay_finish_time"`
		MchOrderNo    string `json:"mch_order_no"`
		TransactionID string `json:"transaction_id"`
	}
	_, err := g.call(ctx, callGameOrder, q.Env, q.Player, q.ZoneID, body{"out_trade_no": q.OutTradeNo, "biz_id": biz}, &a, given("OutTradeNo", q.OutTradeNo))
	if err != nil {
		return nil, err
	}
	if differ(a.OutTradeNo, q.OutTradeNo) {
		return nil, fmt.Errorf("minigame: %w", &ResponseError{callGameOrder.path, http.StatusOK, "it is about another order"})
	}
	order := &GameOrder{
		OutTradeNo: a.OutTradeNo, ProductID: a.ProductID, Paid: a.PayState == 2, Delivered: a.DeliverState == 2,
		MchOrderNo: a.MchOrderNo, TransactionID: a.TransactionID,
	}
	if order.Paid {
		order.PaidTime = unix(a.PayFinishTime)
	}
	return order, nil
}

// A Balance is what a player has of coins or tokens.
type Balance struct {
	Balance        int64 `json:"balance"`         // all that can be spent
	PresentBalance int64 `json:"present_balance"` // of it, given for free
	SumSave        int64 `json:"sum_save"`        // ever bought
	SumPresent     int64 `json:"sum_present"`     // ever given
	SumBalance     int64 `json:"sum_balance"`
	SumCost        int64 `json:"sum_cost"` // ever spent
	FirstSave      bool  `json:"-"`
}

// A CoinAccount is a player's game coins (游戏币) in a zone of an environment. Player.IP is needed.
type CoinAccount struct {
	Player CallPlayer
	Env    Env
	ZoneID string // empty means GameConfig.ZoneID
}

func (g *Game) coins(ctx context.Context, api serverCall, a CoinAccount, more body, out any, wrong ...error) (repeated bool, err error) {
	more["user_ip"] = a.Player.IP
	return g.call(ctx, api, a.Env, a.Player, a.ZoneID, more, out, append(wrong, given("Player.IP", a.Player.IP))...)
}

// CoinBalance returns a player's coins (pay_v2.getBalance, /wxa/game/getbalance). It is repeated
// after a fault.
func (g *Game) CoinBalance(ctx context.Context, of CoinAccount) (*Balance, error) {
	var a struct {
		Balance
		FirstSave flag `json:"first_save"`
	}
	if _, err := g.coins(ctx, callCoinBalance, of, body{}, &a); err != nil {
		return nil, err
	}
	a.Balance.FirstSave = bool(a.FirstSave)
	return &a.Balance, nil
}

// A CoinMove spends, returns or gives coins. BillNo is its number, at most 63 of A-Z a-z 0-9 _ -,
// not beginning with "_": WeChat moves coins once for each within 48 hours, so store it before
// the call and repeat with the same after a fault.
type CoinMove struct {
	CoinAccount
	BillNo string
	Amount int64 // of coins

	PayBillNo       string // of ReturnCoins: the spending that coins are returned for
	PayItem, Remark string // of SpendCoins, optional
}

// A MoveResult is the outcome of a CoinMove or a TokenMove.
type MoveResult struct {
	Balance           int64 `json:"balance"` // after it; not told where Repeated is set
	PresentBalance    int64 `json:"present_balance"`
	UsedPresentAmount int64 `json:"used_present_amount"`
	Repeated          bool  `json:"-"` // WeChat had taken this number before: a success
}

func (g *Game) moveCoins(ctx context.Context, api serverCall, m CoinMove, more body, wrong ...error) (*MoveResult, error) {
	more["amount"], more["bill_no"] = m.Amount, m.BillNo
	var result MoveResult
	repeated, err := g.coins(ctx, api, m.CoinAccount, more, &result, append(wrong, numbered("BillNo", m.BillNo, 1, 63), positive("Amount", m.Amount))...)
	if err != nil {
		return nil, err
	}
	result.Repeated = repeated
	return &result, nil
}

// SpendCoins takes Amount coins from the player (pay_v2.pay, /wxa/game/pay). The items may be
// granted once it succeeds; 90012, this number was taken before, is a success.
//
// Errors: [ErrInsufficient], [ErrLoginExpired] and the other refusals mean that this call took
// nothing. [ErrOutcomeUnknown], which may come together with one of them, means that an earlier
// try may have taken the coins: repeat with the same BillNo, after a new login if need be. From
// then on only success settles it, or a refusal of the payment itself, such as ErrInsufficient;
// [ErrLoginExpired], [ErrSignature], [ErrAccessToken], [ErrRateLimit] and [ErrIPNotAllowed] do
// not.
func (g *Game) SpendCoins(ctx context.Context, m CoinMove) (*MoveResult, error) {
	return g.moveCoins(ctx, callSpendCoins, m, body{"payitem": m.PayItem, "remark": m.Remark})
}

// ReturnCoins gives back Amount coins of the spending PayBillNo, all or a part
// (pay_v2.cancelPay, /wxa/game/cancelpay). BillNo is this return's own number. Its errors are
// those of SpendCoins.
func (g *Game) ReturnCoins(ctx context.Context, m CoinMove) (*MoveResult, error) {
	return g.moveCoins(ctx, callReturnCoins, m, body{"pay_bill_no": m.PayBillNo}, numbered("PayBillNo", m.PayBillNo, 1, 63))
}

// GiveCoins gives Amount coins to the player for free (pay_v2.present, /wxa/game/present). Its
// errors are those of SpendCoins.
func (g *Game) GiveCoins(ctx context.Context, m CoinMove) (*MoveResult, error) {
	return g.moveCoins(ctx, callGiveCoins, m, body{})
}

// differ reports whether both are given and are not the same.
func differ(answered, asked string) bool {
	return answered != "" && asked != "" && answered != asked
}
