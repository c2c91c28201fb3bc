package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/report"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/require"
)

// push posts a message as WeChat does.
func (s *stage) push(message string) {
	s.Helper()
	_, err := s.wechat.Push(s.Context(), message)
	require.NoError(s, err)
	<-s.recorded
}

// signed returns the message of a mini game's event.
func signed(event, payload, key string, mock bool) string {
	mini, _ := json.Marshal(map[string]any{"Payload": payload, "PayEventSig": minigame.PayEventSig(event, payload, key), "IsMock": mock})
	return `{"ToUserName":"gh_0","FromUserName":"oFROMUSERNAME","CreateTime":1583202606,"MsgType":"event","Event":"` + event + `","MiniGame":` + string(mini) + `}`
}

const (
	live, sandboxKey = "live-app-key", "sandbox-app-key"
	gameEvent        = "minigame_game_pay_goods_deliver_notify"
)

// goods is what a delivery is about.
func goods(number string, quantity, orig, actual int, more ...string) string {
	return fmt.Sprintf(`{"OpenId":"oPLAYER1234","Env":0,"OutTradeNo":%q,"GoodsInfo":{"ProductId":"sword","Quantity":%d,"ZoneId":"1","OrigPrice":%d,"ActualPrice":%d,"Attach":"x","OrderSource":1%s}}`,
		number, quantity, orig, actual, strings.Join(more, ""))
}

func flat(event, fields string) string {
	return `{"ToUserName":"gh_0","FromUserName":"oFROMUSERNAME","CreateTime":1583202606,"MsgType":"event","Event":"` + event + `",` + fields + `}`
}

func xpayGoods(number string, env int, attach string) string {
	return flat("xpay_goods_deliver_notify", fmt.Sprintf(`"OpenId":"oPLAYER1234","OutTradeNo":%q,"Env":%d,"GoodsInfo":{"ProductId":"sword","Quantity":1,"OrigPrice":6,"ActualPrice":6,"Attach":%q}`, number, env, attach))
}

// pushes is a play of pushes alone.
func pushes(cfg minigametest.Config, want map[string]string, messages ...string) play {
	return play{mini: &cfg, want: want, script: func(s *stage) {
		for _, m := range messages {
			s.push(m)
			s.wait(time.Minute)
		}
	}}
}

// twice is a play in which a delivery is pushed, answered, and pushed again.
func twice(cfg minigametest.Config, message, answered string, want map[string]string) play {
	return play{mini: &cfg, want: want, script: func(s *stage) {
		s.answers = []answer{{status: 200, body: answered}}
		s.push(message)
		s.wait(2 * time.Second)
		s.push(message)
	}}
}

// taken is a play in which one delivery is answered success and another fails and is pushed again.
func taken(cfg minigametest.Config, success, failed string, quiet time.Duration, want map[string]string) play {
	return play{mini: &cfg, want: want, script: func(s *stage) {
		s.answers = []answer{{status: 200, body: "success"}, {status: 200, body: `{"ErrCode":99999,"ErrMsg":"internal error"}`}, {status: 200, body: `{"ErrCode":0,"ErrMsg":"success"}`}}
		s.push(success)
		s.push(failed)
		s.wait(15 * time.Second)
		s.push(failed)
		s.wait(quiet)
		s.push(failed)
	}}
}

// asked is a play of a call, and WeChat's answer.
func asked(program bool, path, query, body, answered string, want map[string]string) play {
	return play{mini: &minigametest.Config{MiniProgram: program}, want: want, script: func(s *stage) {
		s.wechat.NextCalls(path, minigametest.Fault{Body: answered})
		s.send(oneRequest, "POST", s.orders+path+"?access_token=ACCESSTOKEN1"+query, body, "Content-Type: application/json")
	}}
}

var (
	secure, plaintext = minigametest.Config{}, minigametest.Config{Mode: minigametest.Plaintext}
	program           = minigametest.Config{MiniProgram: true}
	asPrinted         = map[string]string{"mini-sig": "yes, under -key number 1; Env is 0", "mini-format": "JSON"}
	printed           = map[string]string{"mini-sig": "yes, under -key number 1; Env is 0"}
)

// WeChat in every variant.
var wechatPlays = map[string]play{
	"a delivery, encrypted": pushes(secure, asPrinted, signed(gameEvent, goods("n1", 1, 6, 6), live, false)),
	"a delivery in clear":   pushes(plaintext, asPrinted, signed(gameEvent, goods("n1", 1, 6, 6), live, false)),
	"a delivery in compatible mode": pushes(minigametest.Config{Mode: minigametest.Compatible}, asPrinted,
		signed(gameEvent, goods("n1", 1, 6, 6), live, false)),
	"a sandbox delivery": pushes(secure, with(asPrinted, "mini-sig", "yes, under -key number 2; Env is 1"),
		signed(gameEvent, strings.Replace(goods("n1", 1, 6, 6), `"Env":0`, `"Env":1`, 1), sandboxKey, false)),
	"a delivery under another key": pushes(secure, map[string]string{"mini-format": "JSON"}, signed(gameEvent, goods("n1", 1, 6, 6), "other-key", false)),
	"a forgery in clear":           pushes(plaintext, map[string]string{}, signed(gameEvent, goods("n1", 1, 6, 6), "other-key", false)),
	"a real purchase in XML": {mini: &minigametest.Config{XML: true}, want: with(asPrinted, "mini-format", "XML"), script: func(s *stage) {
		cfg := s.wechat.GameConfig()
		cfg.BaseURL, cfg.DeliverSandbox = s.orders, true
		game, err := minigame.NewGame(cfg)
		require.NoError(s, err)
		s.wechat.Publish("sword", 600*midas.Fen)
		session, err := game.Code2Session(s.Context(), s.wechat.Login("oPLAYER1234"))
		require.NoError(s, err)
		order, err := game.NewOrder(minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 600 * midas.Fen, OutTradeNo: "number-1"})
		require.NoError(s, err)
		_, err = s.wechat.Pay(s.Context(), "oPLAYER1234", order)
		require.NoError(s, err)
	}},

	"a mock push that is signed":         pushes(secure, map[string]string{"mini-mock": "yes, under -key number 2; Env is 0"}, signed(gameEvent, goods("n1", 1, 6, 6), sandboxKey, true)),
	"a mock push under no key":           pushes(secure, map[string]string{}, signed(gameEvent, goods("n1", 1, 6, 6), "other-key", true)),
	"a mock push without a signature":    pushes(secure, map[string]string{"mini-mock": "no: its PayEventSig is empty"}, flat(gameEvent, `"MiniGame":{"Payload":"{}","PayEventSig":"","IsMock":true}`)),
	"a mock push in clear and unsigned":  pushes(plaintext, map[string]string{}, flat(gameEvent, `"MiniGame":{"Payload":"{}","PayEventSig":"","IsMock":true}`)),
	"prices of one piece":                pushes(secure, with(asPrinted, "mini-orig-price", "of one piece", "mini-actual-price", "of one piece"), signed(gameEvent, goods("n1", 1, 6, 6), live, false), signed(gameEvent, goods("n2", 3, 6, 6), live, false)),
	"prices of all":                      pushes(secure, with(asPrinted, "mini-orig-price", "of all", "mini-actual-price", "of all"), signed(gameEvent, goods("n1", 1, 6, 6), live, false), signed(gameEvent, goods("n2", 3, 18, 18), live, false)),
	"a coupon hides what ActualPrice is": pushes(secure, with(asPrinted, "mini-orig-price", "of all"), signed(gameEvent, goods("n1", 1, 6, 6), live, false), signed(gameEvent, goods("n2", 3, 18, 11), live, false)),
	"the same quantity twice":            pushes(secure, asPrinted, signed(gameEvent, goods("n1", 2, 6, 6), live, false), signed(gameEvent, goods("n2", 2, 6, 6), live, false)),
	"the shop, as in tables":             pushes(secure, with(asPrinted, "mini-shop-event", "minigame_h5_goods_deliver_notify"), signed("minigame_h5_goods_deliver_notify", goods("n1", 1, 6, 6), live, false)),
	"the shop, as in samples":            pushes(secure, with(asPrinted, "mini-shop-event", "minigame_deliver_h5_pay_products"), signed("minigame_deliver_h5_pay_products", goods("n1", 1, 6, 6), live, false)),
	"a test order of the shop": pushes(secure, with(asPrinted, "mini-shop-test", "yes"),
		signed(gameEvent, strings.Replace(goods("n1", 1, 6, 6), `"OrderSource":1`, `"OrderSource":3`, 1), live, false)),
	"a new field": pushes(secure, with(asPrinted, "mini-names", "Channel"), signed(gameEvent, goods("n1", 1, 6, 6, `,"Channel":"ios"`), live, false)),
	"coins with ActualPrice": pushes(secure, with(printed, "mini-coin-amount", "ActualPrice"),
		signed("minigame_coin_deliver_completed", `{"OpenId":"oPLAYER1234","Env":0,"OutTradeNo":"n1","CoinInfo":{"ZoneId":"1","ActualPrice":6}}`, live, false)),
	"coins with TotalPrice": pushes(secure, with(printed, "mini-coin-amount", "TotalPrice"),
		signed("minigame_coin_deliver_completed", `{"OpenId":"oPLAYER1234","Env":0,"OutTradeNo":"n1","CoinInfo":{"ZoneId":"1","TotalPrice":6}}`, live, false)),
	"a refund with its order": pushes(secure, with(printed, "mini-refund-number", "yes"),
		signed("minigame_pay_refund_succ_notify", `{"RefundId":"r","RefundAmount":6,"RefundSource":2,"Env":0,"OutTradeNo":"n1"}`, live, false)),
	"a refund without its order": pushes(secure, with(printed, "mini-refund-number", "no"),
		signed("minigame_pay_refund_succ_notify", `{"RefundId":"r","RefundAmount":6,"RefundSource":2,"Env":0}`, live, false)),
	"one URL for everything": pushes(secure, with(asPrinted, "mini-refund-number", "yes", "mini-url", "yes: a delivery and minigame_pay_refund_succ_notify"),
		signed(gameEvent, goods("n1", 1, 6, 6), live, false),
		signed("minigame_pay_refund_succ_notify", `{"RefundId":"r","RefundAmount":6,"RefundSource":2,"Env":0,"OutTradeNo":"n1"}`, live, false)),
	"two URLs": {mini: &secure, want: with(asPrinted, "mini-url", "no: a delivery and minigame_deliver_goods came to two"), script: func(s *stage) {
		s.push(signed(gameEvent, goods("n1", 1, 6, 6), live, false))
		s.wechat.PushTo(s.callbacks + "/other")
		s.push(flat("minigame_deliver_goods", `"MiniGame":{"OrderId":"g","IsPreview":0,"ToUserOpenid":"oPLAYER1234","Zone":2001,"GiftId":"x","GoodsList":[{"Id":"a","Num":1}]}`))
	}},
	"a repeat with a timestamp of its own": twice(secure, signed(gameEvent, goods("n1", 1, 6, 6), live, false), `{"ErrCode":1}`, with(asPrinted, "mini-timestamp", "yes")),
	"a repeat with the first timestamp": {mini: &plaintext, want: with(asPrinted, "mini-timestamp", "no: the first one's"), script: func(s *stage) {
		for range 2 {
			s.send(oneRequest, "POST", s.callbacks+"/push?signature=x&timestamp=1700000000&nonce=77", signed(gameEvent, goods("n1", 1, 6, 6), live, false))
			s.wait(time.Minute)
		}
	}},
	"a replay is no repeat": {mini: &plaintext, want: asPrinted, script: func(s *stage) {
		for i, agent := range []string{"WeChat", "curl"} {
			s.send(oneRequest, "POST", s.callbacks+fmt.Sprintf("/push?signature=x&timestamp=170000000%d&nonce=77", i), signed(gameEvent, goods("n1", 1, 6, 6), live, false), "User-Agent: "+agent)
			s.wait(time.Minute)
		}
	}},
	"the command's own push": {mini: &plaintext, want: map[string]string{}, script: func(s *stage) {
		s.send(oneRequest, "POST", s.callbacks+"/push?signature=x&timestamp=1700000000&nonce=77", signed(gameEvent, goods("n1", 1, 6, 6), live, false), "User-Agent: "+report.OwnAgent)
	}},
	"success is no answer": twice(secure, signed(gameEvent, goods("n1", 1, 6, 6), live, false), "success", with(asPrinted, "mini-timestamp", "yes", "mini-success", "no: pushed again after 2s")),
	"success is taken": taken(secure, signed(gameEvent, goods("n1", 1, 6, 6), live, false), signed(gameEvent, goods("n2", 1, 6, 6), live, false), time.Hour,
		with(asPrinted, "mini-timestamp", "yes", "mini-success", "yes: not pushed again for 1h0m15s, where a failed one was after 15s")),
	"it is too early to say": taken(secure, signed(gameEvent, goods("n1", 1, 6, 6), live, false), signed(gameEvent, goods("n2", 1, 6, 6), live, false), time.Minute, with(asPrinted, "mini-timestamp", "yes")),
	"success, and nothing else is known": {mini: &secure, want: asPrinted, script: func(s *stage) {
		s.answers = []answer{{status: 200, body: "success"}}
		s.push(signed(gameEvent, goods("n1", 1, 6, 6), live, false))
		s.wait(time.Hour)
		s.push(signed(gameEvent, goods("n2", 1, 6, 6), live, false))
	}},

	"user_ip is required": asked(false, "/wxa/game/getbalance", "&pay_sig=x&signature=y", `{"openid":"oPLAYER1234","env":0}`, `{"errcode":90018,"errmsg":"[user_ip] user_ip is invalid"}`,
		map[string]string{"mini-user-ip": "yes: refused without it"}),
	"user_ip is not required": asked(false, "/wxa/game/getbalance", "&pay_sig=x&signature=y", `{"openid":"oPLAYER1234","env":0}`, `{"errcode":0,"balance":1}`,
		map[string]string{"mini-user-ip": "no: done without it"}),
	"an answer without errcode": asked(false, "/wxa/game/getbalance", "", `{"openid":"oPLAYER1234","env":0}`, `{"message":"another server"}`, map[string]string{}),
	"user_ip is there":          asked(false, "/wxa/game/getbalance", "", `{"openid":"oPLAYER1234","user_ip":"203.0.113.7"}`, `{"errcode":0}`, map[string]string{}),
	"another refusal":           asked(false, "/wxa/game/getbalance", "", `{"openid":"oPLAYER1234"}`, `{"errcode":90011,"errmsg":"pay_sig error"}`, map[string]string{}),
	"a code of cancelpay": asked(false, "/wxa/game/cancelpay", "", `{"openid":"oPLAYER1234","user_ip":"203.0.113.7"}`, `{"errcode":90020,"errmsg":"x"}`,
		map[string]string{"mini-return-codes": "90020"}),

	"a program's delivery": pushes(program, map[string]string{}, xpayGoods("n1", 0, "x")),
	"a program's delivery in clear": {mini: &minigametest.Config{MiniProgram: true}, want: map[string]string{}, script: func(s *stage) {
		s.send(oneRequest, "POST", s.callbacks+"/push?signature=x&timestamp=1700000000&nonce=77", xpayGoods("n1", 1, ""))
	}},
	"a program's sandbox payment": pushes(program, map[string]string{"xpay-sandbox": "yes"}, xpayGoods("n1", 1, "x")),
	"an empty attach":             pushes(program, map[string]string{"xpay-attach": "yes"}, xpayGoods("n1", 0, "")),
	"a program's repeat":          twice(program, xpayGoods("n1", 0, "x"), `{"ErrCode":1}`, map[string]string{"mini-timestamp": "yes", "xpay-repeat": "yes; after the one before it began: 2s"}),
	"success in clear is no answer": twice(program, xpayGoods("n1", 0, "x"), "success",
		map[string]string{"mini-timestamp": "yes", "xpay-repeat": "yes; after the one before it began: 2s", "xpay-success": "no: pushed again after 2s"}),
	"success in clear is taken": taken(program, xpayGoods("n1", 0, "x"), xpayGoods("n2", 0, "x"), time.Hour,
		map[string]string{"mini-timestamp": "yes", "xpay-repeat": "yes; after the one before it began: 15s, 1h0m0s", "xpay-success": "yes: not pushed again for 1h0m15s, where a failed one was after 15s"}),
	"an Apple subscription without Env": pushes(program, map[string]string{"xpay-apple-env": "no"},
		flat("xpay_goods_deliver_notify", `"OpenId":"oPLAYER1234","OutTradeNo":"n1","AppleSubscriptionInfo":{"OriginalTransactionId":"1"},"GoodsInfo":{"ProductId":"month","Attach":""}`)),
	"an Apple subscription with Env": pushes(program, map[string]string{"xpay-apple-env": "yes"},
		flat("xpay_goods_deliver_notify", `"OpenId":"oPLAYER1234","Env":0,"OutTradeNo":"n1","AppleSubscriptionInfo":{"OriginalTransactionId":"1"},"GoodsInfo":{"ProductId":"month","Attach":""}`)),
	"tokens as an item": pushes(program, map[string]string{"xpay-tokens": "yes"},
		flat("xpay_goods_deliver_notify", `"OpenId":"oPLAYER1234","Env":0,"OutTradeNo":"n1","CoinInfo":{"Quantity":10,"OrigPrice":100,"ActualPrice":100,"Attach":"x"}`)),
	"present_currency with pay_sig": asked(true, "/xpay/present_currency", "&pay_sig=x", `{"openid":"oPLAYER1234"}`, `{"errcode":0}`,
		map[string]string{"xpay-pay-sig": "present_currency is done with it"}),
	"notify_provide_goods without": asked(true, "/xpay/notify_provide_goods", "", `{"order_id":"n1","env":0}`, `{"errcode":0}`,
		map[string]string{"xpay-pay-sig": "notify_provide_goods is done without it"}),
	"present_currency is answered without errcode": asked(true, "/xpay/present_currency", "&pay_sig=x", `{"openid":"oPLAYER1234"}`, `{"message":"another server"}`, map[string]string{}),
	"present_currency is refused":                  asked(true, "/xpay/present_currency", "&pay_sig=x", `{"openid":"oPLAYER1234"}`, `{"errcode":268490003,"errmsg":"x"}`, map[string]string{}),
	"a part is refunded": asked(true, "/xpay/query_order", "&pay_sig=x", `{"openid":"oPLAYER1234","order_id":"n1"}`, `{"errcode":0,"order":{"status":4,"refund_fee":2,"left_fee":4,"paid_fee":6}}`,
		map[string]string{"xpay-part-refund": "4"}),
	"all is refunded": asked(true, "/xpay/query_order", "&pay_sig=x", `{"openid":"oPLAYER1234","order_id":"n1"}`, `{"errcode":0,"order":{"status":5,"refund_fee":6,"left_fee":0,"paid_fee":6}}`, map[string]string{}),
}

func TestTheSheetNamesWhatWeChatDoes(t *testing.T) {
	t.Parallel()
	for name, p := range wechatPlays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recording := p.perform(t)
			require.Equal(t, p.want, decided(t, recording), recording)
			decidesNothingWithoutProof(t, recording)
			for _, secret := range []string{"oPLAYER1234", "oFROMUSERNAME", "ACCESSTOKEN1", live, sandboxKey} {
				require.NotContains(t, recording, secret)
			}
		})
	}
}

func TestTheSheetOfWeChatHoldsNoSecretThatTheRecordingHolds(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a delivery, encrypted", "a delivery in clear", "a real purchase in XML", "success in clear is taken", "a part is refunded"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := wechatPlays[name]
			p.keep = true
			recording := p.perform(t)
			require.Equal(t, p.want, decided(t, recording), recording)
			holdsNoSecret(t, recording)
		})
	}
}

// A push whose fields cannot be read decides nothing, not even by its signature.
func TestAPushThatCannotBeReadDecidesNothing(t *testing.T) {
	t.Parallel()
	recording := wechatPlays["a delivery, encrypted"].perform(t)
	require.Empty(t, decided(t, edited(t, recording, func(e map[string]any) {
		e["verdict"].(map[string]any)["message"] = "{"
	})))
}

// Each point is decided by a recording above, unless none can, and left open by others.
func TestEachPointIsDecidedBySomeRecordingsAlone(t *testing.T) {
	t.Parallel()
	for _, p := range report.Points {
		yes, no := 0, 0
		for _, plays := range []map[string]play{midasPlays, wechatPlays} {
			for _, play := range plays {
				if play.want[p.ID] != "" {
					yes++
				} else {
					no++
				}
			}
		}
		require.Equal(t, p.ID != "token-life", yes > 0, p.ID)
		require.Positive(t, no, p.ID)
	}
}
