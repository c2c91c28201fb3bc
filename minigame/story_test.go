package minigame_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/require"
)

// A bag is what a player owns; each payment is granted once.
type bag struct {
	mu       sync.Mutex
	granted  map[string]int // by BillNo
	refunded []string
	fail     int // so many deliveries fail first
}

func (b *bag) handlers() minigame.Handlers {
	b.granted = map[string]int{}
	return minigame.Handlers{
		Deliver: func(_ context.Context, d *minigame.Delivery) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.fail > 0 {
				b.fail--
				return errors.New("the database is down")
			}
			paid, err := d.Midas(600 * midas.Fen)
			if err == nil {
				b.granted[paid.BillNo] = d.Quantity
			}
			return err
		},
		Refund: func(_ context.Context, r *minigame.Refund) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.refunded = append(b.refunded, r.OutTradeNo)
			return nil
		},
	}
}

func TestASaleInEveryModeAndFormat(t *testing.T) {
	t.Parallel()
	for _, program := range []bool{false, true} {
		for _, mode := range []minigametest.Mode{minigametest.Secure, minigametest.Plaintext, minigametest.Compatible} {
			for _, xml := range []bool{false, true} {
				t.Run(fmt.Sprintf("mini program %v, mode %d, XML %v", program, mode, xml), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, minigametest.Config{MiniProgram: program, Mode: mode, XML: xml}, nil)
					var owned bag
					w.wechat.PushToHandler(w.client.PushHandler(owned.handlers()))
					require.NoError(t, w.wechat.Verify(t.Context()))

					order := w.order(t, minigame.Live)
					receipt, err := w.wechat.Pay(t.Context(), "player-1", order, minigametest.Charged(900*midas.Fen))
					require.NoError(t, err)
					require.True(t, receipt.Accepted, receipt.Reason)
					bill := w.wechat.ClientConfig().AppID + "/0/" + order.OutTradeNo
					require.Equal(t, map[string]int{bill: 2}, owned.granted)

					again, err := w.wechat.Repeat(t.Context(), minigame.Live, order.OutTradeNo)
					require.NoError(t, err)
					require.Equal(t, receipt.Body, again.Body, "the same success")
					require.Len(t, owned.granted, 1)

					if program {
						info, err := w.client.QueryOrder(t.Context(), minigame.OrderQuery{OpenID: "player-1", OrderID: order.OutTradeNo})
						require.NoError(t, err)
						require.Equal(t, minigame.OrderDelivered, info.Status)
						require.True(t, info.Paid())
					} else {
						info, err := w.client.QueryOrderInfo(t.Context(), minigame.OrderInfoQuery{Player: w.player, OutTradeNo: order.OutTradeNo})
						require.NoError(t, err)
						require.True(t, info.Paid && info.Delivered)
						require.Equal(t, "sword", info.ProductID)
						require.False(t, info.PaidTime.IsZero())
					}
					receipt, err = w.wechat.Refund(t.Context(), minigame.Live, order.OutTradeNo)
					require.NoError(t, err)
					require.True(t, receipt.Accepted, receipt.Reason)
					require.Equal(t, []string{order.OutTradeNo}, owned.refunded)
				})
			}
		}
	}
}

func TestPushesAreRepeatedOnWeChatsSchedule(t *testing.T) {
	t.Parallel()
	start := time.Unix(1700000000, 0)
	now := start
	w := newWorld(t, minigametest.Config{Now: func() time.Time { return now }}, nil)
	owned := bag{fail: 16}
	w.wechat.PushToHandler(w.client.PushHandler(owned.handlers()))
	receipt, err := w.wechat.Pay(t.Context(), "player-1", w.order(t, minigame.Live))
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
	require.Equal(t, "ErrCode 99999", receipt.Reason)
	var waits []string
	for due, waiting := w.wechat.NextPush(); waiting; due, waiting = w.wechat.NextPush() {
		waits = append(waits, due.Sub(now).String())
		now = due.Add(-time.Nanosecond)
		early, err := w.wechat.PushDue(t.Context())
		require.NoError(t, err)
		require.Empty(t, early)
		now = due
		receipts, err := w.wechat.PushDue(t.Context())
		require.NoError(t, err)
		require.Len(t, receipts, 1)
	}
	require.Equal(t, "15s 15s 30s 3m0s 10m0s 20m0s 30m0s 30m0s 30m0s 1h0m0s 3h0m0s 3h0m0s 3h0m0s 6h0m0s 6h0m0s", strings.Join(waits, " "))
	require.Empty(t, owned.granted, "16 failures, so it was lost: reconcile with QueryOrderInfo")

	owned.fail = 15
	_, err = w.wechat.Pay(t.Context(), "player-1", w.order(t, minigame.Live))
	require.NoError(t, err)
	for due, waiting := w.wechat.NextPush(); waiting; due, waiting = w.wechat.NextPush() {
		now = due
		_, err := w.wechat.PushDue(t.Context())
		require.NoError(t, err)
	}
	require.Len(t, owned.granted, 1, "the sixteenth push of the day was accepted")
}

func TestTheSamePushAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	var owned bag
	w.wechat.PushToHandler(w.client.PushHandler(owned.handlers()))
	order := w.order(t, minigame.Live)
	_, err := w.wechat.Pay(t.Context(), "player-1", order)
	require.NoError(t, err)
	results := make(chan bool, 8)
	for range cap(results) {
		go func() {
			receipt, err := w.wechat.Repeat(t.Context(), minigame.Live, order.OutTradeNo)
			results <- err == nil && receipt.Accepted
		}()
	}
	for range cap(results) {
		require.True(t, <-results)
	}
	require.Len(t, owned.granted, 1)
}

func TestAHandlerWithoutKeysIsAMistake(t *testing.T) {
	t.Parallel()
	client, err := minigame.New(minigame.Config{AppID: "wx1"})
	require.NoError(t, err)
	require.PanicsWithValue(t, "minigame.Config.PushKeys: empty: set the Token and EncodingAESKey of the console", func() {
		client.PushHandler(minigame.Handlers{})
	})
}

// TestAnswersAboutAnotherOrder has a server that answers calls about another order, or of
// the other environment.
func TestAnswersAboutAnotherOrder(t *testing.T) {
	t.Parallel()
	for answer, says := range map[string]string{
		`{"out_trade_no":"other","pay_state":2}`:         "another order",
		`{"order":{"order_id":"order-01","env_type":2}}`: "other environment",
		`{"errcode":0}`: "no order in it",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }))
		cfg := minigame.Config{AppID: "wx1", OfferID: "1", AppKey: "k", BaseURL: server.URL, AccessToken: func(context.Context, string) (string, error) { return "t", nil }}
		cfg.MiniProgram = says != "another order"
		client, err := minigame.New(cfg)
		require.NoError(t, err)
		if cfg.MiniProgram {
			_, err = client.QueryOrder(t.Context(), minigame.OrderQuery{OpenID: "o", OrderID: "order-01"})
		} else {
			_, err = client.QueryOrderInfo(t.Context(), minigame.OrderInfoQuery{Player: minigame.Player{OpenID: "o", SessionKey: "k"}, OutTradeNo: "order-01"})
		}
		require.ErrorContains(t, err, says)
		server.Close()
	}
}

func TestTheSandboxIsGuarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	var owned bag
	w.wechat.PushToHandler(w.client.PushHandler(owned.handlers()))
	receipt, err := w.wechat.Pay(t.Context(), "player-1", w.order(t, minigame.Sandbox))
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
	require.Empty(t, owned.granted)

	receipt, err = w.wechat.Mock(t.Context())
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	require.Empty(t, owned.granted)

	test := newWorld(t, minigametest.Config{}, func(cfg *minigame.Config) { cfg.DeliverSandbox = true })
	test.wechat.PushToHandler(test.client.PushHandler(owned.handlers()))
	order := test.order(t, minigame.Sandbox)
	receipt, err = test.wechat.Pay(t.Context(), "player-1", order)
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	require.Equal(t, map[string]int{test.wechat.ClientConfig().AppID + "/1/" + order.OutTradeNo: 2}, owned.granted)
}

func TestShopOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	var source minigame.Source
	w.wechat.Publish("sword", 600*midas.Fen)
	w.wechat.PushToHandler(w.client.PushHandler(minigame.Handlers{Deliver: func(_ context.Context, d *minigame.Delivery) error {
		source = d.Source
		return nil
	}}))
	receipt, err := w.wechat.BuyInShop(t.Context(), "player-1", "sword", 3)
	require.NoError(t, err)
	require.True(t, receipt.Accepted)
	require.Equal(t, minigame.FromShop, source)
}

// TestPlaintextOfMiniProgramsIsConfirmed posts payments and refunds that nobody made, under
// the signature of a URL that was seen once.
func TestPlaintextOfMiniProgramsIsConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{MiniProgram: true, Mode: minigametest.Plaintext}, nil)
	var owned bag
	h := owned.handlers()
	coins := 0
	h.Coins = func(context.Context, *minigame.CoinPayment) error { coins++; return nil }
	w.wechat.PushToHandler(w.client.PushHandler(h))
	forged := `{"MsgType":"event","Event":"%s","OpenId":"player-1","OutTradeNo":"%s","MchOrderId":"%[2]s","WxRefundId":"r","Env":0,"GoodsInfo":{"ProductId":"sword","Quantity":99,"OrigPrice":59400}}`
	unpaid := w.order(t, minigame.Live)
	for _, event := range []string{"xpay_goods_deliver_notify", "xpay_refund_notify", "xpay_coin_pay_notify"} {
		receipt, err := w.wechat.Push(t.Context(), fmt.Sprintf(forged, event, unpaid.OutTradeNo))
		require.NoError(t, err)
		require.False(t, receipt.Accepted, event)
	}
	receipt, err := w.wechat.Pay(t.Context(), "player-1", unpaid)
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	receipt, err = w.wechat.Push(t.Context(), fmt.Sprintf(forged, "xpay_refund_notify", unpaid.OutTradeNo))
	require.NoError(t, err)
	require.False(t, receipt.Accepted, "it was not refunded")
	require.Empty(t, owned.refunded)
	require.Zero(t, coins)
	require.Len(t, owned.granted, 1)

	cfg := w.wechat.ClientConfig()
	cfg.TrustPlaintext = true
	trusting, err := minigame.New(cfg)
	require.NoError(t, err)
	w.wechat.PushToHandler(trusting.PushHandler(h))
	receipt, err = w.wechat.Push(t.Context(), fmt.Sprintf(forged, "xpay_goods_deliver_notify", "never-opened"))
	require.NoError(t, err)
	require.True(t, receipt.Accepted, "what the explicit option does")
}

func TestRefundsThatTheGameStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{MiniProgram: true}, nil)
	var owned bag
	w.wechat.PushToHandler(w.client.PushHandler(owned.handlers()))
	order := w.order(t, minigame.Live)
	_, err := w.wechat.Pay(t.Context(), "player-1", order)
	require.NoError(t, err)
	query := minigame.OrderQuery{OpenID: "player-1", OrderID: order.OutTradeNo}
	require.NoError(t, w.client.NotifyProvideGoods(t.Context(), query))
	info, err := w.client.QueryOrder(t.Context(), query)
	require.NoError(t, err)
	require.Equal(t, 1200*midas.Fen, info.LeftFee)
	refund := minigame.RefundRequest{OrderQuery: query, RefundOrderID: "refund-01", LeftFee: info.LeftFee, RefundFee: 600 * midas.Fen, Reason: 1, From: 2}
	w.wechat.Fail("/xpay/refund_order", minigametest.LoseAnswer)
	started, err := w.client.RefundOrder(t.Context(), refund)
	require.NoError(t, err)
	require.True(t, started.Repeated)
	refund.RefundOrderID = "refund-02"
	_, err = w.client.RefundOrder(t.Context(), refund)
	require.ErrorContains(t, err, "left_fee")
	info, err = w.client.QueryOrder(t.Context(), minigame.OrderQuery{OpenID: "player-1", WxOrderID: info.WxOrderID})
	require.NoError(t, err)
	require.True(t, info.Refunded())
	_, err = w.client.QueryOrder(t.Context(), minigame.OrderQuery{OpenID: "player-1", OrderID: "other-01"})
	require.Error(t, err)

	url, err := w.client.DownloadBill(t.Context(), minigame.Live, time.Unix(1700000000, 0), time.Unix(1700000000, 0))
	require.NoError(t, err)
	require.NotEmpty(t, url)
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	good := minigame.Config{AppID: "wx1", AppKey: "k"}
	for field, change := range map[string]func(*minigame.Config){
		"AppID":                      func(c *minigame.Config) { c.AppID = "" },
		"OfferID":                    func(c *minigame.Config) { c.OfferID = "1450000000\n" },
		"AppKey":                     func(c *minigame.Config) { c.AppKey = "key&" },
		"SandboxAppKey":              func(c *minigame.Config) { c.SandboxAppKey = c.AppKey },
		"Secret":                     func(c *minigame.Config) { c.Secret = `"quoted"` },
		"PushKeys[0].Token":          func(c *minigame.Config) { c.PushKeys = []minigame.PushKey{{}} },
		"PushKeys[0].EncodingAESKey": func(c *minigame.Config) { c.PushKeys = []minigame.PushKey{{Token: "t", EncodingAESKey: "short"}} },
		"BaseURL":                    func(c *minigame.Config) { c.BaseURL = "api.weixin.qq.com" },
		"MaxAttach":                  func(c *minigame.Config) { c.MaxAttach = -1 },
		"MaxRetries":                 func(c *minigame.Config) { c.MaxRetries = 11 },
		"RetryDelay":                 func(c *minigame.Config) { c.RetryDelay = -1 },
		"DeliverTimeout":             func(c *minigame.Config) { c.DeliverTimeout = 3 * time.Second },
		"AnswerTimeout":              func(c *minigame.Config) { c.AnswerTimeout = 3 * time.Second },
		"MaxDeliveries":              func(c *minigame.Config) { c.MaxDeliveries = -1 },
	} {
		t.Run(field, func(t *testing.T) {
			cfg := good
			change(&cfg)
			_, err := minigame.New(cfg)
			var config *minigame.ConfigError
			require.ErrorAs(t, err, &config)
			require.Equal(t, field, config.Field)
		})
	}
	_, err := minigame.New(minigame.Config{MaxAttach: -1, MaxDeliveries: -1})
	require.ErrorContains(t, err, "AppID")
	require.ErrorContains(t, err, "MaxDeliveries", "all at once")
}

func TestComplaintsAndInquiriesOfMiniPrograms(t *testing.T) {
	t.Parallel()
	const inquiry = `{"Event":"xpay_subscribe_ios_refund_query_notify","MsgType":"event","bundleid":"com.tencent.xin","channel_bill":"b","pay_order_id":"2","provide_status":"1"}`
	const complaint = `{"Event":"xpay_complaint_notify","MsgType":"event","OpenId":"player-1","MchOrderId":"order-01","RequestId":"r1"}`
	w := newWorld(t, minigametest.Config{MiniProgram: true, Mode: minigametest.Plaintext}, func(cfg *minigame.Config) { cfg.TrustPlaintext = true })
	push := func(h minigame.Handlers, message string) string {
		w.wechat.PushToHandler(w.client.PushHandler(h))
		receipt, err := w.wechat.Push(t.Context(), message)
		require.NoError(t, err)
		return string(receipt.Body)
	}
	require.Equal(t, `success`, push(minigame.Handlers{}, inquiry), "acknowledged without advice")
	require.Equal(t, `{"ErrCode":0,"ErrMsg":"success"}`, push(minigame.Handlers{}, complaint))
	require.Equal(t, `{"result_code":0,"result_info":"fine","evidence":"none"}`, push(minigame.Handlers{
		RefundInquiry: func(_ context.Context, r *minigame.RefundInquiry) (minigame.Advice, error) {
			if r.PayOrderID != "2" {
				return minigame.Advice{}, errors.New("another one")
			}
			return minigame.Advice{Info: "fine", Evidence: "none"}, nil
		},
	}, inquiry))
	require.Equal(t, `{"ErrCode":99999,"ErrMsg":"internal error"}`, push(minigame.Handlers{
		RefundInquiry: func(context.Context, *minigame.RefundInquiry) (minigame.Advice, error) {
			return minigame.Advice{}, errors.New("no idea")
		},
	}, inquiry))
	var complained string
	require.Equal(t, `{"ErrCode":0,"ErrMsg":"success"}`, push(minigame.Handlers{
		Complaint: func(_ context.Context, c *minigame.Complaint) error { complained = c.OutTradeNo; return nil },
	}, complaint))
	require.Equal(t, "order-01", complained)

	// Otherwise anybody who has seen a URL could ask for the game's evidence.
	cfg := w.wechat.ClientConfig()
	var err error
	w.client, err = minigame.New(cfg)
	require.NoError(t, err)
	var others []string
	h := minigame.Handlers{
		RefundInquiry: func(context.Context, *minigame.RefundInquiry) (minigame.Advice, error) {
			return minigame.Advice{Evidence: "what the player did"}, nil
		},
		Complaint: func(context.Context, *minigame.Complaint) error { return errors.New("not believed") },
		Other:     func(_ context.Context, p *minigame.Push) error { others = append(others, p.Event); return nil },
	}
	for _, message := range []string{inquiry, complaint, strings.Replace(complaint, `"RequestId"`, `"RetryTimes":"x","RequestId"`, 1)} {
		require.NotContains(t, push(h, message), "what the player did")
	}
	require.Equal(t, []string{"xpay_subscribe_ios_refund_query_notify", "xpay_complaint_notify", "xpay_complaint_notify"}, others)
}
