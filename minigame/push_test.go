package minigame

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func logged(value any) string {
	var text, js bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "value", value)
	slog.New(slog.NewJSONHandler(&js, nil)).Info("m", "value", value)
	return text.String() + js.String()
}

const testAESKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

// plainQuery is the query of a push in plaintext mode under the token AAAAA.
func plainQuery() string {
	return url.Values{"timestamp": {"1714036504"}, "nonce": {"1514711492"}, "signature": {PushSignature("AAAAA", "1714036504", "1514711492")}}.Encode()
}

// sealed returns a push in secure mode.
func sealed(t testing.TB, appID, message string) (query, body string) {
	t.Helper()
	encrypted, err := EncryptPush(testAESKey, appID, []byte(message))
	require.NoError(t, err)
	query = url.Values{
		"timestamp": {"1714036504"}, "nonce": {"1514711492"}, "signature": {PushSignature("AAAAA", "1714036504", "1514711492")},
		"encrypt_type": {"aes"}, "msg_signature": {PushSignature("AAAAA", "1714036504", "1514711492", encrypted)},
	}.Encode()
	return query, `{"ToUserName":"gh_1","Encrypt":"` + encrypted + `"}`
}

// gamePush returns the JSON of a mini game's push with its PayEventSig.
func gamePush(event, payload, key string, mock bool) string {
	body, _ := json.Marshal(map[string]any{
		"ToUserName": "gh_1", "FromUserName": "o1", "CreateTime": 1583202606, "MsgType": "event", "Event": event,
		"MiniGame": map[string]any{"Payload": payload, "PayEventSig": PayEventSig(event, payload, key), "IsMock": mock},
	})
	return string(body)
}

const goodsPayload = `{"OpenId":"player-1","OutTradeNo":"order-01","Env":0,"WeChatPayInfo":{"MchOrderNo":"m1","TransactionId":"t1"},"GoodsInfo":{"ProductId":"sword","Quantity":2,"ZoneId":"1","OrigPrice":1000,"ActualPrice":900,"Attach":"a","OrderSource":1}}`

func TestPushBodiesOfTheVectors(t *testing.T) {
	t.Parallel()
	eachVector(t, "push_minigame_body", func(t *testing.T, v *vector) {
		var want struct {
			Event, Payload string
			SigOK          bool `json:"sig_ok"`
			IsMock         bool `json:"is_mock"`
			Env            *int
		}
		require.NoError(t, json.Unmarshal(v.Expected, &want))
		onLive := strings.Contains(v.Name, "on a live handler")
		client := newGame(t, func(cfg *GameConfig) { cfg.DeliverSandbox = !onLive })
		client.config().AppKey, client.config().SandboxAppKey = Secret(v.Key), Secret(v.Key) // past New, which refuses some of these keys
		var outer envelope
		isXML, err := decode([]byte(v.Inputs.Body), &outer)
		require.NoError(t, err)
		require.Equal(t, v.Inputs.Format == "xml", isXML)
		require.Equal(t, want.Event, outer.Event)
		require.Equal(t, want.Payload, outer.MiniGame.Payload)
		require.Equal(t, want.IsMock, bool(outer.MiniGame.IsMock))

		p, err := client.ParsePush(plainQuery(), []byte(v.Inputs.Body))
		var param *ParamError
		switch {
		case onLive:
			require.ErrorIs(t, err, ErrEnvironment)
		case want.IsMock:
			require.NoError(t, err)
			require.True(t, p.Mock)
			require.Nil(t, p.Content)
		case !want.SigOK, want.Env == nil:
			require.ErrorIs(t, err, ErrSignature)
		case errors.As(err, &param): // the samples of the refund and of the shop lack a field
			require.Contains(t, []string{"OutTradeNo", "GoodsInfo.ProductId"}, param.Param)
			require.NotErrorIs(t, err, ErrSignature)
		default:
			require.NoError(t, err)
			require.True(t, p.Authentic)
			require.NotNil(t, p.Content)
			require.Equal(t, v.Inputs.Body, p.Raw.String())
		}
	})
}

func TestADeliveryIsReadWhole(t *testing.T) {
	t.Parallel()
	want := &Delivery{
		AppID: "wxba5fad812f8e6fb9", OpenID: "player-1", OutTradeNo: "order-01", ProductID: "sword", Quantity: 2, ZoneID: "1", Attach: "a",
		OrigPrice: 1000 * midas.Fen, ActualPrice: 900 * midas.Fen, Source: FromGame, WeChatPay: WeChatPay{MchOrderNo: "m1", TransactionID: "t1"},
	}
	query, body := sealed(t, "wxba5fad812f8e6fb9", gamePush(eventGoods, goodsPayload, "12345", false))
	p, err := newGame(t, func(cfg *GameConfig) {
		cfg.PushKeys = []PushKey{{Token: "other"}, {Token: "AAAAA", EncodingAESKey: testAESKey}}
	}).ParsePush(query, []byte(body))
	require.NoError(t, err)
	want.Raw = Raw(gamePush(eventGoods, goodsPayload, "12345", false))
	require.Equal(t, want, p.Content)

	xml := `<xml><CreateTime>1583202606</CreateTime><MsgType><![CDATA[event]]></MsgType><Event><![CDATA[` + eventShop + `]]></Event><MiniGame><Payload><![CDATA[` +
		goodsPayload + `]]></Payload><PayEventSig>` + PayEventSig(eventShop, goodsPayload, "12345") + `</PayEventSig><IsMock>false</IsMock></MiniGame></xml>`
	p, err = newGame(t, nil).ParsePush(plainQuery(), []byte(xml))
	require.NoError(t, err)
	want.Raw = Raw(xml)
	require.Equal(t, want, p.Content)

	require.Equal(t, "wxba5fad812f8e6fb9/0/order-01", want.BillNo())
	require.Equal(t, "wx1/1/order-01", BillNo("wx1", Sandbox, "order-01"))
	require.True(t, want.PricedAt(500*midas.Fen), "OrigPrice is that of both pieces")
	require.True(t, want.PricedAt(1000*midas.Fen), "or of one")
	require.False(t, want.PricedAt(999*midas.Fen))
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	secure := func(cfg *GameConfig) { cfg.PushKeys = []PushKey{{Token: "AAAAA", EncodingAESKey: testAESKey}} }
	good := gamePush(eventGoods, goodsPayload, "12345", false)
	query, body := sealed(t, "wxba5fad812f8e6fb9", good)
	_, foreign := sealed(t, "wxother", good)
	with := func(old, new string) string {
		return gamePush(eventGoods, strings.Replace(goodsPayload, old, new, 1), "12345", false)
	}
	for _, test := range []struct {
		sentence    string
		change      func(*GameConfig)
		query, body string
		is          error // nil: a *ParamError
	}{
		{"another token", nil, strings.Replace(plainQuery(), "signature=", "signature=0", 1), good, ErrSignature},
		{"no query", nil, "", good, ErrSignature},
		{"a long query", nil, plainQuery() + "&x=" + strings.Repeat("y", 5000), good, ErrSignature},
		{"a parameter that comes twice", nil, plainQuery() + "&nonce=1514711492", good, ErrSignature},
		{"a query that does not parse", nil, plainQuery() + "&%zz", good, ErrSignature},
		{"a body over the limit", nil, plainQuery(), good + strings.Repeat(" ", 1<<20), ErrSignature},
		{"a payload under another key", nil, plainQuery(), gamePush(eventGoods, goodsPayload, "wrong", false), ErrSignature},
		{"another event name", nil, plainQuery(), strings.Replace(good, eventGoods, eventShop, 1), ErrSignature},
		{"a changed payload", nil, plainQuery(), strings.Replace(good, "sword", "Sword", 1), ErrSignature},
		{"no payload", nil, plainQuery(), `{"MsgType":"event","Event":"` + eventGoods + `"}`, nil},
		{"a flat body, the openid and all", nil, plainQuery(), `{"Event":"` + eventGoods + `","OpenId":"x","OutTradeNo":"y","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`, nil},
		{"a payload that is no JSON", nil, plainQuery(), gamePush(eventGoods, "hello", "12345", false), ErrSignature},
		{"a sandbox payment on a live server", nil, plainQuery(), gamePush(eventGoods, strings.Replace(goodsPayload, `"Env":0`, `"Env":1`, 1), "67890", false), ErrEnvironment},
		{"Env 1 under the live key", func(cfg *GameConfig) { cfg.DeliverSandbox = true }, plainQuery(), gamePush(eventGoods, strings.Replace(goodsPayload, `"Env":0`, `"Env":1`, 1), "12345", false), ErrSignature},
		{"Env 7", nil, plainQuery(), with(`"Env":0`, `"Env":7`), ErrEnvironment},
		{"no OutTradeNo", nil, plainQuery(), with(`"OutTradeNo":"order-01",`, ``), nil},
		{"no OpenId", nil, plainQuery(), with(`"OpenId":"player-1",`, ``), nil},
		{"a long OutTradeNo", nil, plainQuery(), with("order-01", strings.Repeat("x", 200)), nil},
		{"quantity 0", nil, plainQuery(), with(`"Quantity":2`, `"Quantity":0`), nil},
		{"quantity 1.5", nil, plainQuery(), with(`"Quantity":2`, `"Quantity":1.5`), nil},
		{"a price below zero", nil, plainQuery(), with(`900`, `-1`), nil},
		{"a number that does not fit", nil, plainQuery(), with(`900`, `99999999999999999999`), nil},
		{"a name that is a number", nil, plainQuery(), with(`"ProductId":"sword"`, `"ProductId":7`), nil},
		{"a plaintext push where encryption is expected", secure, plainQuery(), good, ErrSignature},
		{"an encrypted push without its encrypt_type", secure, strings.Replace(query, "encrypt_type=aes", "x=y", 1), body, ErrSignature},
		{"an encrypted push where no key is set", nil, query, body, ErrSignature},
		{"signature in place of msg_signature", secure, strings.NewReplacer("msg_signature", "x", "signature", "msg_signature").Replace(query), body, ErrSignature},
		{"another account's push", secure, query, foreign, ErrSignature},
		{"an encrypted body that is neither", secure, query, "hello", ErrSignature},
		{"neither JSON nor XML", nil, plainQuery(), "hello", nil},
		{"half a JSON", nil, plainQuery(), good[:len(good)/2], nil},
	} {
		t.Run(test.sentence, func(t *testing.T) {
			p, err := newGame(t, test.change).ParsePush(test.query, []byte(test.body))
			require.Nil(t, p)
			if test.is != nil {
				require.ErrorIs(t, err, test.is)
			} else {
				var param *ParamError
				require.ErrorAs(t, err, &param)
			}
			require.NotContains(t, err.Error(), "12345")
			require.NotContains(t, err.Error(), "order-01")
		})
	}
}

func TestOnlyWhatWasEncryptedCounts(t *testing.T) { // compatible mode
	t.Parallel()
	query, body := sealed(t, "wxba5fad812f8e6fb9", gamePush(eventGoods, goodsPayload, "12345", false))
	body = `{"MsgType":"text","Event":"forged",` + strings.TrimPrefix(body, "{")
	p, err := newGame(t, func(cfg *GameConfig) { cfg.PushKeys[0].EncodingAESKey = testAESKey }).ParsePush(query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, eventGoods, p.Event)
	require.Equal(t, "sword", p.Content.(*Delivery).ProductID)
}

func TestShopTestsAreNotSales(t *testing.T) {
	t.Parallel()
	body := gamePush(eventShop, strings.Replace(goodsPayload, `"OrderSource":1`, `"OrderSource":3`, 1), "12345", false)
	p, err := newGame(t, nil).ParsePush(plainQuery(), []byte(body))
	require.NoError(t, err)
	require.True(t, p.Mock)
	require.Nil(t, p.Content)
	p, err = newGame(t, func(cfg *GameConfig) { cfg.DeliverSandbox = true }).ParsePush(plainQuery(), []byte(body))
	require.NoError(t, err)
	require.Equal(t, ShopTest, p.Content.(*Delivery).Source)
}

func TestMockPushesNeverGrant(t *testing.T) {
	t.Parallel()
	for sentence, body := range map[string]string{
		"signed":                   gamePush(eventGoods, goodsPayload, "12345", true),
		"signed with another key":  gamePush(eventGoods, goodsPayload, "wrong", true),
		"of the sandbox":           gamePush(eventGoods, strings.Replace(goodsPayload, `"Env":0`, `"Env":1`, 1), "67890", true),
		"with nonsense as payload": gamePush(eventGoods, "nonsense", "12345", true),
		"of an event nobody knows": gamePush("minigame_new_event", "{}", "12345", true),
		"with IsMock as text":      strings.Replace(gamePush(eventRefund, goodsPayload, "12345", true), `"IsMock":true`, `"IsMock":"true"`, 1),
	} {
		t.Run(sentence, func(t *testing.T) {
			p, err := newGame(t, nil).ParsePush(plainQuery(), []byte(body))
			require.NoError(t, err)
			require.True(t, p.Mock)
			require.Nil(t, p.Content)
			require.Equal(t, `{"ErrCode":0,"ErrMsg":"Success"}`, string(p.Reply(nil).Bytes()))
		})
	}
}

func TestEventsOfMiniPrograms(t *testing.T) {
	t.Parallel()
	now := time.Unix(1773806500, 0)
	client := newProgram(t, func(cfg *ProgramConfig) { cfg.Now = func() time.Time { return now } })
	parse := func(message string) (*Push, error) {
		query, body := sealed(t, "wxba5fad812f8e6fb9", message)
		return client.ParsePush(query, []byte(body))
	}
	const appID, inquiry = "wxba5fad812f8e6fb9", `{"CreateTime":1773806490,"Event":"xpay_subscribe_ios_refund_query_notify","FromUserName":"","MsgType":"event","ToUserName":"","bundleid":"com.tencent.xin","channel_bill":"b","consumption_status":"0","order_time":"1773733827","p_count":"1","pay_order_id":"2","product_id":"","provide_status":"1","refund_request_reason":"UNINTENDED_PURCHASE","refund_time":"1773806490","service_type":"unipdt"}`
	asked := RefundInquiry{
		PayOrderID: "2", Quantity: 1, ChannelBill: "b", BundleID: "com.tencent.xin", Reason: "UNINTENDED_PURCHASE", ProvideStatus: "1",
		OrderTime: time.Unix(1773733827, 0), RefundTime: time.Unix(1773806490, 0), AnswerBy: now.Add(3 * time.Second), ServiceType: "unipdt", ConsumptionStatus: "0",
	}
	for _, test := range []struct {
		name, message string
		want          any
	}{
		{"an item", `{"MsgType":"event","Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"order-01","Env":0,"WeChatPayInfo":{"MchOrderNo":"m","TransactionId":"t","PaidTime":1700000000},"GoodsInfo":{"ProductId":"p","Quantity":1,"OrigPrice":100,"ActualPrice":90,"Attach":"a"},"TeamInfo":{"ActivityId":"a","TeamId":"t","TeamType":1,"TeamAction":1}}`,
			&Delivery{AppID: appID, OpenID: "o", OutTradeNo: "order-01", ProductID: "p", Quantity: 1, Attach: "a", OrigPrice: 100, ActualPrice: 90,
				Source: FromGame, WeChatPay: WeChatPay{"m", "t", time.Unix(1700000000, 0)}, Team: &Team{"a", "t", true}}},
		{"tokens", `<xml><MsgType>event</MsgType><Event>xpay_coin_pay_notify</Event><OpenId>o</OpenId><OutTradeNo>order-02</OutTradeNo><Env>0</Env><CoinInfo><Quantity>10</Quantity><OrigPrice>100</OrigPrice><ActualPrice>100</ActualPrice></CoinInfo></xml>`,
			&CoinPayment{AppID: appID, OpenID: "o", OutTradeNo: "order-02", Quantity: 10, OrigPrice: 100, ActualPrice: 100}},
		{"tokens under the name of items", `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"order-02","Env":0,"CoinInfo":{"Quantity":10,"ActualPrice":100}}`,
			&CoinPayment{AppID: appID, OpenID: "o", OutTradeNo: "order-02", Quantity: 10, ActualPrice: 100}},
		{"a subscription's charge, which names no environment", `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"wx-own","GoodsInfo":{"ProductId":"month","Quantity":1,"OrigPrice":3000,"ActualPrice":3000},"AppleSubscriptionInfo":{"OriginalTransactionId":"contract-1"}}`,
			&SubscriptionCharge{Delivery{AppID: appID, OpenID: "o", OutTradeNo: "wx-own", ProductID: "month", Quantity: 1, OrigPrice: 3000, ActualPrice: 3000, Source: FromGame}, "contract-1"}},
		{"a refund that failed", `{"MsgType":"event","Event":"xpay_refund_notify","OpenId":"o","WxRefundId":"w","MchRefundId":"m","WxOrderId":"x","MchOrderId":"order-01","RefundFee":90,"RetCode":7,"RetMsg":"no","RefundStartTimestamp":1700000000,"RefundSuccTimestamp":1700000060,"WxTransactionId":"t","Attach":"a","RetryTimes":0}`,
			&RefundPush{AppID: appID, OpenID: "o", OutTradeNo: "order-01", RefundID: "w", MchRefundID: "m", Amount: 90, Attach: "a", WeChatPay: WeChatPay{TransactionID: "t"},
				Started: time.Unix(1700000000, 0), Succeeded: time.Unix(1700000060, 0), Failed: true, RetCode: 7}},
		{"a complaint", `{"MsgType":"event","Event":"xpay_complaint_notify","OpenId":"o","WxOrderId":"x","MchOrderId":"order-01","ComplaintTime":"1700000000","RetryTimes":1,"RequestId":"r","ComplaintDetail":"no sword"}`,
			&Complaint{OpenID: "o", WxOrderID: "x", OutTradeNo: "order-01", RequestID: "r", ComplaintDetail: "no sword", Time: time.Unix(1700000000, 0), AnswerBy: time.Unix(1700086400, 0), RetryTimes: 1}},
		{"a complaint without its time", `{"Event":"xpay_complaint_notify","OpenId":"o"}`, &Complaint{OpenID: "o", AnswerBy: now.Add(24 * time.Hour)}},
		{"WeChat Pay's word on the merchant", `{"MsgType":"event","Event":"xpay_wxpay_callback_notify","AppId":"wx","NickName":"n","MerchantCode":"m","MerchantCompanyName":"c","BusinessTime":1700000000,"BusinessCode":"b","BusinessState":"s","Remark":"r","EventType":"punishment","RetryTimes":2}`,
			&MerchantNotice{Kind: "punishment", MerchantCode: "m", Company: "c", BusinessCode: "b", BusinessState: "s", Remark: "r", Time: time.Unix(1700000000, 0), RetryTimes: 2}},
		{"Apple's question", inquiry, &asked},
		{"Apple's question without Event, which the documented table omits", strings.Replace(inquiry, `"Event":"xpay_subscribe_ios_refund_query_notify",`, "", 1), &asked},
		{"an unknown event", `{"MsgType":"event","Event":"xpay_subscribe_signing_result_notify","RetryTimes":"x"}`, nil},
		{"a customer's message", `{"MsgType":"text","Content":"hello"}`, nil},
		{"text of another shape", `{"MsgType":"text","bundleid":7}`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := parse(test.message)
			require.NoError(t, err)
			require.Equal(t, test.message, p.Raw.String())
			require.True(t, p.Authentic)
			if test.want != nil { // what was received is in each of them
				raw := reflect.ValueOf(test.want).Elem().FieldByName("Raw")
				raw.SetBytes([]byte(test.message))
			}
			require.Equal(t, test.want, p.Content)
			require.Equal(t, "success", string(p.Reply(nil).Bytes()))
		})
	}
	p, err := parse(inquiry)
	require.NoError(t, err)
	reply := p.ReplyAdvice(Advice{Against: true, Info: "used", Evidence: "level 7"})
	var answer struct {
		Encrypt, MsgSignature, Nonce string
		TimeStamp                    int64
	}
	require.NoError(t, json.Unmarshal(reply.Bytes(), &answer))
	require.Equal(t, PushSignature("AAAAA", "1714036504", "1514711492", answer.Encrypt), answer.MsgSignature)
	plain, err := DecryptPush(testAESKey, "wxba5fad812f8e6fb9", answer.Encrypt)
	require.NoError(t, err)
	require.Equal(t, `{"result_code":1,"result_info":"used","evidence":"level 7"}`, string(plain))

	for sentence, message := range map[string]string{
		"a sandbox payment":               `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":1,"GoodsInfo":{"ProductId":"p","Quantity":1}}`,
		"no Env, and an odd subscription": `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","GoodsInfo":{"ProductId":"p","Quantity":1},"AppleSubscriptionInfo":""}`,
		"no Env":                          `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","GoodsInfo":{"ProductId":"p","Quantity":1}}`,
		"neither an item nor tokens":      `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":0}`,
		"tokens without CoinInfo":         `{"Event":"xpay_coin_pay_notify","OpenId":"o","OutTradeNo":"n","Env":0}`,
		"no tokens":                       `{"Event":"xpay_coin_pay_notify","OpenId":"o","OutTradeNo":"n","Env":0,"CoinInfo":{}}`,
		"no order":                        `{"Event":"xpay_refund_notify","WxRefundId":"w"}`,
		"a refund below zero":             `{"Event":"xpay_refund_notify","WxRefundId":"w","MchOrderId":"order-01","RefundFee":-1}`,
		"another type":                    `{"Event":"xpay_goods_deliver_notify","OpenId":{}}`,
		"an odd inquiry":                  `{"Event":"xpay_subscribe_ios_refund_query_notify","bundleid":7}`,
		"nonsense":                        `nonsense`,
		"a mini game's event":             gamePush(eventGoods, goodsPayload, "12345", false),
	} {
		t.Run("refuses "+sentence, func(t *testing.T) {
			_, err := parse(message)
			require.Error(t, err)
		})
	}
}

// Acknowledged, it would never come again.
func TestTheOtherProductsPushesAreNotAcknowledged(t *testing.T) {
	t.Parallel()
	other := func(context.Context, *Push) error { return nil }
	game := newGame(t, func(cfg *GameConfig) { cfg.PushKeys[0].EncodingAESKey = testAESKey })
	program := newProgram(t, nil)
	refused := func(h http.Handler, c *core, message string) {
		t.Helper()
		query, body := sealed(t, "wxba5fad812f8e6fb9", message)
		require.Contains(t, post(h, query, body).Body.String(), "99999", message)
		_, err := c.ParsePush(query, []byte(body))
		var param *ParamError
		require.ErrorAs(t, err, &param)
		require.Equal(t, "Event", param.Param)
	}
	for name, row := range events {
		if row.program {
			refused(game.PushHandler(GameHandlers{Other: other}), game.core, `{"MsgType":"event","Event":"`+name+`","OpenId":"o","OutTradeNo":"order-01","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`)
		} else {
			refused(program.PushHandler(ProgramHandlers{Other: other}), program.core, gamePush(name, goodsPayload, "12345", false))
		}
	}
}

// A gift pack that nobody takes would be lost (facts 0.1), and nothing but secure mode covers it.
func TestGiftPacks(t *testing.T) {
	t.Parallel()
	const message = `{"ToUserName":"gh_1","FromUserName":"o1","CreateTime":1583202606,"MsgType":"event","Event":"minigame_deliver_goods","MiniGame":{"OrderId":"gift-1","IsPreview":1,"ToUserOpenid":"player-1","Zone":1001,"GiftTypeId":3,"GiftId":"pack","SendTime":1583202600,"GoodsList":[{"Id":"sword","Num":2},{"Id":"gem","Num":5}]}}`
	want := &Gift{
		AppID: "wxba5fad812f8e6fb9", OrderID: "gift-1", OpenID: "player-1", Preview: true, Zone: 1001, GiftTypeID: 3, GiftID: "pack",
		Sent: time.Unix(1583202600, 0), Items: []GiftItem{{"sword", 2}, {"gem", 5}}, Raw: Raw(message),
	}
	var got *Gift
	var others []bool
	var seen heard
	take := GameHandlers{Gift: func(_ context.Context, g *Gift) error { got = g; return nil }}
	other := GameHandlers{Other: func(_ context.Context, p *Push) error { others = append(others, p.Authentic); return nil }}
	secure := newGame(t, func(cfg *GameConfig) { cfg.PushKeys[0].EncodingAESKey, cfg.OnPush = testAESKey, seen.add })
	plain := newGame(t, nil)
	query, body := sealed(t, "wxba5fad812f8e6fb9", message)
	require.Equal(t, failJSON, post(secure.PushHandler(GameHandlers{}), query, body).Body.String(), "nobody takes it")
	require.Equal(t, "gift-1", seen.wait(t, secure)[0].OutTradeNo)
	require.Equal(t, successJSON, post(secure.PushHandler(take), query, body).Body.String())
	require.Equal(t, want, got)
	require.Equal(t, successJSON, post(secure.PushHandler(other), query, body).Body.String())

	got = nil
	require.Equal(t, failJSON, post(plain.PushHandler(take), plainQuery(), message).Body.String(), "anyone can have sent it")
	require.Nil(t, got)
	require.Equal(t, successJSON, post(plain.PushHandler(other), plainQuery(), message).Body.String())
	require.Equal(t, []bool{true, false}, others)

	for old, odd := range map[string]string{
		`"OrderId":"gift-1"`: `"OrderId":""`, `"Num":2`: `"Num":0`, `"Id":"sword"`: `"Id":""`, `[{"Id":"sword","Num":2},{"Id":"gem","Num":5}]`: `[]`, `"GoodsList":[`: `"GoodsList":[7,`,
	} {
		query, body := sealed(t, "wxba5fad812f8e6fb9", strings.Replace(message, old, odd, 1))
		_, err := secure.ParsePush(query, []byte(body))
		var param *ParamError
		require.ErrorAs(t, err, &param, odd)
	}
	query, body = sealed(t, "wxba5fad812f8e6fb9", `<xml><Event>minigame_deliver_goods</Event><MiniGame><OrderId>gift-2</OrderId><ToUserOpenid>o</ToUserOpenid><GoodsList><Id>a</Id><Num>1</Num></GoodsList><GoodsList><Id>b</Id><Num>2</Num></GoodsList></MiniGame></xml>`)
	p, err := secure.ParsePush(query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, []GiftItem{{"a", 1}, {"b", 2}}, p.Content.(*Gift).Items)
}

// What WeChat Pay has against the merchant rings, whoever takes it (facts 0.5).
func TestANoticeAboutTheMerchantIsAnAlarm(t *testing.T) {
	t.Parallel()
	query, body := sealed(t, "wxba5fad812f8e6fb9", `{"MsgType":"event","Event":"xpay_wxpay_callback_notify","EventType":"punishment"}`)
	for outcome, h := range map[Outcome]ProgramHandlers{
		Ignored: {}, Handled: {Notice: func(context.Context, *MerchantNotice) error { return nil }},
	} {
		var seen heard
		var log strings.Builder
		client := newProgram(t, func(cfg *ProgramConfig) {
			cfg.OnPush, cfg.Logger = seen.add, slog.New(slog.NewTextHandler(&log, nil))
		})
		require.Equal(t, "success", post(client.PushHandler(h), query, body).Body.String())
		got := seen.wait(t, client)[0]
		require.Equal(t, outcome, got.Outcome)
		require.True(t, got.OK)
		require.ErrorContains(t, got.Err, "payments may stop")
		require.Contains(t, log.String(), "level=ERROR")
	}
}

// Each function of a mini program gets its pushes; those about money are not acknowledged without.
func TestEveryFunctionOfAMiniProgramGetsItsPushes(t *testing.T) {
	t.Parallel()
	client := newProgram(t, nil)
	var got any
	h := ProgramHandlers{
		Deliver:       func(_ context.Context, d *Delivery) error { got = d; return nil },
		Subscription:  func(_ context.Context, c *SubscriptionCharge) error { got = c; return nil },
		Refund:        func(_ context.Context, r *RefundPush) error { got = r; return nil },
		Coins:         func(_ context.Context, p *CoinPayment) error { got = p; return nil },
		Complaint:     func(_ context.Context, c *Complaint) error { got = c; return nil },
		Notice:        func(_ context.Context, n *MerchantNotice) error { got = n; return nil },
		RefundInquiry: func(_ context.Context, r *RefundInquiry) (Advice, error) { got = r; return Advice{Evidence: "e"}, nil },
		Other:         func(_ context.Context, p *Push) error { got = p; return nil },
	}
	for _, test := range []struct {
		name, message string
		want          any
		needed        bool
	}{
		{"an item", `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`, &Delivery{}, true},
		{"a subscription", `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","GoodsInfo":{"ProductId":"p","Quantity":1},"AppleSubscriptionInfo":{"OriginalTransactionId":"1"}}`, &SubscriptionCharge{}, true},
		{"an item with an empty subscription", `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1},"AppleSubscriptionInfo":{"OriginalTransactionId":""}}`, &Delivery{}, true},
		{"a refund", `{"Event":"xpay_refund_notify","OpenId":"o","WxRefundId":"w","MchOrderId":"n","RefundFee":1}`, &RefundPush{}, true},
		{"tokens", `{"Event":"xpay_coin_pay_notify","OpenId":"o","OutTradeNo":"n","Env":0,"CoinInfo":{"Quantity":1}}`, &CoinPayment{}, false},
		{"tokens under the name of items", `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":0,"CoinInfo":{"Quantity":1}}`, &CoinPayment{}, true},
		{"a complaint", `{"Event":"xpay_complaint_notify","OpenId":"o"}`, &Complaint{}, false},
		{"a notice", `{"Event":"xpay_wxpay_callback_notify"}`, &MerchantNotice{}, false},
		{"a question", `{"Event":"xpay_subscribe_ios_refund_query_notify"}`, &RefundInquiry{}, false},
		{"anything else", `{"Event":"x"}`, &Push{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			query, body := sealed(t, "wxba5fad812f8e6fb9", test.message)
			require.NotContains(t, post(client.PushHandler(h), query, body).Body.String(), "99999")
			require.IsType(t, test.want, got)
			acknowledged := !strings.Contains(post(client.PushHandler(ProgramHandlers{}), query, body).Body.String(), "99999")
			require.Equal(t, !test.needed, acknowledged)
			got = nil
			post(client.PushHandler(ProgramHandlers{Other: h.Other}), query, body)
			require.Equal(t, !test.needed, got != nil, "Other")
		})
	}
}

// In plaintext mode nothing covers the body of a mini program's push: 1 yuan bought any product, and
// one URL that was seen stopped deliveries (adversary review, A2 and A5).
func TestAMiniProgramTakesSecureModeOnly(t *testing.T) {
	t.Parallel()
	_, err := NewProgram(ProgramConfig{AppID: "wx1", PushKeys: []PushKey{{Token: "AAAAA"}}})
	var wrong *ConfigError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "PushKeys[0].EncodingAESKey", wrong.Field)
	require.Contains(t, wrong.Reason, "安全模式")

	asked := 0
	client := newProgram(t, func(cfg *ProgramConfig) {
		cfg.AccessToken = func(context.Context, string) (string, error) { asked++; return "token", nil }
	})
	h := client.PushHandler(ProgramHandlers{Deliver: func(context.Context, *Delivery) error { t.Error("delivered"); return nil }})
	for _, message := range []string{
		`{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"order-01","Env":0,"GoodsInfo":{"ProductId":"dragon","Quantity":1000,"OrderSource":2}}`,
		`{"Event":"xpay_refund_notify","OpenId":"o","MchOrderId":"order-01","WxRefundId":"r","RefundFee":64800}`, `{"MsgType":"text"}`,
	} {
		require.Equal(t, http.StatusForbidden, post(h, plainQuery(), message).Code)
	}
	require.Zero(t, asked, "WeChat's quota is not spent on what strangers send")

	query, body := sealed(t, "wxba5fad812f8e6fb9", `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1,"OrderSource":2}}`)
	p, err := client.ParsePush(query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, FromGame, p.Content.(*Delivery).Source, "a mini program has no shop")
}

func TestAnUnknownEventThatLooksLikeADelivery(t *testing.T) {
	t.Parallel()
	client := newGame(t, nil)
	message := gamePush("minigame_deliver_in_another_spelling", goodsPayload, "12345", false)
	require.Equal(t, failJSON, post(client.PushHandler(GameHandlers{}), plainQuery(), message).Body.String())
	other := GameHandlers{Other: func(_ context.Context, p *Push) error {
		require.True(t, p.Authentic)
		return nil
	}}
	require.Equal(t, successJSON, post(client.PushHandler(other), plainQuery(), message).Body.String())
	for sentence, message := range map[string]string{
		"a sandbox payment":  gamePush("minigame_deliver_in_another_spelling", strings.Replace(goodsPayload, `"Env":0`, `"Env":1`, 1), "67890", false),
		"a test of the shop": gamePush("minigame_deliver_in_another_spelling", strings.Replace(goodsPayload, `"OrderSource":1`, `"OrderSource":3`, 1), "12345", false),
	} {
		require.Equal(t, successJSON, post(client.PushHandler(GameHandlers{}), plainQuery(), message).Body.String(), sentence)
	}

	// Nothing that it lacks, or has in another place, makes it one to be acknowledged and lost.
	for sentence, message := range map[string]string{
		"another key":          gamePush("minigame_deliver_in_another_spelling", goodsPayload, "another key", false),
		"no Env":               gamePush("minigame_deliver_in_another_spelling", strings.Replace(goodsPayload, `"Env":0,`, "", 1), "12345", false),
		"another type":         gamePush("minigame_deliver_in_another_spelling", strings.Replace(goodsPayload, `"Quantity":2`, `"Quantity":"two"`, 1), "12345", false),
		"fields beside IsMock": `{"Event":"minigame_deliver_in_another_spelling","MiniGame":` + goodsPayload + `}`,
		"a flat body":          `{"Event":"minigame_deliver_in_another_spelling",` + goodsPayload[1:],
	} {
		for _, secure := range []bool{false, true} {
			game, query, body := client, plainQuery(), message
			if secure {
				game = newGame(t, func(cfg *GameConfig) { cfg.PushKeys[0].EncodingAESKey = testAESKey })
				query, body = sealed(t, "wxba5fad812f8e6fb9", message)
			}
			require.Contains(t, post(game.PushHandler(GameHandlers{}), query, body).Body.String(), "99999", "%s, %t", sentence, secure)
			taken := false
			post(game.PushHandler(GameHandlers{Other: func(context.Context, *Push) error { taken = true; return nil }}), query, body)
			require.True(t, taken, "%s, %t", sentence, secure)
		}
	}

	secure := newProgram(t, nil)
	for _, message := range []string{
		`{"Event":"xpay_deliver_in_another_spelling","OpenId":"o","OutTradeNo":"order-01","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`,
		`{"Event":"xpay_deliver_in_another_spelling","OpenId":"o","OutTradeNo":"order-01","GoodsInfo":{"ProductId":"p","Quantity":1}}`,
		`{"Event":"xpay_deliver_in_another_spelling","OpenId":"o","OutTradeNo":"order-01","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":"one"}}`,
	} {
		query, body := sealed(t, "wxba5fad812f8e6fb9", message)
		require.Contains(t, post(secure.PushHandler(ProgramHandlers{}), query, body).Body.String(), "99999", message)
	}
}

// A refund that does not say how much would be taken for all of it.
func TestARefundWithoutItsAmountIsMalformed(t *testing.T) {
	t.Parallel()
	game := newGame(t, nil)
	for _, amount := range []string{"", `,"RefundAmount":0`} {
		_, err := game.ParsePush(plainQuery(), []byte(gamePush("minigame_pay_refund_succ_notify", `{"OutTradeNo":"n","Env":0,"RefundId":"r"`+amount+`}`, "12345", false)))
		var wrong *ParamError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, "RefundAmount", wrong.Param)
	}
	query, body := sealed(t, "wxba5fad812f8e6fb9", `{"Event":"xpay_refund_notify","OpenId":"o","WxRefundId":"w","MchOrderId":"n"}`)
	_, err := newProgram(t, nil).ParsePush(query, []byte(body))
	var wrong *ParamError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "RefundFee", wrong.Param)
}

func TestTwoKeysWithOneToken(t *testing.T) {
	t.Parallel()
	const another = "GFEDCBA9876543210zyxwvutsrqponmlkjihgfedcba"
	client := newGame(t, func(cfg *GameConfig) {
		cfg.PushKeys = []PushKey{{Token: "AAAAA", EncodingAESKey: another}, {Token: "AAAAA", EncodingAESKey: testAESKey}}
	})
	query, body := sealed(t, "wxba5fad812f8e6fb9", goods())
	p, err := client.ParsePush(query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, "order-01", p.Content.(*Delivery).OutTradeNo)
}

// Numbers that decide about nothing do not keep a paid item back.
func TestWeChatPaysNumbersMayBeAnything(t *testing.T) {
	t.Parallel()
	for _, odd := range []string{`""`, `null`, `[]`, `{"MchOrderNo":7}`, `{"PaidTime":"soon"}`} {
		payload := strings.Replace(goodsPayload, `{"MchOrderNo":"m1","TransactionId":"t1"}`, odd+`,"TeamInfo":`+odd+`,"AppleSubscriptionInfo":`+odd, 1)
		p, err := newGame(t, nil).ParsePush(plainQuery(), []byte(gamePush(eventGoods, payload, "12345", false)))
		require.NoError(t, err, odd)
		require.Equal(t, "order-01", p.Content.(*Delivery).OutTradeNo)
		require.Empty(t, p.Content.(*Delivery).WeChatPay)
		require.Nil(t, p.Content.(*Delivery).Team)
	}

	// What is good of them is kept: it may be all that names the order.
	p, err := newGame(t, nil).ParsePush(plainQuery(), []byte(gamePush(eventRefund,
		`{"OpenId":"o","RefundId":"r","Env":0,"RefundAmount":5,"WeChatPayInfo":{"PaidTime":"2026-01-01","MchOrderNo":"m1","TransactionId":"t1"}}`, "12345", false)))
	require.NoError(t, err)
	require.Equal(t, WeChatPay{MchOrderNo: "m1", TransactionID: "t1"}, p.Content.(*RefundPush).WeChatPay)

	secure := newProgram(t, nil)
	query, body := sealed(t, "wxba5fad812f8e6fb9", `<xml><Event>xpay_goods_deliver_notify</Event><OpenId>o</OpenId><OutTradeNo>order-01</OutTradeNo><Env>0</Env>`+
		`<WeChatPayInfo><PaidTime>soon</PaidTime><TransactionId>t1</TransactionId></WeChatPayInfo><TeamInfo><TeamId>t</TeamId><TeamAction>join</TeamAction></TeamInfo>`+
		`<GoodsInfo><ProductId>p</ProductId><Quantity>1</Quantity></GoodsInfo></xml>`)
	p, err = secure.ParsePush(query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, "t1", p.Content.(*Delivery).WeChatPay.TransactionID)
	require.Equal(t, &Team{TeamID: "t"}, p.Content.(*Delivery).Team)
}

func TestRepliesToTheByte(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		sentence string
		push     Push
		err      error
		want     string
	}{
		{"granted, JSON", Push{verified: true}, nil, `{"ErrCode":0,"ErrMsg":"Success"}`},
		{"granted, XML", Push{verified: true, xml: true}, nil, `<xml><ErrCode>0</ErrCode><ErrMsg>Success</ErrMsg></xml>`},
		{"not granted, JSON", Push{verified: true}, errors.New("failed"), `{"ErrCode":99999,"ErrMsg":"internal error"}`},
		{"not granted, XML", Push{verified: true, xml: true}, errors.New("failed"), `<xml><ErrCode>99999</ErrCode><ErrMsg>internal error</ErrMsg></xml>`},
		{"mini program, JSON", Push{verified: true, flat: true, encrypted: true}, nil, `success`},
		{"mini program, XML", Push{verified: true, flat: true, xml: true, encrypted: true}, nil, `success`},
		{"another message", Push{verified: true, flat: true}, nil, `success`},
		{"the zero Push", Push{}, nil, `{"ErrCode":99999,"ErrMsg":"internal error"}`},
	} {
		t.Run(test.sentence, func(t *testing.T) {
			reply := test.push.Reply(test.err)
			require.Equal(t, test.want, string(reply.Bytes()))
			require.Equal(t, !strings.Contains(test.want, "99999"), reply.OK())
			kind := map[byte]string{'{': "application/json", '<': "application/xml", 's': "text/plain; charset=utf-8"}[test.want[0]]
			require.Equal(t, kind, reply.ContentType())
		})
	}
	key := PushKey{Token: "AAAAA", EncodingAESKey: testAESKey}
	advice := (&Push{verified: true, xml: true, appID: "a", key: func() PushKey { return key }}).ReplyAdvice(Advice{Info: "<i>", Evidence: "e"})
	var outer struct{ Encrypt string }
	require.NoError(t, xml.Unmarshal(advice.Bytes(), &outer))
	plain, err := DecryptPush(testAESKey, "a", outer.Encrypt)
	require.NoError(t, err)
	require.Equal(t, `<xml><result_code>0</result_code><result_info>&lt;i&gt;</result_info><evidence>e</evidence></xml>`, string(plain))
}

func TestNumbersMayBeText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]number{`7`: 7, `"7"`: 7, `" 7 "`: 7, `""`: 0, `null`: 0, `-1`: -1} {
		var n number
		require.NoError(t, json.Unmarshal([]byte(text), &n), text)
		require.Equal(t, want, n, text)
	}
	for _, text := range []string{`1.5`, `"x"`, `1e3`, `true`, `{}`, `99999999999999999999`} {
		var n number
		require.Error(t, json.Unmarshal([]byte(text), &n), text)
	}
	for text, want := range map[string]flag{`true`: true, `"True"`: true, `1`: true, `"1"`: true, `false`: false, `0`: false, `"yes"`: false, `null`: false} {
		var f flag
		require.NoError(t, json.Unmarshal([]byte(text), &f), text)
		require.Equal(t, want, f, text)
	}
}
