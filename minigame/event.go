package minigame

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas"
)

// A stake is what a push means for a player's money.
type stake int

const (
	none stake = iota // acknowledged where no function takes it
	told              // WeChat has credited it already: as none, but it must be signed, and its environment served
	gift              // only secure mode covers it, and its function or Other must take it
	owed              // as told, but only its own function can acknowledge it
)

// events are the pushes that this package reads (minigame.md 3.3 and 4.3). A new one is a row
// here, its type, what reads it, and a field of its product's handlers.
var events = map[string]struct {
	program bool // of mini programs, or of mini games
	stake   stake
	read    func(c *core, p *Push, in *payload) error
}{
	"minigame_game_pay_goods_deliver_notify":          {false, owed, (*core).readGoods},
	"minigame_h5_goods_deliver_notify":                {false, owed, (*core).readGoods}, // of the shop
	"minigame_deliver_h5_pay_products":                {false, owed, (*core).readGoods}, // the same in Tencent's samples
	"minigame_coin_deliver_completed":                 {false, told, (*core).readCoins},
	"minigame_recharge_center_coin_deliver_completed": {false, told, (*core).readCoins},
	"minigame_pay_refund_succ_notify":                 {false, owed, (*core).readGameRefund},
	"minigame_deliver_goods":                          {false, gift, (*core).readGift},

	"xpay_goods_deliver_notify":  {true, owed, (*core).readGoods},
	"xpay_coin_pay_notify":       {true, told, (*core).readCoins},
	"xpay_refund_notify":         {true, owed, (*core).readProgramRefund},
	"xpay_complaint_notify":      {true, none, (*core).readComplaint},
	"xpay_wxpay_callback_notify": {true, none, (*core).readNotice},
	eventInquiry:                 {true, none, (*core).readInquiry},
}

const (
	eventRechargeCenter = "minigame_recharge_center_coin_deliver_completed"
	eventInquiry        = "xpay_subscribe_ios_refund_query_notify"
)

// Source says where an order was placed.
type Source int

// The sources of orders.
const (
	FromGame Source = 1 // in the game or mini program
	FromShop Source = 2 // in a mini game's shop (商城): there is no order of the game's own
	ShopTest Source = 3 // a test of the shop, not a sale: delivered with DeliverSandbox only
)

// WeChatPay holds the numbers of WeChat Pay's channel. Other channels leave it empty.
type WeChatPay struct {
	MchOrderNo, TransactionID string
	PaidTime                  time.Time // zero where not told
}

// BillNo is the number of a payment in a ledger that keeps several apps and both environments:
// "wx0123456789abcdef/0/order-0001". A sandbox number never hides a live payment.
func BillNo(appID string, env Env, outTradeNo string) string {
	return appID + "/" + strconv.Itoa(int(env)) + "/" + outTradeNo
}

// A Delivery (minigame_game_pay_goods_deliver_notify, xpay_goods_deliver_notify) is a verified
// payment for an item. (AppID, Env, OutTradeNo) identifies it. Before granting, compare OpenID,
// ProductID, Quantity and Env with the stored order, and its price by PricedAt. Orders from the
// shop have none: compare ProductID with the catalogue.
type Delivery struct {
	AppID      string
	Env        Env
	OpenID     string // the player
	OutTradeNo string // the order's
	ProductID  string
	Quantity   int
	ZoneID     string // of mini games: the one that was signed
	Attach     string // the order's

	// OrigPrice is the list price; whether of one piece or of all is not documented.
	// ActualPrice is what was really paid: with a discount less, never demand equality.
	OrigPrice, ActualPrice midas.Amount

	Source    Source
	WeChatPay WeChatPay
	Team      *Team // of mini programs' group purchases; mostly nil
	Raw       Raw
}

// BillNo is [BillNo] of the payment.
func (d *Delivery) BillNo() string { return BillNo(d.AppID, d.Env, d.OutTradeNo) }

// PricedAt reports whether OrigPrice is unitPrice, the price of one piece in the stored order or
// the catalogue, or that times Quantity: Tencent does not say which. If not, grant nothing.
func (d *Delivery) PricedAt(unitPrice midas.Amount) bool {
	return d.OrigPrice == unitPrice || d.OrigPrice == unitPrice*midas.Amount(d.Quantity)
}

// A Team is a group purchase (拼团).
type Team struct {
	ActivityID, TeamID string
	Joined             bool // joined a team; false: created it
}

// A SubscriptionCharge says that Apple charged a player of a mini program for a subscription
// (会员订阅). OutTradeNo is WeChat's own, so no order of the game's has it; Env is Live where the
// push does not tell.
type SubscriptionCharge struct {
	Delivery
	OriginalTransactionID string // the subscription's: the same for each charge
}

// A CoinPayment (minigame_coin_deliver_completed, xpay_coin_pay_notify) says that WeChat credited
// game coins or tokens (代币) to the player's account there. A mini game must not grant anything for
// it: the app can forge the parameters of such a purchase. Grant on a successful SpendCoins or
// SpendTokens.
type CoinPayment struct {
	AppID                  string
	Env                    Env
	OpenID, OutTradeNo     string
	ZoneID, Attach         string
	Quantity               int
	OrigPrice, ActualPrice midas.Amount
	RechargeCenter         bool // of a mini game, bought in 充值中心
	WeChatPay              WeChatPay
	Raw                    Raw
}

// A RefundPush (minigame_pay_refund_succ_notify, xpay_refund_notify) says that a payment was
// refunded, or that a mini program's refund failed. The order is found by OutTradeNo, else by
// WeChatPay's numbers: Tencent's own sample for mini games has no OutTradeNo. RefundID identifies
// the refund: the same may be pushed more than once.
type RefundPush struct {
	AppID       string
	Env         Env    // Live where EnvKnown is false
	EnvKnown    bool   // mini programs' pushes do not tell the environment
	OpenID      string // mini games' do not tell the player
	OutTradeNo  string // may be empty for mini games
	RefundID    string // WeChat's number
	MchRefundID string // the game's own: RefundOrderID of RefundOrder; empty if it did not start it
	Amount      midas.Amount
	Source      int    // of mini games: 1 WeChat's platform, 2 the console, 3 the API
	Attach      string // the order's, of newer pushes of mini programs
	WeChatPay   WeChatPay

	Started, Succeeded time.Time // zero where not told

	// Failed says that the refund did not happen: mini programs' RetCode was not 0.
	Failed  bool
	RetCode int
	Raw     Raw
}

// A Gift (minigame_deliver_goods) says that a player of a mini game collected a gift pack (小游戏礼包),
// which costs nothing. OrderID identifies it: grant its items once. It comes in secure mode only,
// since nothing else covers its body.
type Gift struct {
	AppID, OrderID, OpenID string
	Preview                bool // made by the console for a test
	Zone                   int  // 1001 iOS, 2001 Android and PC
	GiftTypeID             int
	GiftID                 string
	Sent                   time.Time
	Items                  []GiftItem
	Raw                    Raw
}

// A GiftItem is one kind of item in a Gift.
type GiftItem struct {
	ID       string
	Quantity int
}

// A Complaint (xpay_complaint_notify) says that a player complained to WeChat Pay.
type Complaint struct {
	OpenID, WxOrderID, OutTradeNo, RequestID    string
	ComplaintID, ComplaintDetail, TransactionID string
	Time                                        time.Time // zero where not told
	AnswerBy                                    time.Time // a day after Time, as WeChat Pay asks of merchants
	RetryTimes                                  int
	Raw                                         Raw
}

// A MerchantNotice (xpay_wxpay_callback_notify) says that WeChat Pay looks into the merchant (尽职调查)
// or has punished it (管控): payments may stop. Its [PushEvent] is an alarm, whoever takes it.
type MerchantNotice struct {
	Kind                        string // "due_diligence", "punishment"
	MerchantCode, Company       string
	BusinessCode, BusinessState string
	Remark                      string
	Time                        time.Time // zero where not told
	RetryTimes                  int
	Raw                         Raw
}

// A RefundInquiry (xpay_subscribe_ios_refund_query_notify) is Apple's question about a refund,
// passed on by WeChat. The answer is an [Advice].
type RefundInquiry struct {
	PayOrderID, ProductID string
	Quantity              int
	ChannelBill, BundleID string
	Reason, ProvideStatus string // ProvideStatus: "0", "1" or "2"
	OrderTime, RefundTime time.Time
	AnswerBy              time.Time // 3 s after it came; later Apple decides without advice
	ServiceType           string
	ConsumptionStatus     string
	Raw                   Raw
}

// Advice answers a RefundInquiry. Apple decides.
type Advice struct {
	Against  bool   // advise against the refund
	Info     string // result_info
	Evidence string // required
}

// A payload is what the JSON and XML of pushes hold.
type payload struct {
	OpenId, OutTradeNo string
	Env                *number
	GoodsInfo          struct {
		ProductId, ZoneId, Attach                     string
		Quantity, OrigPrice, ActualPrice, OrderSource number
	}
	CoinInfo *struct {
		ZoneId, Attach                                            string
		BuyQuantity, Quantity, OrigPrice, ActualPrice, TotalPrice number
	}
	WeChatPayInfo optional[struct {
		MchOrderNo, TransactionId text
		PaidTime                  loose
	}]
	TeamInfo optional[struct {
		ActivityId, TeamId text
		TeamAction         loose
	}]
	AppleSubscriptionInfo optional[struct{ OriginalTransactionId text }]

	RefundId                                  string
	RefundAmount, RefundSource                number
	WxRefundId, MchOrderId, WxOrderId         string
	MchRefundId, WxTransactionId, Attach      text
	RefundFee, RetCode                        number
	RefundStartTimestamp, RefundSuccTimestamp loose

	OrderId, ToUserOpenid, GiftId string
	IsPreview                     flag
	Zone, GiftTypeId, SendTime    loose
	GoodsList                     []struct {
		Id  string
		Num number
	}

	RequestId, ComplaintId, ComplaintDetail, TransactionId text
	ComplaintTime, RetryTimes                              loose

	EventType, MerchantCode, MerchantCompanyName, BusinessCode, BusinessState, Remark text
	BusinessTime                                                                      loose

	RefundTime        loose  `json:"refund_time" xml:"refund_time"`
	OrderTime         loose  `json:"order_time" xml:"order_time"`
	ChannelBill       string `json:"channel_bill" xml:"channel_bill"`
	BundleID          string `json:"bundleid" xml:"bundleid"`
	ProductID         string `json:"product_id" xml:"product_id"`
	Count             loose  `json:"p_count" xml:"p_count"`
	Reason            string `json:"refund_request_reason" xml:"refund_request_reason"`
	ProvideStatus     string `json:"provide_status" xml:"provide_status"`
	PayOrderID        string `json:"pay_order_id" xml:"pay_order_id"`
	ServiceType       string `json:"service_type" xml:"service_type"`
	ConsumptionStatus string `json:"consumption_status" xml:"consumption_status"`
}

// optional is an object that a payment does not depend on: anything else reads as nil.
type optional[T any] struct{ of *T }

func (o *optional[T]) UnmarshalJSON(b []byte) error {
	if b[0] == '{' {
		o.of = new(T)
		_ = json.Unmarshal(b, o.of)
	}
	return nil
}

func (o *optional[T]) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	o.of = new(T)
	return d.DecodeElement(o.of, &start)
}

// readPayload reads a payload. After an error only the fields that identify key and payment are
// set: a field of another type, which ends the decoding, must not hide these.
func readPayload(body []byte) (in *payload, err error) {
	in = new(payload)
	if _, err = decode(body, in); err != nil {
		var head struct {
			OpenId, OutTradeNo, MchOrderId text
			Env                            *number
		}
		_, _ = decode(body, &head)
		in = &payload{OpenId: string(head.OpenId), OutTradeNo: string(head.OutTradeNo), MchOrderId: string(head.MchOrderId), Env: head.Env}
	}
	return in, err
}

// readGame reads a mini game's push, in this order: its product, its environment, its signature,
// and what it says.
func (c *core) readGame(p *Push, m *miniGame) error {
	switch {
	case m == nil && p.known && p.stake > none: // a flat body would go without a PayEventSig
		return &ParamError{"MiniGame", "missing"}
	case m == nil:
		return nil
	case p.known && p.stake == gift && !p.Authentic:
		return nil // what nothing signs decides nothing
	}
	err := c.readSigned(p, m)
	switch {
	case bool(m.IsMock) && p.Event != "":
		// Which key signs a mock push is not documented. It grants nothing either way.
		p.Mock, p.odd, p.Content = true, err, nil
		return nil
	case !p.known:
		return nil
	}
	return err
}

// readSigned verifies the payload and reads it. A gift has none: its fields are beside IsMock.
func (c *core) readSigned(p *Push, m *miniGame) error {
	if p.known && p.stake == gift {
		var outer struct{ MiniGame payload }
		_, typeErr := decode(p.Raw, &outer)
		return c.readEvent(p, &outer.MiniGame, typeErr)
	}
	in, typeErr := readPayload([]byte(m.Payload))
	if in.Env == nil {
		return unverified("the payload has no Env, so its key is not known")
	}
	env, err := c.servedEnv(in) // not verified yet: it picks the key, nothing else
	if err != nil && p.known {
		return err
	}
	keys := c.config().liveKeys()
	if env == Sandbox {
		keys = []Secret{c.config().SandboxAppKey}
	}
	p.keyIndex = slices.IndexFunc(keys, func(key Secret) bool {
		return key != "" && equal(m.PayEventSig, PayEventSig(p.Event, m.Payload, string(key)))
	})
	if p.keyIndex < 0 {
		// Tencent publishes no real PayEventSig, so say enough to tell a wrong key from a wrong
		// formula.
		name := "another event"
		if p.known {
			name = p.Event
		}
		return unverified(fmt.Sprintf("PayEventSig of %s in Env %d, payload of %d bytes with SHA-256 %x: check the AppKey of that environment",
			name, env, len(m.Payload), sha256.Sum256([]byte(m.Payload))))
	}
	p.Authentic = true
	return c.readEvent(p, in, typeErr)
}

// readProgram reads a mini program's push.
func (c *core) readProgram(p *Push) error {
	in, typeErr := readPayload(p.Raw)
	if p.Event == "" && in.ChannelBill != "" && in.BundleID != "" { // Tencent's table omits its Event
		return c.readInquiry(p, in)
	}
	return c.readEvent(p, in, typeErr)
}

// readEvent reads what is verified, after typeErr if a field had another type.
func (c *core) readEvent(p *Push, in *payload, typeErr error) error {
	p.named = names{openID: cmp.Or(in.OpenId, in.ToUserOpenid), outTradeNo: cmp.Or(in.OutTradeNo, in.MchOrderId, in.OrderId, in.PayOrderID)}
	if in.Env != nil {
		p.named.env = Env(*in.Env)
	}
	if !p.known {
		return nil
	}
	if typeErr != nil {
		return wrongType(typeErr)
	}
	return events[p.Event].read(c, p, in)
}

// looksPaid reports whether a push under a name that is not known looks like an item that was paid
// for, wherever its fields stand and whether or not they can be verified: to ask for it again costs
// nothing, to acknowledge it would lose it.
func (c *core) looksPaid(body Raw, m *miniGame) bool {
	type item struct {
		OutTradeNo text
		Env        loose
		GoodsInfo  optional[struct {
			ProductId   text
			OrderSource loose
		}]
	}
	var flat item
	var inside struct{ MiniGame item }
	var payload item
	_, _ = decode(body, &flat)
	_, _ = decode(body, &inside)
	if m != nil {
		_, _ = decode([]byte(m.Payload), &payload)
	}
	return slices.ContainsFunc([]item{flat, inside.MiniGame, payload}, func(i item) bool {
		goods := i.GoodsInfo.of
		free := Env(i.Env) == Sandbox && !c.config().DeliverSandbox
		return i.OutTradeNo != "" && goods != nil && goods.ProductId != "" && Source(goods.OrderSource) != ShopTest && !free
	})
}

// servedEnv returns the environment of a push, and an error if this server does not deliver it.
func (c *core) servedEnv(in *payload) (env Env, err error) {
	if in.Env == nil {
		return Live, &ParamError{"Env", "missing"}
	}
	return Env(*in.Env), c.Serves(Env(*in.Env))
}

// Serves returns nil if payments in env are delivered here, else [ErrEnvironment]: those in the
// sandbox with DeliverSandbox only.
func (c *core) Serves(env Env) error {
	switch {
	case env == Sandbox && !c.config().DeliverSandbox:
		return fmt.Errorf("%w: a sandbox payment, and DeliverSandbox is not set", ErrEnvironment)
	case env != Live && env != Sandbox:
		return fmt.Errorf("%w: Env is neither 0 nor 1", ErrEnvironment)
	}
	return nil
}

func (c *core) readGoods(p *Push, in *payload) error {
	env, err := c.servedEnv(in)
	subscription := in.AppleSubscriptionInfo.of
	if subscription != nil && subscription.OriginalTransactionId == "" {
		subscription = nil // an item like any other
	}
	if c.program && in.Env == nil && subscription != nil { // whose table has no Env
		err = nil
	}
	goods := in.GoodsInfo
	switch {
	case err != nil:
		return err
	case c.program && goods.ProductId == "" && in.CoinInfo != nil: // one report has tokens under this name
		return c.readCoins(p, in)
	}
	d := Delivery{
		AppID: c.config().AppID, Env: env, OpenID: in.OpenId, OutTradeNo: in.OutTradeNo,
		ProductID: goods.ProductId, Quantity: int(goods.Quantity), ZoneID: goods.ZoneId, Attach: goods.Attach,
		OrigPrice: fen(goods.OrigPrice), ActualPrice: fen(goods.ActualPrice),
		Source: FromGame, WeChatPay: in.weChatPay(), Raw: p.Raw,
	}
	if !c.program { // mini programs have no shop
		d.Source = Source(max(goods.OrderSource, 1))
	}
	if team := in.TeamInfo.of; team != nil && team.ActivityId+team.TeamId != "" {
		d.Team = &Team{ActivityID: string(team.ActivityId), TeamID: string(team.TeamId), Joined: team.TeamAction == 1}
	}
	err = errors.Join(needed("OpenId", d.OpenID), needed("OutTradeNo", d.OutTradeNo), needed("GoodsInfo.ProductId", d.ProductID),
		atLeast("GoodsInfo.Quantity", goods.Quantity, 1), atLeast("GoodsInfo.OrigPrice", goods.OrigPrice, 0), atLeast("GoodsInfo.ActualPrice", goods.ActualPrice, 0))
	switch {
	case err != nil:
		return err
	case d.Source == ShopTest && !c.config().DeliverSandbox: // not a sale
		p.Mock = true
	case c.program && subscription != nil:
		p.Content = &SubscriptionCharge{d, string(subscription.OriginalTransactionId)}
	default:
		p.Content = &d
	}
	return nil
}

func (c *core) readCoins(p *Push, in *payload) error {
	env, err := c.servedEnv(in)
	if err != nil {
		return err
	}
	coins := in.CoinInfo
	if coins == nil {
		return &ParamError{"CoinInfo", "missing"}
	}
	quantity, paid := max(coins.BuyQuantity, coins.Quantity), max(coins.ActualPrice, coins.TotalPrice) // table and sample differ
	p.Content = &CoinPayment{
		AppID: c.config().AppID, Env: env, OpenID: in.OpenId, OutTradeNo: in.OutTradeNo, ZoneID: coins.ZoneId, Attach: coins.Attach,
		Quantity: int(quantity), OrigPrice: fen(coins.OrigPrice), ActualPrice: fen(paid),
		RechargeCenter: p.Event == eventRechargeCenter, WeChatPay: in.weChatPay(), Raw: p.Raw,
	}
	return errors.Join(needed("OpenId", in.OpenId), needed("OutTradeNo", in.OutTradeNo), atLeast("CoinInfo.Quantity", quantity, 1), atLeast("CoinInfo.ActualPrice", paid, 0))
}

func (c *core) readGameRefund(p *Push, in *payload) error {
	p.Content = &RefundPush{
		AppID: c.config().AppID, Env: Env(*in.Env), EnvKnown: true, OpenID: in.OpenId, OutTradeNo: in.OutTradeNo, RefundID: in.RefundId,
		Amount: fen(in.RefundAmount), Source: int(in.RefundSource), WeChatPay: in.weChatPay(), Raw: p.Raw,
	}
	return errors.Join(needed("RefundId", in.RefundId), atLeast("RefundAmount", in.RefundAmount, 1)) // 0 would mean all of it
}

func (c *core) readProgramRefund(p *Push, in *payload) error {
	p.Content = &RefundPush{
		AppID: c.config().AppID, OpenID: in.OpenId, OutTradeNo: in.MchOrderId, RefundID: in.WxRefundId, MchRefundID: string(in.MchRefundId),
		Amount: fen(in.RefundFee), Attach: string(in.Attach), WeChatPay: WeChatPay{TransactionID: string(in.WxTransactionId)},
		Started: unix(in.RefundStartTimestamp), Succeeded: unix(in.RefundSuccTimestamp),
		Failed: in.RetCode != 0, RetCode: int(in.RetCode), Raw: p.Raw,
	}
	return errors.Join(needed("WxRefundId", in.WxRefundId), needed("MchOrderId", in.MchOrderId), atLeast("RefundFee", in.RefundFee, 1))
}

func (c *core) readGift(p *Push, in *payload) error {
	g := &Gift{
		AppID: c.config().AppID, OrderID: in.OrderId, OpenID: in.ToUserOpenid, Preview: bool(in.IsPreview), Zone: int(in.Zone),
		GiftTypeID: int(in.GiftTypeId), GiftID: in.GiftId, Sent: unix(in.SendTime), Raw: p.Raw,
	}
	err := errors.Join(needed("MiniGame.OrderId", g.OrderID), needed("MiniGame.ToUserOpenid", g.OpenID), atLeast("MiniGame.GoodsList", number(len(in.GoodsList)), 1))
	for _, item := range in.GoodsList {
		err = errors.Join(err, needed("MiniGame.GoodsList.Id", item.Id), atLeast("MiniGame.GoodsList.Num", item.Num, 1))
		g.Items = append(g.Items, GiftItem{item.Id, int(item.Num)})
	}
	p.Content = g
	return err
}

func (c *core) readComplaint(p *Push, in *payload) error {
	complaint := &Complaint{
		OpenID: in.OpenId, WxOrderID: in.WxOrderId, OutTradeNo: in.MchOrderId, RequestID: string(in.RequestId), ComplaintID: string(in.ComplaintId),
		ComplaintDetail: string(in.ComplaintDetail), TransactionID: string(in.TransactionId), Time: unix(in.ComplaintTime), RetryTimes: int(in.RetryTimes), Raw: p.Raw,
	}
	from := complaint.Time
	if from.IsZero() {
		from = p.came
	}
	complaint.AnswerBy = from.Add(24 * time.Hour)
	p.Content = complaint
	return nil
}

func (c *core) readNotice(p *Push, in *payload) error {
	p.Content = &MerchantNotice{
		Kind: string(in.EventType), MerchantCode: string(in.MerchantCode), Company: string(in.MerchantCompanyName), BusinessCode: string(in.BusinessCode),
		BusinessState: string(in.BusinessState), Remark: string(in.Remark), Time: unix(in.BusinessTime), RetryTimes: int(in.RetryTimes), Raw: p.Raw,
	}
	p.alarm, p.odd = true, errors.New("WeChat Pay looks into the merchant or punishes it, and payments may stop: see the console")
	return nil
}

func (c *core) readInquiry(p *Push, in *payload) error {
	p.Content = &RefundInquiry{
		PayOrderID: in.PayOrderID, ProductID: in.ProductID, Quantity: int(in.Count), ChannelBill: in.ChannelBill, BundleID: in.BundleID,
		Reason: in.Reason, ProvideStatus: in.ProvideStatus, OrderTime: unix(in.OrderTime), RefundTime: unix(in.RefundTime),
		AnswerBy: p.came.Add(weChatPatience), ServiceType: in.ServiceType, ConsumptionStatus: in.ConsumptionStatus, Raw: p.Raw,
	}
	return nil
}

func (in *payload) weChatPay() (w WeChatPay) {
	if pay := in.WeChatPayInfo.of; pay != nil {
		w = WeChatPay{MchOrderNo: string(pay.MchOrderNo), TransactionID: string(pay.TransactionId), PaidTime: unix(pay.PaidTime)}
	}
	return w
}

func fen(n number) midas.Amount { return midas.Amount(n) * midas.Fen }

// unix returns a time that WeChat gives in seconds; zero where it does not tell.
func unix[N ~int64](seconds N) (t time.Time) {
	if seconds > 0 {
		t = time.Unix(int64(seconds), 0)
	}
	return t
}

// needed refuses an identifier that is missing, or longer than any real one.
func needed(param, value string) error {
	switch {
	case value == "":
		return &ParamError{param, "missing"}
	case utf8.RuneCountInString(value) > 128:
		return &ParamError{param, "over 128 characters"}
	}
	return nil
}

func atLeast(param string, n, limit number) error {
	const most = 1 << 53 // what a JSON number holds exactly
	if n < limit || n > most {
		return &ParamError{param, fmt.Sprintf("below %d, or too large", limit)}
	}
	return nil
}

// wrongType says which field of a push has another type. A decoder's own words may
// repeat text from the push.
func wrongType(err error) error {
	if typeErr := (*json.UnmarshalTypeError)(nil); errors.As(err, &typeErr) {
		return &ParamError{typeErr.Field, "has another type"}
	}
	return &ParamError{"body", "is not the JSON or XML of this event"}
}
