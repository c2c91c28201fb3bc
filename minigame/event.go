package minigame

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas"
)

// Names of events. Pages and samples of Tencent's spell the shop's differently.
const (
	eventGoods          = "minigame_game_pay_goods_deliver_notify"
	eventShop           = "minigame_h5_goods_deliver_notify"
	eventShopSample     = "minigame_deliver_h5_pay_products"
	eventCoins          = "minigame_coin_deliver_completed"
	eventRechargeCenter = "minigame_recharge_center_coin_deliver_completed"
	eventRefund         = "minigame_pay_refund_succ_notify"

	eventXpayGoods     = "xpay_goods_deliver_notify"
	eventXpayCoins     = "xpay_coin_pay_notify"
	eventXpayRefund    = "xpay_refund_notify"
	eventXpayComplaint = "xpay_complaint_notify"
	eventXpayInquiry   = "xpay_subscribe_ios_refund_query_notify"
)

// programEvents are the events of mini programs about money.
var programEvents = []string{eventXpayGoods, eventXpayCoins, eventXpayRefund}

// gameEvents are the events of mini games about money: each must have its PayEventSig.
var gameEvents = []string{eventGoods, eventShop, eventShopSample, eventCoins, eventRechargeCenter, eventRefund}

// Source says where an order was placed.
type Source int

// The sources of orders.
const (
	FromGame Source = 1 // in the game or mini program
	FromShop Source = 2 // in the game's shop (商城): there is no order of the game's own
	ShopTest Source = 3 // a test of the shop, not a sale: delivered with Config.DeliverSandbox only
)

// WeChatPay holds the numbers of WeChat Pay's channel. Other channels leave it empty.
type WeChatPay struct {
	MchOrderNo, TransactionID string
	PaidTime                  time.Time // zero where not told
}

// A Delivery is a verified payment for an item. (AppID, Env, OutTradeNo) is its identity.
// Before granting, compare OpenID, ProductID, Quantity and Env with the stored order.
// Orders from the shop have none: compare ProductID with the catalogue.
type Delivery struct {
	AppID      string
	Env        Env
	OpenID     string // the player
	OutTradeNo string // the order's
	ProductID  string
	Quantity   int
	ZoneID     string // of mini games
	Attach     string // the order's

	// OrigPrice is the list price; whether of one piece or of all is not documented.
	// ActualPrice is what was really paid: with a discount less, never demand equality.
	OrigPrice, ActualPrice midas.Amount

	Source    Source
	WeChatPay WeChatPay
	Team      *Team // of mini programs' group purchases; mostly nil
}

// A Team is a group purchase (拼团).
type Team struct {
	ActivityID, TeamID string
	Joined             bool // joined a team; false: created it
}

// Midas returns d as a payment of package midas, for stores that keep those: its BillNo is
// "AppID/Env/OutTradeNo", so that a sandbox number never hides a live payment, its Token
// the OutTradeNo, Charged what was paid.
//
// unitPrice is the price of one piece in the stored order or the catalogue. OrigPrice must
// be that or that times the quantity, since the documentation does not say which;
// otherwise the error says so and nothing may be granted.
func (d *Delivery) Midas(unitPrice midas.Amount) (*midas.Delivery, error) {
	if d.OrigPrice != unitPrice && d.OrigPrice != unitPrice*midas.Amount(d.Quantity) {
		return nil, &midas.ParamError{Param: "OrigPrice", Reason: "is neither the price of the order nor that times its quantity"}
	}
	return &midas.Delivery{
		AppID:    d.AppID,
		OpenID:   d.OpenID,
		BillNo:   d.AppID + "/" + strconv.Itoa(int(d.Env)) + "/" + d.OutTradeNo,
		Token:    d.OutTradeNo,
		ZoneID:   d.ZoneID,
		Items:    []midas.Item{{ID: d.ProductID, Price: unitPrice, Quantity: d.Quantity}},
		Charged:  d.ActualPrice,
		Metadata: d.Attach,
	}, nil
}

// A CoinPayment says that WeChat credited game coins or tokens (代币) to the player's account
// there. A mini game must not grant anything for it: the app can forge the parameters of
// such a purchase. Grant on a successful Pay or CurrencyPay.
type CoinPayment struct {
	AppID              string
	Env                Env
	OpenID, OutTradeNo string
	ZoneID, Attach     string
	Quantity           int
	OrigPrice          midas.Amount
	ActualPrice        midas.Amount
	RechargeCenter     bool // of a mini game, bought in 充值中心
	WeChatPay          WeChatPay
}

// A Refund says that a payment was refunded, or (mini programs) that a refund failed. The
// order is found by OutTradeNo, else by MchOrderNo or TransactionID. RefundID is the
// refund's identity: the same may be pushed more than once.
type Refund struct {
	AppID      string
	Env        Env  // Live where EnvKnown is false
	EnvKnown   bool // mini programs' pushes do not tell the environment
	OpenID     string
	OutTradeNo string // may be empty for mini games
	RefundID   string
	Amount     midas.Amount
	Source     int // of mini games: 1 WeChat's platform, 2 the console, 3 the API
	WeChatPay  WeChatPay

	// Failed says that the refund did not happen: mini programs' RetCode was not 0.
	Failed  bool
	RetCode int
}

// A Complaint (mini programs) says that a player complained.
type Complaint struct {
	OpenID, WxOrderID, OutTradeNo, RequestID    string
	ComplaintID, ComplaintDetail, TransactionID string
	Time                                        int64 // as received
	RetryTimes                                  int
}

// A RefundInquiry (mini programs) is Apple's question about a refund, passed on by
// WeChat. The answer is an [Advice], due within 3 s.
type RefundInquiry struct {
	PayOrderID, ProductID, Quantity string
	ChannelBill, BundleID           string
	Reason, ProvideStatus           string // ProvideStatus: "0", "1" or "2"
	OrderTime, RefundTime           string // unix seconds
	ServiceType, ConsumptionStatus  string
}

// Advice answers a RefundInquiry. Apple decides.
type Advice struct {
	Against  bool   // advise against the refund
	Info     string // result_info
	Evidence string // required
}

// What the JSON and XML of pushes hold.
type (
	wxPayInfo struct {
		MchOrderNo, TransactionId text
		PaidTime                  loose
	}
	goodsInfo struct {
		ProductId, ZoneId, Attach                     string
		Quantity, OrigPrice, ActualPrice, OrderSource number
	}
	teamInfo struct {
		ActivityId, TeamId text
		TeamAction         loose
	}
	coinInfo struct {
		ZoneId, Attach                                            string
		BuyQuantity, Quantity, OrigPrice, ActualPrice, TotalPrice number
	}
	payload struct {
		OpenId, OutTradeNo string
		Env                *number
		WeChatPayInfo      wxPayInfo
		GoodsInfo          goodsInfo
		CoinInfo           coinInfo

		RefundId                   string
		RefundAmount, RefundSource number

		TeamInfo *teamInfo

		WxRefundId, MchOrderId, WxOrderId, RequestId               string
		WxpayRefundTransactionId, WxTransactionId                  string
		ComplaintId, ComplaintDetail, TransactionId, ComplaintTime string
		RefundFee, RetCode, RetryTimes                             number
	}
	inquiry struct {
		RefundTime        string `json:"refund_time" xml:"refund_time"`
		OrderTime         string `json:"order_time" xml:"order_time"`
		ChannelBill       string `json:"channel_bill" xml:"channel_bill"`
		BundleID          string `json:"bundleid" xml:"bundleid"`
		ProductID         string `json:"product_id" xml:"product_id"`
		Quantity          string `json:"p_count" xml:"p_count"`
		Reason            string `json:"refund_request_reason" xml:"refund_request_reason"`
		ProvideStatus     string `json:"provide_status" xml:"provide_status"`
		PayOrderID        string `json:"pay_order_id" xml:"pay_order_id"`
		ServiceType       string `json:"service_type" xml:"service_type"`
		ConsumptionStatus string `json:"consumption_status" xml:"consumption_status"`
	}
)

// names are what a push about a payment that cannot be used says about which one it is, so that
// somebody can find it.
type names struct {
	env                Env
	openID, outTradeNo string
}

// otherProduct refuses an event about money of the product that Config.MiniProgram does not name: it
// would be acknowledged, and WeChat would not send it again.
func (c *Client) otherProduct(event string) error {
	reason := "true, and this push is a mini game's"
	events := gameEvents
	if !c.config().MiniProgram {
		reason, events = "false, and this push is a mini program's", programEvents
	}
	if slices.Contains(events, event) {
		return &ConfigError{"MiniProgram", reason}
	}
	return nil
}

// readMiniGame reads the event of a mini game, in the order of minigame.md 4.5.
func (c *Client) readMiniGame(p *Push, m *miniGame) error {
	known := slices.Contains(gameEvents, p.Event)
	if m == nil {
		if known { // a flat body would go without a PayEventSig
			return &midas.ParamError{Param: "MiniGame", Reason: "missing"}
		}
		return nil
	}
	err := c.readSigned(p, m, known)
	if bool(m.IsMock) && p.Event != "" {
		// Which key signs a mock push is not documented. It grants nothing either way.
		p.Mock, p.note = true, err
		p.Delivery, p.Coins, p.Refund = nil, nil, nil
		return nil
	}
	if !known {
		return nil
	}
	return err
}

// readSigned verifies the payload and reads it.
func (c *Client) readSigned(p *Push, m *miniGame, known bool) error {
	in, typeErr := readPayload([]byte(m.Payload))
	if in.Env == nil {
		return unverified("the payload has no Env, so its key is not known")
	}
	env := Env(*in.Env) // not verified yet: it picks the key, nothing else
	if known {
		if err := c.served(env); err != nil {
			return err
		}
	}
	key, err := c.config().appKey(env)
	if err != nil || !equal(m.PayEventSig, PayEventSig(p.Event, m.Payload, key)) {
		// No real PayEventSig is published: this is to tell a wrong key from a wrong formula.
		name := "another event"
		if known {
			name = p.Event
		}
		return unverified(fmt.Sprintf("PayEventSig of %s in Env %d, payload of %d bytes with SHA-256 %x: check the AppKey of that environment",
			name, env, len(m.Payload), sha256.Sum256([]byte(m.Payload))))
	}
	p.Authentic = true
	p.named = in.names()
	if !known {
		p.paid = c.looksPaid(&in)
		return nil
	}
	if typeErr != nil {
		return wrongType(typeErr)
	}
	switch p.Event {
	case eventCoins, eventRechargeCenter:
		return c.readCoins(p, &in, env)
	case eventRefund:
		if err := needed("RefundId", in.RefundId); err != nil {
			return err
		}
		p.Refund = &Refund{
			AppID: c.config().AppID, Env: env, EnvKnown: true, OpenID: in.OpenId, OutTradeNo: in.OutTradeNo, RefundID: in.RefundId,
			Amount: fen(in.RefundAmount), Source: int(in.RefundSource), WeChatPay: in.weChatPay(),
		}
		return nil
	}
	return c.readGoods(p, &in, env)
}

// served returns nil if this server delivers payments of env.
func (c *Client) served(env Env) error {
	switch cfg := c.config(); {
	case env == Sandbox && !cfg.DeliverSandbox:
		return fmt.Errorf("%w: a sandbox payment, and Config.DeliverSandbox is not set", ErrEnvironment)
	case env != Live && env != Sandbox:
		return fmt.Errorf("%w: Env is neither 0 nor 1", ErrEnvironment)
	}
	return nil
}

// readFlat reads the event of a mini program.
func (c *Client) readFlat(p *Push) error {
	money := slices.Contains(programEvents, p.Event)
	if !money && !p.Authentic && !p.believed {
		return nil // what to do about it would be anybody's word
	}
	in, err := readPayload(p.Body)
	if p.Authentic {
		p.named = in.names()
	}
	switch {
	case !money && p.Event != eventXpayComplaint:
		p.paid = p.Authentic && c.looksPaid(&in)
		return readInquiry(p)
	case err != nil:
		return wrongType(err)
	}
	switch p.Event {
	case eventXpayRefund:
		if err := errors.Join(needed("WxRefundId", in.WxRefundId), needed("MchOrderId", in.MchOrderId)); err != nil {
			return err
		}
		p.Refund = &Refund{
			AppID: c.config().AppID, OpenID: in.OpenId, OutTradeNo: in.MchOrderId, RefundID: in.WxRefundId, Amount: fen(in.RefundFee),
			Failed: in.RetCode != 0, RetCode: int(in.RetCode), WeChatPay: WeChatPay{TransactionID: in.WxTransactionId},
		}
		return nil
	case eventXpayComplaint:
		at, _ := strconv.ParseInt(in.ComplaintTime, 10, 64)
		p.Complaint = &Complaint{
			OpenID: in.OpenId, WxOrderID: in.WxOrderId, OutTradeNo: in.MchOrderId, RequestID: in.RequestId, ComplaintID: in.ComplaintId,
			ComplaintDetail: in.ComplaintDetail, TransactionID: in.TransactionId, Time: at, RetryTimes: int(in.RetryTimes),
		}
		return nil
	}
	if in.Env == nil {
		return &midas.ParamError{Param: "Env", Reason: "missing"}
	}
	if err := c.served(Env(*in.Env)); err != nil {
		return err
	}
	if p.Event == eventXpayCoins {
		return c.readCoins(p, &in, Env(*in.Env))
	}
	return c.readGoods(p, &in, Env(*in.Env))
}

// readInquiry reads Apple's question about a refund. The documented table omits Event.
func readInquiry(p *Push) error {
	var in inquiry
	if _, err := decode(p.Body, &in); err != nil {
		if p.Event == eventXpayInquiry {
			return wrongType(err)
		}
		return nil // a message that is handed on as it is
	}
	if p.Event == eventXpayInquiry || p.Event == "" && in.ChannelBill != "" && in.BundleID != "" {
		p.RefundInquiry = in.fields()
	}
	return nil
}

func (in *inquiry) fields() *RefundInquiry {
	return &RefundInquiry{
		PayOrderID: in.PayOrderID, ProductID: in.ProductID, Quantity: in.Quantity, ChannelBill: in.ChannelBill, BundleID: in.BundleID,
		Reason: in.Reason, ProvideStatus: in.ProvideStatus, OrderTime: in.OrderTime, RefundTime: in.RefundTime,
		ServiceType: in.ServiceType, ConsumptionStatus: in.ConsumptionStatus,
	}
}

func (c *Client) readGoods(p *Push, in *payload, env Env) error {
	goods := in.GoodsInfo
	d := &Delivery{
		AppID: c.config().AppID, Env: env, OpenID: in.OpenId, OutTradeNo: in.OutTradeNo,
		ProductID: goods.ProductId, Quantity: int(goods.Quantity), ZoneID: goods.ZoneId, Attach: goods.Attach,
		OrigPrice: fen(goods.OrigPrice), ActualPrice: fen(goods.ActualPrice),
		Source: Source(max(goods.OrderSource, 1)), WeChatPay: in.weChatPay(),
	}
	if team := in.TeamInfo; team != nil && team.ActivityId+team.TeamId != "" {
		d.Team = &Team{ActivityID: string(team.ActivityId), TeamID: string(team.TeamId), Joined: team.TeamAction == 1}
	}
	err := errors.Join(needed("OpenId", d.OpenID), needed("OutTradeNo", d.OutTradeNo), needed("GoodsInfo.ProductId", d.ProductID),
		atLeast("GoodsInfo.Quantity", goods.Quantity, 1), atLeast("GoodsInfo.OrigPrice", goods.OrigPrice, 0), atLeast("GoodsInfo.ActualPrice", goods.ActualPrice, 0))
	if err != nil {
		return err
	}
	if d.Source == ShopTest && !c.config().DeliverSandbox { // not a sale
		p.Mock = true
		return nil
	}
	p.Delivery = d
	return nil
}

func (c *Client) readCoins(p *Push, in *payload, env Env) error {
	if err := errors.Join(needed("OpenId", in.OpenId), needed("OutTradeNo", in.OutTradeNo)); err != nil {
		return err
	}
	coins := in.CoinInfo
	p.Coins = &CoinPayment{
		AppID: c.config().AppID, Env: env, OpenID: in.OpenId, OutTradeNo: in.OutTradeNo, ZoneID: coins.ZoneId, Attach: coins.Attach,
		Quantity: int(max(coins.BuyQuantity, coins.Quantity)), OrigPrice: fen(coins.OrigPrice),
		ActualPrice:    fen(max(coins.ActualPrice, coins.TotalPrice)), // table and sample differ
		RechargeCenter: p.Event == eventRechargeCenter, WeChatPay: in.weChatPay(),
	}
	return nil
}

// UnmarshalJSON leaves out what is not an object: a payment does not depend on it.
func (w *wxPayInfo) UnmarshalJSON(b []byte) error {
	type plain wxPayInfo
	_ = json.Unmarshal(b, (*plain)(w))
	return nil
}

// UnmarshalJSON does likewise.
func (t *teamInfo) UnmarshalJSON(b []byte) error {
	type plain teamInfo
	_ = json.Unmarshal(b, (*plain)(t))
	return nil
}

// names returns what in says about which payment it is, as far as that can be read.
func (in *payload) names() names {
	n := names{openID: clip(in.OpenId, maxName), outTradeNo: clip(cmp.Or(in.OutTradeNo, in.MchOrderId), maxName)}
	if in.Env != nil {
		n.env = Env(*in.Env)
	}
	return n
}

// readPayload reads a payload. After an error it has only what finds the key and the payment: a field
// of another type, which ends the decoding, must not hide these.
func readPayload(body []byte) (in payload, err error) {
	if _, err = decode(body, &in); err != nil {
		var head struct {
			OpenId, OutTradeNo, MchOrderId text
			Env                            *number
		}
		_, _ = decode(body, &head)
		in = payload{OpenId: string(head.OpenId), OutTradeNo: string(head.OutTradeNo), MchOrderId: string(head.MchOrderId), Env: head.Env}
	}
	return in, err
}

// looksPaid reports whether in is a payment for an item that this server delivers, whatever its event.
func (c *Client) looksPaid(in *payload) bool {
	return in.OutTradeNo != "" && in.GoodsInfo.ProductId != "" && Source(in.GoodsInfo.OrderSource) != ShopTest &&
		in.Env != nil && c.served(Env(*in.Env)) == nil
}

func (in *payload) weChatPay() WeChatPay {
	w := WeChatPay{MchOrderNo: string(in.WeChatPayInfo.MchOrderNo), TransactionID: string(in.WeChatPayInfo.TransactionId)}
	if in.WeChatPayInfo.PaidTime > 0 {
		w.PaidTime = time.Unix(int64(in.WeChatPayInfo.PaidTime), 0)
	}
	return w
}

func fen(n number) midas.Amount { return midas.Amount(n) * midas.Fen }

// needed refuses an identifier that is missing, or longer than any real one.
func needed(param, value string) error {
	switch {
	case value == "":
		return &midas.ParamError{Param: param, Reason: "missing"}
	case utf8.RuneCountInString(value) > 128:
		return &midas.ParamError{Param: param, Reason: "over 128 characters"}
	}
	return nil
}

func atLeast(param string, n, limit number) error {
	const most = 1 << 53 // what a JSON number holds exactly
	if n < limit || n > most {
		return &midas.ParamError{Param: param, Reason: fmt.Sprintf("below %d, or too large", limit)}
	}
	return nil
}

// wrongType says which field of a push has another type. A decoder's own words may
// repeat text from the push.
func wrongType(err error) error {
	if typeErr := (*json.UnmarshalTypeError)(nil); errors.As(err, &typeErr) {
		return &midas.ParamError{Param: typeErr.Field, Reason: "has another type"}
	}
	return &midas.ParamError{Param: "body", Reason: "is not the JSON or XML of this event"}
}
