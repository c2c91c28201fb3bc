package minigame

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"

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
		client := newClient(t, func(cfg *Config) { cfg.DeliverSandbox = !onLive })
		client.config().AppKey, client.config().SandboxAppKey = Secret(v.Key), Secret(v.Key) // past New, which refuses some of these keys
		var outer envelope
		isXML, err := decode([]byte(v.Inputs.Body), &outer)
		require.NoError(t, err)
		require.Equal(t, v.Inputs.Format == "xml", isXML)
		require.Equal(t, want.Event, outer.Event)
		require.Equal(t, want.Payload, outer.MiniGame.Payload)
		require.Equal(t, want.IsMock, bool(outer.MiniGame.IsMock))

		p, err := client.ParsePush(t.Context(), plainQuery(), []byte(v.Inputs.Body))
		var param *midas.ParamError
		switch {
		case onLive:
			require.ErrorIs(t, err, ErrEnvironment)
		case want.IsMock:
			require.NoError(t, err)
			require.True(t, p.Mock)
			require.Nil(t, p.Delivery)
			require.Nil(t, p.Refund)
		case !want.SigOK, want.Env == nil:
			require.ErrorIs(t, err, ErrSignature)
		case errors.As(err, &param): // the samples of the refund and of the shop lack a field
			require.Contains(t, []string{"OutTradeNo", "GoodsInfo.ProductId"}, param.Param)
			require.NotErrorIs(t, err, ErrSignature)
		default:
			require.NoError(t, err)
			require.True(t, p.Authentic)
			found := 0
			for _, set := range []bool{p.Delivery != nil, p.Coins != nil, p.Refund != nil, p.Mock} {
				if set {
					found++
				}
			}
			require.Equal(t, 1, found)
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
	p, err := newClient(t, func(cfg *Config) {
		cfg.PushKeys = []PushKey{{Token: "other"}, {Token: "AAAAA", EncodingAESKey: testAESKey}}
	}).ParsePush(t.Context(), query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, want, p.Delivery)

	xml := `<xml><CreateTime>1583202606</CreateTime><MsgType><![CDATA[event]]></MsgType><Event><![CDATA[` + eventShop + `]]></Event><MiniGame><Payload><![CDATA[` +
		goodsPayload + `]]></Payload><PayEventSig>` + PayEventSig(eventShop, goodsPayload, "12345") + `</PayEventSig><IsMock>false</IsMock></MiniGame></xml>`
	p, err = newClient(t, nil).ParsePush(t.Context(), plainQuery(), []byte(xml))
	require.NoError(t, err)
	require.Equal(t, want, p.Delivery)

	paid, err := p.Delivery.Midas(500 * midas.Fen)
	require.NoError(t, err, "OrigPrice is that of both pieces")
	require.Equal(t, &midas.Delivery{
		AppID: "wxba5fad812f8e6fb9", OpenID: "player-1", BillNo: "wxba5fad812f8e6fb9/0/order-01", Token: "order-01", ZoneID: "1",
		Items: []midas.Item{{ID: "sword", Price: 500 * midas.Fen, Quantity: 2}}, Charged: 900 * midas.Fen, Metadata: "a",
	}, paid)
	_, err = p.Delivery.Midas(1000 * midas.Fen)
	require.NoError(t, err, "or of one")
	_, err = p.Delivery.Midas(999 * midas.Fen)
	require.ErrorContains(t, err, "OrigPrice")
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	secure := func(cfg *Config) { cfg.PushKeys = []PushKey{{Token: "AAAAA", EncodingAESKey: testAESKey}} }
	good := gamePush(eventGoods, goodsPayload, "12345", false)
	query, body := sealed(t, "wxba5fad812f8e6fb9", good)
	_, foreign := sealed(t, "wxother", good)
	with := func(old, new string) string {
		return gamePush(eventGoods, strings.Replace(goodsPayload, old, new, 1), "12345", false)
	}
	for _, test := range []struct {
		sentence    string
		change      func(*Config)
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
		{"Env 1 under the live key", func(cfg *Config) { cfg.DeliverSandbox = true }, plainQuery(), gamePush(eventGoods, strings.Replace(goodsPayload, `"Env":0`, `"Env":1`, 1), "12345", false), ErrSignature},
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
			p, err := newClient(t, test.change).ParsePush(t.Context(), test.query, []byte(test.body))
			require.Nil(t, p)
			if test.is != nil {
				require.ErrorIs(t, err, test.is)
			} else {
				var param *midas.ParamError
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
	p, err := newClient(t, func(cfg *Config) { cfg.PushKeys[0].EncodingAESKey = testAESKey }).ParsePush(t.Context(), query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, eventGoods, p.Event)
	require.Equal(t, "sword", p.Delivery.ProductID)
}

func TestShopTestsAreNotSales(t *testing.T) {
	t.Parallel()
	body := gamePush(eventShop, strings.Replace(goodsPayload, `"OrderSource":1`, `"OrderSource":3`, 1), "12345", false)
	p, err := newClient(t, nil).ParsePush(t.Context(), plainQuery(), []byte(body))
	require.NoError(t, err)
	require.True(t, p.Mock)
	require.Nil(t, p.Delivery)
	p, err = newClient(t, func(cfg *Config) { cfg.DeliverSandbox = true }).ParsePush(t.Context(), plainQuery(), []byte(body))
	require.NoError(t, err)
	require.Equal(t, ShopTest, p.Delivery.Source)
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
			p, err := newClient(t, nil).ParsePush(t.Context(), plainQuery(), []byte(body))
			require.NoError(t, err)
			require.True(t, p.Mock)
			require.Nil(t, p.Delivery)
			require.Nil(t, p.Coins)
			require.Nil(t, p.Refund)
			require.Equal(t, `{"ErrCode":0,"ErrMsg":"Success"}`, string(p.Reply(nil).Bytes()))
		})
	}
}

func TestEventsOfMiniPrograms(t *testing.T) {
	t.Parallel()
	client := newClient(t, func(cfg *Config) { cfg.MiniProgram = true; cfg.PushKeys[0].EncodingAESKey = testAESKey })
	parse := func(message string) (*Push, error) {
		query, body := sealed(t, "wxba5fad812f8e6fb9", message)
		return client.ParsePush(t.Context(), query, []byte(body))
	}

	p, err := parse(`{"MsgType":"event","Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"order-01","Env":0,"WeChatPayInfo":{"MchOrderNo":"m","TransactionId":"t","PaidTime":1700000000},"GoodsInfo":{"ProductId":"p","Quantity":1,"OrigPrice":100,"ActualPrice":90,"Attach":"a"},"TeamInfo":{"ActivityId":"a","TeamId":"t","TeamType":1,"TeamAction":1}}`)
	require.NoError(t, err)
	require.Equal(t, "p", p.Delivery.ProductID)
	require.Equal(t, int64(1700000000), p.Delivery.WeChatPay.PaidTime.Unix())
	require.Equal(t, &Team{"a", "t", true}, p.Delivery.Team)

	p, err = parse(`<xml><MsgType>event</MsgType><Event>xpay_coin_pay_notify</Event><OpenId>o</OpenId><OutTradeNo>order-02</OutTradeNo><Env>0</Env><CoinInfo><Quantity>10</Quantity><OrigPrice>100</OrigPrice><ActualPrice>100</ActualPrice></CoinInfo></xml>`)
	require.NoError(t, err)
	require.Equal(t, 10, p.Coins.Quantity)
	require.Equal(t, "success", string(p.Reply(nil).Bytes()))
	require.Equal(t, failedXML, string(p.Reply(errNoResult).Bytes()))

	p, err = parse(`{"MsgType":"event","Event":"xpay_refund_notify","OpenId":"o","WxRefundId":"w","MchRefundId":"m","WxOrderId":"x","MchOrderId":"order-01","RefundFee":90,"RetCode":7,"RetMsg":"no","RetryTimes":0}`)
	require.NoError(t, err)
	require.Equal(t, &Refund{AppID: "wxba5fad812f8e6fb9", OpenID: "o", OutTradeNo: "order-01", RefundID: "w", Amount: 90 * midas.Fen, Failed: true, RetCode: 7}, p.Refund)

	p, err = parse(`{"MsgType":"event","Event":"xpay_complaint_notify","OpenId":"o","WxOrderId":"x","MchOrderId":"order-01","ComplaintTime":"1700000000","RetryTimes":1,"RequestId":"r"}`)
	require.NoError(t, err)
	require.Equal(t, "order-01", p.Complaint.OutTradeNo)
	require.Equal(t, int64(1700000000), p.Complaint.Time)

	const inquiry = `{"CreateTime":1773806490,"Event":"xpay_subscribe_ios_refund_query_notify","FromUserName":"","MsgType":"event","ToUserName":"","bundleid":"com.tencent.xin","channel_bill":"b","consumption_status":"0","order_time":"1773733827","p_count":"1","pay_order_id":"2","product_id":"","provide_status":"1","refund_request_reason":"UNINTENDED_PURCHASE","refund_time":"1773806490","service_type":"unipdt"}`
	p, err = parse(inquiry)
	require.NoError(t, err)
	require.Equal(t, "UNINTENDED_PURCHASE", p.RefundInquiry.Reason)
	p, err = parse(strings.Replace(inquiry, `"Event":"xpay_subscribe_ios_refund_query_notify",`, "", 1))
	require.NoError(t, err)
	require.Equal(t, "2", p.RefundInquiry.PayOrderID, "the documented table omits Event")

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
		"an unknown event":      `{"MsgType":"event","Event":"xpay_wxpay_callback_notify","RetryTimes":"x"}`,
		"a customer's message":  `{"MsgType":"text","Content":"hello"}`,
		"text of another shape": `{"MsgType":"text","bundleid":7}`,
	} {
		t.Run(sentence, func(t *testing.T) {
			p, err := parse(message)
			require.NoError(t, err)
			require.Nil(t, p.Delivery)
			require.Nil(t, p.RefundInquiry)
			require.JSONEq(t, message, string(p.Body))
		})
	}
	for sentence, message := range map[string]string{
		"a sandbox payment": `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":1,"GoodsInfo":{"ProductId":"p","Quantity":1}}`,
		"no Env":            `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","GoodsInfo":{"ProductId":"p","Quantity":1}}`,
		"no order":          `{"Event":"xpay_refund_notify","WxRefundId":"w"}`,
		"another type":      `{"Event":"xpay_goods_deliver_notify","OpenId":{}}`,
		"an odd inquiry":    `{"Event":"xpay_subscribe_ios_refund_query_notify","bundleid":7}`,
	} {
		t.Run("refuses "+sentence, func(t *testing.T) {
			_, err := parse(message)
			require.Error(t, err)
		})
	}
}

// Acknowledged, it would never come again.
func TestTheOtherProductsPaymentsAreNotAcknowledged(t *testing.T) {
	t.Parallel()
	for _, isProgram := range []bool{false, true} {
		client := newClient(t, func(cfg *Config) { cfg.MiniProgram, cfg.PushKeys[0].EncodingAESKey = isProgram, testAESKey })
		h := client.PushHandler(Handlers{
			Deliver: func(context.Context, *Delivery) error { return nil },
			Refund:  func(context.Context, *Refund) error { return nil },
			Other:   func(context.Context, *Push) error { return nil },
		})
		foreign := []string{gamePush(eventGoods, goodsPayload, "12345", false), gamePush(eventRefund, `{"RefundId":"r","OutTradeNo":"order-01","Env":0}`, "12345", false)}
		if !isProgram {
			foreign = []string{
				`{"MsgType":"event","Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"order-01","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`,
				`{"MsgType":"event","Event":"xpay_refund_notify","OpenId":"o","WxRefundId":"w","MchOrderId":"order-01"}`,
			}
		}
		for _, message := range foreign {
			query, body := sealed(t, "wxba5fad812f8e6fb9", message)
			require.Contains(t, post(h, query, body).Body.String(), "99999", message)
			_, err := client.ParsePush(t.Context(), query, []byte(body))
			var config *ConfigError
			require.ErrorAs(t, err, &config)
			require.Equal(t, "MiniProgram", config.Field)
		}
	}
}

func TestAnUnknownEventThatLooksLikeADelivery(t *testing.T) {
	t.Parallel()
	client := newClient(t, nil)
	message := gamePush("minigame_deliver_in_another_spelling", goodsPayload, "12345", false)
	require.Equal(t, failJSON, post(client.PushHandler(Handlers{}), plainQuery(), message).Body.String())
	other := Handlers{Other: func(_ context.Context, p *Push) error {
		require.True(t, p.Authentic)
		return nil
	}}
	require.Equal(t, successJSON, post(client.PushHandler(other), plainQuery(), message).Body.String())
	for sentence, message := range map[string]string{
		"anybody can send these": gamePush("minigame_deliver_in_another_spelling", goodsPayload, "another key", false),
		"a sandbox payment":      gamePush("minigame_deliver_in_another_spelling", strings.Replace(goodsPayload, `"Env":0`, `"Env":1`, 1), "67890", false),
		"a test of the shop":     gamePush("minigame_deliver_in_another_spelling", strings.Replace(goodsPayload, `"OrderSource":1`, `"OrderSource":3`, 1), "12345", false),
	} {
		require.Equal(t, successJSON, post(client.PushHandler(Handlers{}), plainQuery(), message).Body.String(), sentence)
	}

	secure := newClient(t, func(cfg *Config) { cfg.MiniProgram = true; cfg.PushKeys[0].EncodingAESKey = testAESKey })
	query, body := sealed(t, "wxba5fad812f8e6fb9", `{"Event":"xpay_deliver_in_another_spelling","OpenId":"o","OutTradeNo":"order-01","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`)
	require.Contains(t, post(secure.PushHandler(Handlers{}), query, body).Body.String(), "99999")
}

func TestTwoKeysWithOneToken(t *testing.T) {
	t.Parallel()
	const another = "GFEDCBA9876543210zyxwvutsrqponmlkjihgfedcba"
	client := newClient(t, func(cfg *Config) {
		cfg.PushKeys = []PushKey{{Token: "AAAAA", EncodingAESKey: another}, {Token: "AAAAA", EncodingAESKey: testAESKey}}
	})
	query, body := sealed(t, "wxba5fad812f8e6fb9", goods())
	p, err := client.ParsePush(t.Context(), query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, "order-01", p.Delivery.OutTradeNo)
}

// Numbers that decide about nothing do not keep a paid item back.
func TestWeChatPaysNumbersMayBeAnything(t *testing.T) {
	t.Parallel()
	for _, odd := range []string{`""`, `null`, `[]`, `{"MchOrderNo":7}`, `{"PaidTime":"soon"}`} {
		payload := strings.Replace(goodsPayload, `{"MchOrderNo":"m1","TransactionId":"t1"}`, odd+`,"TeamInfo":`+odd, 1)
		p, err := newClient(t, nil).ParsePush(t.Context(), plainQuery(), []byte(gamePush(eventGoods, payload, "12345", false)))
		require.NoError(t, err, odd)
		require.Equal(t, "order-01", p.Delivery.OutTradeNo)
		require.Empty(t, p.Delivery.WeChatPay)
		require.Nil(t, p.Delivery.Team)
	}

	// What is good of them is kept: it may be all that names the order.
	p, err := newClient(t, nil).ParsePush(t.Context(), plainQuery(), []byte(gamePush(eventRefund,
		`{"OpenId":"o","RefundId":"r","Env":0,"RefundAmount":5,"WeChatPayInfo":{"PaidTime":"2026-01-01","MchOrderNo":"m1","TransactionId":"t1"}}`, "12345", false)))
	require.NoError(t, err)
	require.Equal(t, WeChatPay{MchOrderNo: "m1", TransactionID: "t1"}, p.Refund.WeChatPay)

	secure := newClient(t, func(cfg *Config) { cfg.MiniProgram = true; cfg.PushKeys[0].EncodingAESKey = testAESKey })
	query, body := sealed(t, "wxba5fad812f8e6fb9", `<xml><Event>xpay_goods_deliver_notify</Event><OpenId>o</OpenId><OutTradeNo>order-01</OutTradeNo><Env>0</Env>`+
		`<WeChatPayInfo><PaidTime>soon</PaidTime><TransactionId>t1</TransactionId></WeChatPayInfo><TeamInfo><TeamId>t</TeamId><TeamAction>join</TeamAction></TeamInfo>`+
		`<GoodsInfo><ProductId>p</ProductId><Quantity>1</Quantity></GoodsInfo></xml>`)
	p, err = secure.ParsePush(t.Context(), query, []byte(body))
	require.NoError(t, err)
	require.Equal(t, "t1", p.Delivery.WeChatPay.TransactionID)
	require.Equal(t, &Team{TeamID: "t"}, p.Delivery.Team)
}

func TestRepliesToTheByte(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		sentence string
		push     Push
		err      error
		want     string
	}{
		{"granted, JSON", Push{appID: "a", Delivery: &Delivery{}}, nil, `{"ErrCode":0,"ErrMsg":"Success"}`},
		{"granted, XML", Push{appID: "a", xml: true}, nil, `<xml><ErrCode>0</ErrCode><ErrMsg>Success</ErrMsg></xml>`},
		{"not granted, JSON", Push{appID: "a"}, errNoResult, `{"ErrCode":99999,"ErrMsg":"internal error"}`},
		{"not granted, XML", Push{appID: "a", xml: true}, errNoResult, `<xml><ErrCode>99999</ErrCode><ErrMsg>internal error</ErrMsg></xml>`},
		{"mini program, JSON", Push{appID: "a", flat: true, Delivery: &Delivery{}}, nil, `{"ErrCode":0,"ErrMsg":"success"}`},
		{"mini program, XML", Push{appID: "a", flat: true, xml: true, Refund: &Refund{}}, nil, `success`},
		{"mini program, secure", Push{appID: "a", flat: true, encrypted: true, Delivery: &Delivery{}}, nil, `success`},
		{"another message", Push{appID: "a", flat: true}, nil, `success`},
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
	advice := (&Push{appID: "a", xml: true}).ReplyAdvice(Advice{Info: "<i>", Evidence: "e"})
	require.Equal(t, `<xml><result_code>0</result_code><result_info>&lt;i&gt;</result_info><evidence>e</evidence></xml>`, string(advice.Bytes()))
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
