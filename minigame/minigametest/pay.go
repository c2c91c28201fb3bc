package minigametest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
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
	coins                                         bool // an order of coins or tokens: quantity of them
}

// coinPrice is that of a mini program's token, which its order does not tell: 1 yuan buys 10.
const coinPrice = 10 * midas.Fen

func orderKey(env minigame.Env, outTradeNo string) string {
	return fmt.Sprintf("%d/%s", env, outTradeNo)
}

func fen(n int64) midas.Amount { return midas.Amount(n) * midas.Fen }

// A ClientError is what the app gets from wx.requestMidasPaymentGameItem or
// wx.requestVirtualPayment in place of a payment (minigame.md 3.2 and 4.2; the numbers of the
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
// client verifies it, and the delivery is pushed; coins and tokens are credited first. The receipt is that of the first push;
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
	method, item, coins := "requestMidasPaymentGameItem", "goods", "coins"
	if s.cfg.MiniProgram {
		method, item, coins = "requestVirtualPayment", "short_series_goods", "short_series_coin"
		in.Mode = o.Mode
	}
	err := json.Unmarshal([]byte(o.SignData), &in)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return nil, code(-15011, -15016, fmt.Sprintf("signData: %s is a %s", wrong.Field, wrong.Value))
	}
	if err != nil {
		return nil, code(-15011, -15016, "signData is not JSON")
	}
	if in.Env == nil || in.OfferID != s.cfg.OfferID || in.CurrencyType != "CNY" || in.BuyQuantity < 1 || in.Mode != item && in.Mode != coins || !s.cfg.MiniProgram && in.ZoneID == "" {
		return nil, code(-15002, -15001, "a parameter is missing or illegal")
	}
	if in.Mode == item && in.ProductID == "" {
		return nil, code(-15002, -15001, "PRODUCT_ID_EMPTY")
	}
	key := s.sessions[openID]
	paySig, signature := hexMAC(s.appKey(*in.Env), method+"&"+o.SignData), hexMAC(key, o.SignData)
	for name, pair := range map[string][2]string{"paySig": {o.PaySig, paySig}, "signature": {o.Signature, signature}} {
		if upper := inUpperCase(pair[0], pair[1]); upper != "" {
			s.cfg.Errorf("minigametest: %s: %s%s", method, name, upper)
		}
	}
	listed, published := s.products[in.ProductID]
	price := fen(in.GoodsPrice)
	if in.Mode == coins {
		listed, published = cmp.Or(price, coinPrice), true
		price = listed
	}
	switch {
	case o.PaySig != paySig:
		return nil, code(-15014, -15006, "PAY_SIG_INVALID")
	case s.expired[key]:
		return nil, code(-15015, -15007, "session_key expired")
	case key == "" || o.Signature != signature:
		return nil, code(-15012, -15005, "SIGNATURE_INVALID")
	case !published:
		return nil, code(3017, -15010, "PRODUCT_ID_NOT_PUBLISH")
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
		quantity: in.BuyQuantity, price: listed, charged: price * midas.Amount(in.BuyQuantity), source: minigame.FromGame, coins: in.Mode == coins,
	}
	for _, opt := range opts {
		opt(paid)
	}
	if paid.coins {
		s.coins[account(openID, paid.env, paid.zoneID)] += int64(paid.quantity)
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

// A RefundOption changes how a player is refunded.
type RefundOption func(*refund)

type refund struct {
	body
	noOutTradeNo bool
	retCode      int
}

// Part refunds a part only.
func Part(amount midas.Amount) RefundOption {
	return func(r *refund) { r.RefundFee = int64(amount / midas.Fen) }
}

// WithoutOutTradeNo leaves the order's number out of a mini game's push, as Tencent's sample does.
func WithoutOutTradeNo() RefundOption { return func(r *refund) { r.noOutTradeNo = true } }

// Failing is a mini program's refund that does not happen.
func Failing(retCode int) RefundOption { return func(r *refund) { r.retCode = retCode } }

// Refund gives a player's money back, what is left of it unless Part says otherwise, and pushes
// the event.
func (s *Server) Refund(ctx context.Context, env minigame.Env, outTradeNo string, opts ...RefundOption) (*Receipt, error) {
	s.mu.Lock()
	o := s.orders[orderKey(env, outTradeNo)]
	if o == nil {
		s.mu.Unlock()
		return nil, &ClientError{-15017, "no such order"}
	}
	left := int64((o.charged - o.refunded) / midas.Fen)
	id := "refund" + rand.Text()
	r := &refund{body: body{OpenID: o.openID, Env: env, OrderID: outTradeNo, RefundOrderID: id, LeftFee: left, RefundFee: left}}
	for _, opt := range opts {
		opt(r)
	}
	if r.RefundFee < 1 || r.RefundFee > left {
		s.mu.Unlock()
		return nil, &ClientError{-15017, "nothing is left to refund, or less"}
	}
	if r.retCode == 0 {
		o.refunded += fen(r.RefundFee)
		s.refunds[orderKey(env, id)] = r.body
	}
	s.mu.Unlock()
	return s.pushRefund(ctx, o, r)
}

// FinishRefund pushes the event of a refund that a mini program asked for by RefundOrder.
func (s *Server) FinishRefund(ctx context.Context, env minigame.Env, refundOrderID string, opts ...RefundOption) (*Receipt, error) {
	s.mu.Lock()
	asked, ok := s.refunds[orderKey(env, refundOrderID)]
	o := s.orders[orderKey(env, asked.OrderID)]
	s.mu.Unlock()
	if !ok || o == nil {
		return nil, &ClientError{-15017, "no such refund"}
	}
	r := &refund{body: asked}
	for _, opt := range opts {
		opt(r)
	}
	return s.pushRefund(ctx, o, r)
}

func (s *Server) pushRefund(ctx context.Context, o *order, r *refund) (*Receipt, error) {
	now := s.cfg.Now().Unix()
	if s.cfg.MiniProgram {
		return s.push(ctx, &push{event: "xpay_refund_notify", schedule: doubling(), flat: object{
			"OpenId": o.openID, "WxRefundId": "wx" + r.RefundOrderID, "MchRefundId": r.RefundOrderID, "WxOrderId": o.transactionID, "MchOrderId": o.outTradeNo,
			"RefundFee": r.RefundFee, "RetCode": r.retCode, "RetMsg": "ok", "RefundStartTimestamp": now, "RefundSuccTimestamp": now,
			"WxTransactionId": o.transactionID, "Attach": o.attach, "RetryTimes": 0,
		}})
	}
	payload := object{"RefundId": r.RefundOrderID, "RefundAmount": r.RefundFee, "RefundSource": 2, "Env": o.env, "OutTradeNo": o.outTradeNo, "WeChatPayInfo": o.weChatPay()}
	if r.noOutTradeNo {
		delete(payload, "OutTradeNo")
	}
	return s.push(ctx, &push{event: "minigame_pay_refund_succ_notify", schedule: schedule[:13], env: o.env, payload: payload})
}

// Gift is a player of a mini game who collects a gift pack (小游戏礼包), which is pushed.
func (s *Server) Gift(ctx context.Context, openID string, items ...minigame.GiftItem) (*Receipt, error) {
	goods := make([]object, 0, len(items))
	for _, item := range items {
		goods = append(goods, object{"Id": item.ID, "Num": item.Quantity})
	}
	return s.push(ctx, &push{event: "minigame_deliver_goods", schedule: schedule, flat: object{"MiniGame": object{
		"OrderId": "gift" + rand.Text(), "IsPreview": 0, "ToUserOpenid": openID, "Zone": 2001, "GiftTypeId": 1, "GiftId": "pack-1",
		"SendTime": s.cfg.Now().Unix(), "GoodsList": goods,
	}}})
}

// ChargeSubscription is Apple, which charges a player of a mini program for a subscription: the push
// has WeChat's own OutTradeNo, and no Env.
func (s *Server) ChargeSubscription(ctx context.Context, openID, productID string) (*Receipt, error) {
	s.mu.Lock()
	price := int64(s.products[productID])
	s.mu.Unlock()
	return s.push(ctx, &push{event: "xpay_goods_deliver_notify", schedule: doubling(), flat: object{
		"OpenId": openID, "OutTradeNo": "apple" + rand.Text(), "AppleSubscriptionInfo": object{"OriginalTransactionId": "original-of-" + openID},
		"GoodsInfo": object{"ProductId": productID, "Quantity": 1, "OrigPrice": price, "ActualPrice": price, "Attach": ""},
	}})
}

// Complain is a player of a mini program who complains about an order to WeChat Pay.
func (s *Server) Complain(ctx context.Context, env minigame.Env, outTradeNo, detail string) (*Receipt, error) {
	return s.pushAbout(ctx, env, outTradeNo, "xpay_complaint_notify", func(o *order) object {
		return object{"OpenId": o.openID, "WxOrderId": o.transactionID, "MchOrderId": o.outTradeNo, "TransactionId": o.transactionID,
			"ComplaintTime": s.cfg.Now().Unix(), "ComplaintId": "complaint" + rand.Text(), "ComplaintDetail": detail, "RequestId": rand.Text(), "RetryTimes": 0}
	})
}

// AskRefund is Apple, which asks whether to refund an order of a mini program. Receipt.Advice is
// the answer.
func (s *Server) AskRefund(ctx context.Context, env minigame.Env, outTradeNo string) (*Receipt, error) {
	return s.pushAbout(ctx, env, outTradeNo, "xpay_subscribe_ios_refund_query_notify", func(o *order) object {
		now := strconv.FormatInt(s.cfg.Now().Unix(), 10)
		return object{"pay_order_id": o.outTradeNo, "product_id": o.productID, "p_count": strconv.Itoa(o.quantity), "bundleid": "com.tencent.xin", "channel_bill": rand.Text(),
			"order_time": strconv.FormatInt(o.paid.Unix(), 10), "refund_time": now, "refund_request_reason": "UNINTENDED_PURCHASE", "provide_status": "1"}
	})
}

// NotifyMerchant is WeChat Pay, which looks into the merchant ("due_diligence") or punishes it
// ("punishment").
func (s *Server) NotifyMerchant(ctx context.Context, eventType string) (*Receipt, error) {
	return s.push(ctx, &push{event: "xpay_wxpay_callback_notify", schedule: doubling(), flat: object{
		"AppId": s.cfg.AppID, "MerchantCode": "1900000000", "BusinessTime": s.cfg.Now().Unix(), "BusinessCode": "1", "EventType": eventType, "RetryTimes": 0,
	}})
}

func (s *Server) pushAbout(ctx context.Context, env minigame.Env, outTradeNo, event string, fields func(*order) object) (*Receipt, error) {
	s.mu.Lock()
	o := s.orders[orderKey(env, outTradeNo)]
	s.mu.Unlock()
	if o == nil {
		return nil, &ClientError{-15017, "no such order"}
	}
	return s.push(ctx, &push{event: event, schedule: doubling(), flat: fields(o)})
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
	if o.coins {
		delete(body, "GoodsInfo")
		info := object{"OrigPrice": int64(o.price) * int64(o.quantity), "ActualPrice": int64(o.charged)}
		body["CoinInfo"] = info
		if s.cfg.MiniProgram {
			info["Quantity"], info["Attach"] = o.quantity, o.attach
			return s.push(ctx, &push{event: "xpay_coin_pay_notify", schedule: doubling(), flat: body, order: o})
		}
		info["BuyQuantity"], info["ZoneId"] = o.quantity, o.zoneID
		return s.push(ctx, &push{event: "minigame_coin_deliver_completed", schedule: schedule[:13], env: o.env, payload: body, order: o})
	}
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
