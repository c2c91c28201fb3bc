package minigame_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
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

func (b *bag) handlers() minigame.GameHandlers {
	b.granted = map[string]int{}
	return minigame.GameHandlers{
		Deliver: func(_ context.Context, d *minigame.Delivery) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.fail > 0 {
				b.fail--
				return errors.New("the database is down")
			}
			if !d.PricedAt(600 * midas.Fen) {
				return errors.New("another price")
			}
			b.granted[d.BillNo()] = d.Quantity
			return nil
		},
		Refund: func(_ context.Context, r *minigame.RefundPush) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.refunded = append(b.refunded, r.OutTradeNo)
			return nil
		},
	}
}

// handler is the push handler of a bag's product.
func (w *world) handler(b *bag) http.Handler {
	h := b.handlers()
	if w.program != nil {
		return w.program.PushHandler(minigame.ProgramHandlers{Deliver: h.Deliver, Refund: h.Refund})
	}
	return w.game.PushHandler(h)
}

func TestASaleInEveryModeAndFormat(t *testing.T) {
	t.Parallel()
	for _, program := range []bool{false, true} {
		for _, mode := range []minigametest.Mode{minigametest.Secure, minigametest.Plaintext, minigametest.Compatible} {
			for _, xml := range []bool{false, true} {
				if program && mode == minigametest.Plaintext {
					continue // which NewProgram refuses
				}
				t.Run(fmt.Sprintf("mini program %v, mode %d, XML %v", program, mode, xml), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, minigametest.Config{MiniProgram: program, Mode: mode, XML: xml}, nil)
					var owned bag
					w.wechat.PushToHandler(w.handler(&owned), "/push")
					require.NoError(t, w.wechat.Verify(t.Context()))

					order := w.order(t, minigame.Live)
					receipt, err := w.wechat.Pay(t.Context(), "player-1", order, minigametest.Charged(900*midas.Fen))
					require.NoError(t, err)
					require.True(t, receipt.Accepted, receipt.Reason)
					bill := minigame.BillNo(w.wechat.GameConfig().AppID, minigame.Live, order.OutTradeNo)
					require.Equal(t, map[string]int{bill: 2}, owned.granted)

					again, err := w.wechat.Repeat(t.Context(), minigame.Live, order.OutTradeNo)
					require.NoError(t, err)
					require.Equal(t, receipt.Body, again.Body, "the same success")
					require.Len(t, owned.granted, 1)

					if program {
						info, err := w.program.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "player-1", OrderID: order.OutTradeNo})
						require.NoError(t, err)
						require.Equal(t, minigame.OrderDelivered, info.Status)
						require.True(t, info.Paid())
					} else {
						info, err := w.game.QueryOrder(t.Context(), minigame.GameOrderQuery{Player: w.player, OutTradeNo: order.OutTradeNo})
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
	w.wechat.PushToHandler(w.handler(&owned), "/push")
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
	w.wechat.PushToHandler(w.handler(&owned), "/push")
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
	game, err := minigame.NewGame(minigame.GameConfig{AppID: "wx1"})
	require.NoError(t, err)
	require.PanicsWithValue(t, "minigame: configuration: PushKeys: empty: set the Token and EncodingAESKey of the console", func() {
		game.PushHandler(minigame.GameHandlers{})
	})
}

// TestAnswersAboutAnotherOrder has a server that answers calls about another order, or of
// the other environment.
func TestAnswersAboutAnotherOrder(t *testing.T) {
	t.Parallel()
	for answer, says := range map[string]string{
		`{"out_trade_no":"other","pay_state":2}`:         "another order",
		`{"order":{"order_id":"order-01","env_type":2}}`: "other environment",
		`{"order":{"order_id":"order-02","status":2}}`:   "it is about another order",
		`{"errcode":0}`: "no order in it",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }))
		token := func(context.Context, string) (string, error) { return "t", nil }
		game, err := minigame.NewGame(minigame.GameConfig{AppID: "wx1", OfferID: "1", AppKey: "k", BaseURL: server.URL, AccessToken: token})
		require.NoError(t, err)
		program, err := minigame.NewProgram(minigame.ProgramConfig{AppID: "wx1", OfferID: "1", AppKey: "k", BaseURL: server.URL, AccessToken: token})
		require.NoError(t, err)
		if says == "another order" {
			_, err = game.QueryOrder(t.Context(), minigame.GameOrderQuery{Player: minigame.CallPlayer{OpenID: "o", SessionKey: "k"}, OutTradeNo: "order-01"})
		} else {
			_, err = program.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "o", OrderID: "order-01"})
		}
		require.ErrorContains(t, err, says)
		server.Close()
	}
}

func TestTheSandboxIsGuarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	var owned bag
	w.wechat.PushToHandler(w.handler(&owned), "/push")
	receipt, err := w.wechat.Pay(t.Context(), "player-1", w.order(t, minigame.Sandbox))
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
	require.Empty(t, owned.granted)

	receipt, err = w.wechat.Mock(t.Context())
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	require.Empty(t, owned.granted)

	test := newWorld(t, minigametest.Config{}, func(cfg *minigame.GameConfig) { cfg.DeliverSandbox = true })
	test.wechat.PushToHandler(test.handler(&owned), "/push")
	order := test.order(t, minigame.Sandbox)
	receipt, err = test.wechat.Pay(t.Context(), "player-1", order)
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	require.Equal(t, map[string]int{test.wechat.GameConfig().AppID + "/1/" + order.OutTradeNo: 2}, owned.granted)
}

func TestShopOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	var source minigame.Source
	w.wechat.Publish("sword", 600*midas.Fen)
	w.wechat.PushToHandler(w.game.PushHandler(minigame.GameHandlers{Deliver: func(_ context.Context, d *minigame.Delivery) error {
		source = d.Source
		return nil
	}}), "/push")
	receipt, err := w.wechat.BuyInShop(t.Context(), "player-1", "sword", 3)
	require.NoError(t, err)
	require.True(t, receipt.Accepted)
	require.Equal(t, minigame.FromShop, source)
}

func TestRefundsThatTheGameStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{MiniProgram: true}, nil)
	var owned bag
	w.wechat.PushToHandler(w.handler(&owned), "/push")
	order := w.order(t, minigame.Live)
	_, err := w.wechat.Pay(t.Context(), "player-1", order)
	require.NoError(t, err)
	query := minigame.ProgramOrderQuery{OpenID: "player-1", OrderID: order.OutTradeNo}
	require.NoError(t, w.program.NotifyDelivered(t.Context(), query))
	info, err := w.program.QueryOrder(t.Context(), query)
	require.NoError(t, err)
	require.Equal(t, 1200*midas.Fen, info.LeftFee)
	refund := minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: "refund-01", LeftFee: info.LeftFee, RefundFee: 600 * midas.Fen, Reason: 1, From: 2}
	w.wechat.NextCalls("/xpay/refund_order", minigametest.Fault{Cut: true})
	started, err := w.program.RefundOrder(t.Context(), refund)
	require.NoError(t, err)
	require.True(t, started.Repeated)
	refund.RefundOrderID = "refund-02"
	_, err = w.program.RefundOrder(t.Context(), refund)
	require.ErrorContains(t, err, "left_fee")
	info, err = w.program.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "player-1", WxOrderID: info.WxOrderID})
	require.NoError(t, err)
	require.True(t, info.Refunded())
	_, err = w.program.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "player-1", OrderID: "other-01"})
	require.Error(t, err)

}

// What is downloaded is handed on as WeChat made it.
func TestDownloads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{MiniProgram: true}, nil)
	owned := bag{fail: 1}
	w.wechat.PushToHandler(w.handler(&owned), "/push")
	order := w.order(t, minigame.Live)
	_, err := w.wechat.Pay(t.Context(), "player-1", order)
	require.NoError(t, err)
	read := func(file io.ReadCloser, err error) string {
		t.Helper()
		require.NoError(t, err)
		defer file.Close()
		text, err := io.ReadAll(file)
		require.NoError(t, err)
		return string(text)
	}
	month := time.Date(2026, 1, 31, 17, 0, 0, 0, time.UTC) // 1 February in China
	waited := 0
	list := minigame.Download{Begin: month, End: month, Kind: minigame.ItemOrders, Progress: func(time.Duration) { waited++ }}
	lost := order.OutTradeNo + ",player-1,sword,2\n"
	require.Equal(t, lost+"\n", read(w.program.DownloadOrders(t.Context(), list)), "a payment that was never delivered")
	require.Equal(t, 1, waited)
	list.Delivered = true
	require.Equal(t, "\n", read(w.program.DownloadOrders(t.Context(), list)))
	_, err = w.wechat.Repeat(t.Context(), minigame.Live, order.OutTradeNo)
	require.NoError(t, err)
	require.Equal(t, lost+"\n", read(w.program.DownloadOrders(t.Context(), list)))
	list.Kind, list.Apple = minigame.RefundOrders, true
	require.Equal(t, "\n", read(w.program.DownloadOrders(t.Context(), list)))
	require.Equal(t, "bill of 20260201 to 20260201\n", read(w.program.DownloadBill(t.Context(), month, month)))
	require.Equal(t, "Apple's bill of 202602\n", read(w.program.DownloadAppleBill(t.Context(), month)))

	const start, query, bill = "/xpay/start_download_order", "/xpay/query_download_order", "/xpay/download_bill"
	calls := w.wechat.Calls(start)
	w.wechat.NextCalls(start, minigametest.Fault{Cut: true})
	_, err = w.program.DownloadOrders(t.Context(), list)
	require.Error(t, err)
	require.Equal(t, calls+1, w.wechat.Calls(start), "a task is not started twice by itself")
	w.wechat.NextCalls(query, minigametest.Fault{Code: 268490012}, minigametest.Fault{Cut: true})
	require.Equal(t, "\n", read(w.program.DownloadOrders(t.Context(), list)), "it is still running, and a fault")
	w.wechat.NextCalls(query, minigametest.Fault{Body: `{"status":3}`})
	_, err = w.program.DownloadOrders(t.Context(), list)
	require.ErrorContains(t, err, "start another")
	w.wechat.NextCalls(bill, minigametest.Fault{Code: 268490011}, minigametest.Fault{Body: `{"url":""}`}, minigametest.Fault{Body: `{"url":"file:///etc/passwd"}`})
	for _, want := range []error{minigame.ErrNotReady, minigame.ErrNotReady, nil} {
		_, err = w.program.DownloadBill(t.Context(), month, month)
		require.Error(t, err)
		if want != nil {
			require.ErrorIs(t, err, want)
		}
	}
	for address, says := range map[string]string{w.wechat.GameConfig().BaseURL + "/sns/jscode2session?sign=0123456789": "", "http://127.0.0.1:1/f?sign=0123456789": "connection refused"} {
		w.wechat.NextCalls(bill, minigametest.Fault{Body: `{"url":"` + address + `"}`})
		w.wechat.NextCalls("/sns/jscode2session", minigametest.Fault{Status: 403})
		_, err = w.program.DownloadBill(t.Context(), month, month)
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "sign=")
	}
	ctx, cancel := context.WithCancel(t.Context())
	list.Progress = func(time.Duration) { cancel() }
	_, err = w.program.DownloadOrders(ctx, list)
	require.Equal(t, context.Canceled, err)
	china := time.FixedZone("", 8*3600)
	late := time.Date(2026, 1, 1, 23, 0, 0, 0, china)
	for _, test := range []struct {
		wrong string // the field, or nothing
		of    minigame.Download
	}{
		{"Kind", minigame.Download{Begin: month, End: month}},
		{"End", minigame.Download{Begin: late, End: time.Date(2026, 2, 2, 0, 0, 0, 0, china), Kind: 1}}, // 32 days, though only 31 times 24 hours and one
		{"End", minigame.Download{Begin: late, End: late.AddDate(0, 0, -1), Kind: 1}},
		{"", minigame.Download{Begin: late.Add(-23 * time.Hour), End: time.Date(2026, 2, 1, 23, 59, 0, 0, china), Kind: minigame.TokenOrders}},
		{"", minigame.Download{Begin: late, End: late.Add(-time.Hour), Kind: minigame.TokenOrders}}, // of the same day
	} {
		file, err := w.program.DownloadOrders(t.Context(), test.of)
		if test.wrong == "" {
			require.NoError(t, err)
			require.NoError(t, file.Close())
			continue
		}
		var of *minigame.FieldError
		require.ErrorAs(t, err, &of)
		require.Equal(t, test.wrong, of.Field)
	}
}

// Two partial refunds of one order are told apart by the game's own numbers (facts 0.3).
func TestPartialRefundsAreToldApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{MiniProgram: true}, nil)
	var told []*minigame.RefundPush
	h := minigame.ProgramHandlers{
		Deliver: func(context.Context, *minigame.Delivery) error { return nil },
		Refund:  func(_ context.Context, r *minigame.RefundPush) error { told = append(told, r); return nil },
	}
	w.wechat.PushToHandler(w.program.PushHandler(h), "/push")
	order := w.order(t, minigame.Live)
	_, err := w.wechat.Pay(t.Context(), "player-1", order)
	require.NoError(t, err)
	query := minigame.ProgramOrderQuery{OpenID: "player-1", OrderID: order.OutTradeNo}
	for i, left := range []midas.Amount{1200, 900} {
		number := fmt.Sprint("refund-0", i)
		_, err := w.program.RefundOrder(t.Context(), minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: number, LeftFee: left, RefundFee: 300, From: 1})
		require.NoError(t, err)
		_, err = w.wechat.FinishRefund(t.Context(), minigame.Live, number)
		require.NoError(t, err)
		require.Equal(t, number, told[i].MchRefundID)
		require.Equal(t, 300*midas.Fen, told[i].Amount)
		require.Equal(t, order.OutTradeNo, told[i].OutTradeNo)
		require.NotEmpty(t, told[i].WeChatPay.TransactionID)
		require.False(t, told[i].Started.IsZero() || told[i].Succeeded.IsZero())
	}
	require.NotEqual(t, told[0].RefundID, told[1].RefundID)
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	good := minigame.GameConfig{AppID: "wx1", AppKey: "k"}
	for field, change := range map[string]func(*minigame.GameConfig){
		"AppID":                      func(c *minigame.GameConfig) { c.AppID = "" },
		"OfferID":                    func(c *minigame.GameConfig) { c.OfferID = "1450000000\n" },
		"AppKey":                     func(c *minigame.GameConfig) { c.AppKey = "key&" },
		"SandboxAppKey":              func(c *minigame.GameConfig) { c.SandboxAppKey = c.AppKey },
		"Secret":                     func(c *minigame.GameConfig) { c.Secret = `"quoted"` },
		"PushKeys[0].Token":          func(c *minigame.GameConfig) { c.PushKeys = []minigame.PushKey{{}} },
		"PushKeys[0].EncodingAESKey": func(c *minigame.GameConfig) { c.PushKeys = []minigame.PushKey{{Token: "t", EncodingAESKey: "short"}} },
		"BaseURL":                    func(c *minigame.GameConfig) { c.BaseURL = "api.weixin.qq.com" },
		"MaxAttach":                  func(c *minigame.GameConfig) { c.MaxAttach = -1 },
		"MaxRetries":                 func(c *minigame.GameConfig) { c.MaxRetries = 11 },
		"RetryDelay":                 func(c *minigame.GameConfig) { c.RetryDelay = -1 },
		"DeliverTimeout":             func(c *minigame.GameConfig) { c.DeliverTimeout = 3 * time.Second },
		"AnswerTimeout":              func(c *minigame.GameConfig) { c.AnswerTimeout = 3 * time.Second },
		"MaxDeliveries":              func(c *minigame.GameConfig) { c.MaxDeliveries = -1 },
	} {
		t.Run(field, func(t *testing.T) {
			cfg := good
			change(&cfg)
			_, err := minigame.NewGame(cfg)
			var config *minigame.ConfigError
			require.ErrorAs(t, err, &config)
			require.Equal(t, field, config.Field)
		})
	}
	_, err := minigame.NewGame(minigame.GameConfig{MaxAttach: -1, MaxDeliveries: -1})
	require.ErrorContains(t, err, "AppID")
	require.ErrorContains(t, err, "MaxDeliveries", "all at once")
}

func TestInquiriesAreAnswered(t *testing.T) {
	t.Parallel()
	const inquiry = `{"Event":"xpay_subscribe_ios_refund_query_notify","MsgType":"event","bundleid":"com.tencent.xin","channel_bill":"b","pay_order_id":"2","provide_status":"1"}`
	w := newWorld(t, minigametest.Config{MiniProgram: true}, nil)
	push := func(h minigame.ProgramHandlers) string {
		w.wechat.PushToHandler(w.program.PushHandler(h), "/push")
		receipt, err := w.wechat.Push(t.Context(), inquiry)
		require.NoError(t, err)
		return string(receipt.Body)
	}
	require.Equal(t, `success`, push(minigame.ProgramHandlers{}), "acknowledged without advice")
	var sealed struct{ Encrypt string }
	require.NoError(t, json.Unmarshal([]byte(push(minigame.ProgramHandlers{
		RefundInquiry: func(_ context.Context, r *minigame.RefundInquiry) (minigame.Advice, error) {
			if r.PayOrderID != "2" {
				return minigame.Advice{}, errors.New("another one")
			}
			return minigame.Advice{Info: "fine", Evidence: "none"}, nil
		},
	})), &sealed))
	key := w.wechat.ProgramConfig().PushKeys[0].EncodingAESKey
	plain, err := minigame.DecryptPush(string(key), w.wechat.ProgramConfig().AppID, sealed.Encrypt)
	require.NoError(t, err)
	require.Equal(t, `{"result_code":0,"result_info":"fine","evidence":"none"}`, string(plain))
	require.Equal(t, `{"ErrCode":99999,"ErrMsg":"internal error"}`, push(minigame.ProgramHandlers{
		RefundInquiry: func(context.Context, *minigame.RefundInquiry) (minigame.Advice, error) {
			return minigame.Advice{Evidence: "not told"}, errors.New("no idea")
		},
	}))
}

// Every field of a ProgramConfig reaches its Program.
func TestAProgramHasEveryFieldOfItsConfiguration(t *testing.T) {
	t.Parallel()
	game, program := reflect.TypeFor[minigame.GameConfig](), reflect.TypeFor[minigame.ProgramConfig]()
	require.Equal(t, game.NumField()-2, program.NumField(), "all but ZoneID and OtherAppKeys")
	wrong := map[string]any{
		"AppID": "a b", "OfferID": "a b", "AppKey": minigame.Secret("a b"), "SandboxAppKey": minigame.Secret("a b"), "Secret": minigame.Secret("a b"),
		"PushKeys": []minigame.PushKey{{}}, "MaxAttach": -1, "BaseURL": "x", "HTTPClient": &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}},
		"MaxRetries": 11, "RetryDelay": -time.Second, "DeliverTimeout": -time.Second, "AnswerTimeout": time.Hour, "MaxDeliveries": -1,
	}
	for i := range program.NumField() {
		name := program.Field(i).Name
		_, ok := game.FieldByName(name)
		require.True(t, ok, name)
		if wrong[name] == nil {
			require.Contains(t, []string{"DeliverSandbox", "AccessToken", "Logger", "OnPush", "Now"}, name, "nothing in it can be wrong")
			continue
		}
		cfg := minigame.ProgramConfig{AppID: "wx1"}
		reflect.ValueOf(&cfg).Elem().FieldByName(name).Set(reflect.ValueOf(wrong[name]))
		_, err := minigame.NewProgram(cfg)
		require.ErrorContains(t, err, name)
	}
	var log strings.Builder
	w := minigametest.NewServer(minigametest.Config{MiniProgram: true, Errorf: t.Errorf})
	defer w.Close()
	cfg := w.ProgramConfig()
	var events, tokens, times atomic.Int64
	cfg.DeliverSandbox, cfg.Logger, cfg.OnPush = true, slog.New(slog.NewTextHandler(&log, nil)), func(minigame.PushEvent) { events.Add(1) }
	cfg.AccessToken = func(context.Context, string) (string, error) { tokens.Add(1); return "", errors.New("none") }
	cfg.Now = func() time.Time { times.Add(1); return time.Now() }
	p, err := minigame.NewProgram(cfg)
	require.NoError(t, err)
	w.PushToHandler(p.PushHandler(minigame.ProgramHandlers{Deliver: func(context.Context, *minigame.Delivery) error { return nil }}), "/push")
	receipt, err := w.Push(t.Context(), `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":1,"GoodsInfo":{"ProductId":"p","Quantity":1}}`)
	require.NoError(t, err)
	require.True(t, receipt.Accepted)
	_, err = p.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "o", OrderID: "order-01"})
	require.Error(t, err)
	require.NoError(t, p.Wait(t.Context()))
	require.Positive(t, events.Load()*tokens.Load()*times.Load())
	require.NotEmpty(t, log.String())
}
