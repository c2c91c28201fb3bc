package minigametest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
)

// An order is one that a player paid.
type order struct {
	openID, outTradeNo, productID, zoneID, attach string
	env                                           minigame.Env
	quantity                                      int
	price, charged, refunded                      midas.Amount
	paid                                          time.Time
	delivered                                     bool
	mchOrderNo, transactionID                     string
	source                                        minigame.Source
}

func orderKey(env minigame.Env, outTradeNo string) string {
	return fmt.Sprintf("%d/%s", env, outTradeNo)
}

func fen(n int64) midas.Amount { return midas.Amount(n) * midas.Fen }

// A ClientError is what the app gets from wx.requestMidasPaymentGameItem or
// wx.requestVirtualPayment in place of a payment (minigame.md 1.3 and 2; the numbers of the
// two differ).
type ClientError struct {
	Code   int
	Reason string
}

func (e *ClientError) Error() string { return fmt.Sprintf("client error %d: %s", e.Code, e.Reason) }

// A PayOption changes how a player pays.
type PayOption func(*order)

// Charged makes the player pay less than the list price, as with a coupon.
func Charged(amount midas.Amount) PayOption { return func(o *order) { o.charged = amount } }

// Pay is a player who opens an order in the app and pays: the order is verified as the
// client verifies it, and the delivery is pushed. The receipt is that of the first push;
// one that is not accepted is repeated by [Server.PushDue]. The error is a [*ClientError], or
// says that nothing could be pushed, for which it may be ctx.Err(): then the player paid all
// the same, and the push waits for PushDue.
func (s *Server) Pay(ctx context.Context, openID string, o *minigame.Order, opts ...PayOption) (*Receipt, error) {
	paid, err := s.open(openID, o, opts)
	if err != nil {
		return nil, err
	}
	return s.pushOrder(ctx, paid)
}

// open verifies an order and takes it into the books, as the options change it.
func (s *Server) open(openID string, o *minigame.Order, opts []PayOption) (*order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code := func(game, program int, reason string) error {
		if s.cfg.MiniProgram {
			game = program
		}
		return &ClientError{game, reason}
	}
	var in struct {
		Mode                 string
		OfferID              string
		BuyQuantity          int
		Env                  *minigame.Env
		CurrencyType         string
		ZoneID, ProductID    string
		GoodsPrice           int64
		ActivitySellingPrice int64
		OutTradeNo, Attach   string
	}
	method := "requestMidasPaymentGameItem"
	mode := "goods"
	if s.cfg.MiniProgram {
		method, mode = "requestVirtualPayment", "short_series_goods"
		in.Mode = o.Mode
	}
	if json.Unmarshal([]byte(o.SignData), &in) != nil {
		return nil, code(-15011, -15016, "signData is no JSON")
	}
	if in.Env == nil || in.OfferID != s.cfg.OfferID || in.CurrencyType != "CNY" || in.BuyQuantity < 1 || in.Mode != mode || !s.cfg.MiniProgram && in.ZoneID == "" {
		return nil, code(-15002, -15001, "a parameter is missing or illegal")
	}
	key := s.sessions[openID]
	listed, published := s.products[in.ProductID]
	price := fen(in.GoodsPrice)
	switch {
	case hexMAC(s.appKey(*in.Env), method+"&"+o.SignData) != o.PaySig:
		return nil, code(-15014, -15006, "paySig")
	case s.expired[key]:
		return nil, code(-15015, -15007, "session_key expired")
	case key == "" || hexMAC(key, o.SignData) != o.Signature:
		return nil, code(-15012, -15005, "signature")
	case !published:
		return nil, code(3017, -15010, "the item is not published")
	case price != listed:
		return nil, code(-15016, -15013, "the price is not the item's")
	case s.orders[orderKey(*in.Env, in.OutTradeNo)] != nil:
		return nil, code(-15003, -15002, "outTradeNo used before")
	}
	if in.ActivitySellingPrice > 0 {
		price = fen(in.ActivitySellingPrice)
	}
	paid := &order{
		openID: openID, outTradeNo: in.OutTradeNo, productID: in.ProductID, zoneID: in.ZoneID, attach: in.Attach, env: *in.Env,
		quantity: in.BuyQuantity, price: listed, charged: price * midas.Amount(in.BuyQuantity), source: minigame.FromGame,
	}
	for _, opt := range opts {
		opt(paid)
	}
	return s.book(paid), nil
}

func (s *Server) book(o *order) *order {
	o.paid = s.cfg.Now()
	o.mchOrderNo, o.transactionID = "mch"+rand.Text(), "wx"+rand.Text()
	s.orders[orderKey(o.env, o.outTradeNo)] = o
	return o
}

// BuyInShop is a player who buys in the game's shop outside the game: an order that the
// game never made.
func (s *Server) BuyInShop(ctx context.Context, openID, productID string, quantity int) (*Receipt, error) {
	s.mu.Lock()
	price := s.products[productID]
	o := s.book(&order{
		openID: openID, outTradeNo: "shop" + rand.Text(), productID: productID, zoneID: "1", quantity: quantity,
		price: price, charged: price * midas.Amount(quantity), source: minigame.FromShop,
	})
	s.mu.Unlock()
	return s.pushOrder(ctx, o)
}

// Refund gives a player's money back, what is left of it after the refunds that the game asked
// for, and pushes the event.
func (s *Server) Refund(ctx context.Context, env minigame.Env, outTradeNo string) (*Receipt, error) {
	s.mu.Lock()
	o := s.orders[orderKey(env, outTradeNo)]
	if o == nil {
		s.mu.Unlock()
		return nil, &ClientError{-15017, "no such order"}
	}
	left := int64((o.charged - o.refunded) / midas.Fen)
	if left == 0 {
		s.mu.Unlock()
		return nil, &ClientError{-15017, "nothing is left to refund"}
	}
	o.refunded = o.charged
	id := "refund" + rand.Text()
	s.refunds[orderKey(env, id)] = body{OpenID: o.openID, Env: env, OrderID: outTradeNo, RefundOrderID: id, LeftFee: left, RefundFee: left}
	s.mu.Unlock()
	if s.cfg.MiniProgram {
		return s.push(ctx, &push{event: "xpay_refund_notify", schedule: doubling(), flat: object{
			"OpenId": o.openID, "WxRefundId": id, "MchRefundId": id, "WxOrderId": o.transactionID, "MchOrderId": o.outTradeNo,
			"RefundFee": left, "RetCode": 0, "RetMsg": "ok", "RetryTimes": 0,
		}})
	}
	return s.push(ctx, &push{event: "minigame_pay_refund_succ_notify", schedule: schedule[:13], env: env, payload: object{
		"RefundId": id, "RefundAmount": left, "RefundSource": 2, "Env": env, "OutTradeNo": o.outTradeNo, "WeChatPayInfo": o.weChatPay(),
	}})
}

// Mock is the console's button 模拟推送: a delivery with random values. For mini games only.
func (s *Server) Mock(ctx context.Context) (*Receipt, error) {
	return s.push(ctx, &push{event: "minigame_game_pay_goods_deliver_notify", mock: true, env: minigame.Sandbox, payload: object{
		"OpenId": rand.Text(), "OutTradeNo": rand.Text(), "Env": 1, "WeChatPayInfo": object{"MchOrderNo": rand.Text(), "TransactionId": rand.Text()},
		"GoodsInfo": object{"ProductId": rand.Text(), "Quantity": 1, "ZoneId": "1", "OrigPrice": 1000, "ActualPrice": 1000, "Attach": rand.Text(), "OrderSource": 1},
	}})
}

func (o *order) weChatPay() object {
	return object{"MchOrderNo": o.mchOrderNo, "TransactionId": o.transactionID}
}

func (s *Server) pushOrder(ctx context.Context, o *order) (*Receipt, error) {
	goods := object{"ProductId": o.productID, "Quantity": o.quantity, "OrigPrice": int64(o.price) * int64(o.quantity), "ActualPrice": int64(o.charged), "Attach": o.attach}
	body := object{"OpenId": o.openID, "OutTradeNo": o.outTradeNo, "Env": o.env, "WeChatPayInfo": o.weChatPay(), "GoodsInfo": goods}
	if s.cfg.MiniProgram {
		return s.push(ctx, &push{event: "xpay_goods_deliver_notify", schedule: doubling(), flat: body, order: o})
	}
	goods["ZoneId"], goods["OrderSource"] = o.zoneID, o.source
	event := "minigame_game_pay_goods_deliver_notify"
	if o.source == minigame.FromShop {
		event = "minigame_h5_goods_deliver_notify"
	}
	return s.push(ctx, &push{event: event, schedule: schedule, env: o.env, payload: body, order: o})
}
