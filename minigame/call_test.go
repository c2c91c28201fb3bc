package minigame_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/require"
)

// A world is a WeChat, a client of it and a player who is logged in.
type world struct {
	wechat *minigametest.Server
	client *minigame.Client
	player minigame.Player
}

func newWorld(t testing.TB, server minigametest.Config, change func(*minigame.Config)) *world {
	t.Helper()
	if server.Errorf == nil {
		server.Errorf = t.Errorf
	}
	w := &world{wechat: minigametest.NewServer(server)}
	t.Cleanup(w.wechat.Close)
	cfg := w.wechat.ClientConfig()
	if change != nil {
		change(&cfg)
	}
	var err error
	w.client, err = minigame.New(cfg)
	require.NoError(t, err)
	w.login(t)
	return w
}

func (w *world) login(t testing.TB) {
	session, err := w.client.Code2Session(t.Context(), w.wechat.Login("player-1"))
	require.NoError(t, err)
	require.Equal(t, "player-1", session.OpenID)
	w.player = minigame.Player{OpenID: session.OpenID, SessionKey: session.SessionKey, IP: "203.0.113.7"}
}

func (w *world) order(t testing.TB, env minigame.Env) *minigame.Order {
	w.wechat.Publish("sword", 600*midas.Fen)
	order, err := w.client.NewOrder(minigame.OrderRequest{SessionKey: w.player.SessionKey, Env: env, ProductID: "sword", Quantity: 2, Price: 600 * midas.Fen})
	require.NoError(t, err)
	return order
}

// everyCall runs every server call of both products once.
func everyCall(ctx context.Context, game, program *minigame.Client, p minigame.Player) map[string]error {
	coins := minigame.Coins{Player: p}
	query := minigame.OrderQuery{OpenID: p.OpenID, OrderID: "order-01"}
	tokens := minigame.TokenPayment{Player: p, OrderID: "payment-1", Amount: 1, PayOrderID: "payment-0"}
	pay := minigame.Payment{Coins: coins, BillNo: "b1", Amount: 1, PayBillNo: "b0"}
	errs := map[string]error{}
	_, errs["/wxa/game/queryorderinfo"] = game.QueryOrderInfo(ctx, minigame.OrderInfoQuery{Player: p, OutTradeNo: "order-01"})
	_, errs["/wxa/game/getbalance"] = game.GetBalance(ctx, coins)
	_, errs["/wxa/game/pay"] = game.Pay(ctx, pay)
	_, errs["/wxa/game/cancelpay"] = game.CancelPay(ctx, pay)
	_, errs["/wxa/game/present"] = game.Present(ctx, pay)
	_, errs["/xpay/query_user_balance"] = program.QueryUserBalance(ctx, p, minigame.Live)
	_, errs["/xpay/currency_pay"] = program.CurrencyPay(ctx, tokens)
	_, errs["/xpay/cancel_currency_pay"] = program.CancelCurrencyPay(ctx, tokens)
	_, errs["/xpay/present_currency"] = program.PresentCurrency(ctx, tokens)
	_, errs["/xpay/query_order"] = program.QueryOrder(ctx, query)
	errs["/xpay/notify_provide_goods"] = program.NotifyProvideGoods(ctx, query)
	_, errs["/xpay/refund_order"] = program.RefundOrder(ctx, minigame.RefundRequest{OrderQuery: query, RefundOrderID: "refund-01", LeftFee: 2, RefundFee: 1, From: 1})
	_, errs["/xpay/download_bill"] = program.DownloadBill(ctx, minigame.Live, time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC))
	return errs
}

// TestEachCallCarriesItsSignatures walks through the table: what minigame.md 5 and 6 say of
// each call, what the table says, and what is really sent must agree.
func TestEachCallCarriesItsSignatures(t *testing.T) {
	t.Parallel()
	const both, paySig = "access_token pay_sig signature", "access_token pay_sig"
	documented := map[string]string{
		"/wxa/game/queryorderinfo": both, "/wxa/game/getbalance": both, "/wxa/game/pay": both, "/wxa/game/cancelpay": both, "/wxa/game/present": both,
		"/xpay/query_user_balance": both, "/xpay/currency_pay": both, "/xpay/cancel_currency_pay": both,
		"/xpay/present_currency": paySig, "/xpay/query_order": paySig, "/xpay/notify_provide_goods": paySig, "/xpay/refund_order": paySig, "/xpay/download_bill": paySig,
	}
	var mu sync.Mutex
	type request struct {
		query map[string][]string
		body  string
	}
	seen := map[string]request{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen[r.URL.Path] = request{r.URL.Query(), string(body)}
		mu.Unlock()
		io.WriteString(w, `{"errcode":0,"errmsg":"ok","order":{"order_id":"order-01"},"url":"https://x.example"}`)
	}))
	defer server.Close()
	cfg := minigame.Config{
		AppID: "wx1", OfferID: "145", AppKey: "the-key", BaseURL: server.URL,
		AccessToken: func(context.Context, string) (string, error) { return "the+token/&", nil },
		Now:         func() time.Time { return time.Unix(1668512806, 0) },
	}
	game, err := minigame.New(cfg)
	require.NoError(t, err)
	cfg.MiniProgram = true
	program, err := minigame.New(cfg)
	require.NoError(t, err)
	for path, err := range everyCall(t.Context(), game, program, minigame.Player{OpenID: "o1", SessionKey: "session==", IP: "203.0.113.7"}) {
		require.NoError(t, err, path)
	}
	mac := func(key, message string) string {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(message))
		return hex.EncodeToString(h.Sum(nil))
	}
	table := minigame.SignatureTable()
	require.Len(t, table, len(documented))
	for path, signatures := range documented {
		t.Run(path, func(t *testing.T) {
			require.Equal(t, [3]bool{true, signatures == both, true}, table[path])
			got := seen[path]
			want := map[string][]string{"access_token": {"the+token/&"}, "pay_sig": {mac("the-key", path+"&"+got.body)}}
			if signatures == both {
				want["signature"] = []string{mac("session==", got.body)}
			}
			if strings.HasPrefix(path, "/wxa/") {
				want["sig_method"] = []string{"hmac_sha256"}
			}
			require.Equal(t, want, got.query)
		})
	}
	for path, body := range map[string]string{
		"/wxa/game/queryorderinfo":  `{"openid":"o1","offer_id":"145","ts":1668512806,"zone_id":"1","env":0,"out_trade_no":"order-01","biz_id":2}`,
		"/wxa/game/getbalance":      `{"openid":"o1","offer_id":"145","ts":1668512806,"zone_id":"1","env":0,"user_ip":"203.0.113.7"}`,
		"/wxa/game/pay":             `{"openid":"o1","offer_id":"145","ts":1668512806,"zone_id":"1","env":0,"user_ip":"203.0.113.7","amount":1,"bill_no":"b1"}`,
		"/wxa/game/cancelpay":       `{"openid":"o1","offer_id":"145","ts":1668512806,"zone_id":"1","env":0,"user_ip":"203.0.113.7","amount":1,"bill_no":"b1","pay_bill_no":"b0"}`,
		"/xpay/query_order":         `{"openid":"o1","env":0,"order_id":"order-01"}`,
		"/xpay/cancel_currency_pay": `{"openid":"o1","env":0,"user_ip":"203.0.113.7","order_id":"payment-1","pay_order_id":"payment-0","amount":1}`,
		"/xpay/refund_order":        `{"openid":"o1","env":0,"order_id":"order-01","refund_order_id":"refund-01","left_fee":2,"refund_fee":1,"refund_reason":"0","req_from":"1"}`,
		"/xpay/download_bill":       `{"begin_ds":20260131,"end_ds":20260201}`,
	} {
		require.Equal(t, body, seen[path].body, path)
	}
}

func TestOneProductsCallsAreNotTheOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	for path, err := range everyCall(t.Context(), w.client, w.client, w.player) {
		require.Equal(t, strings.HasPrefix(path, "/xpay/"), err != nil && strings.Contains(err.Error(), "other product"), "%s: %v", path, err)
	}
}

func TestCallsRefuseBeforeSending(t *testing.T) {
	t.Parallel()
	cfg := minigame.Config{AppID: "wx1", OfferID: "145", AppKey: "k", BaseURL: "http://127.0.0.1:1",
		AccessToken: func(context.Context, string) (string, error) { return "", errors.New("was asked for") }}
	game, err := minigame.New(cfg)
	require.NoError(t, err)
	cfg.MiniProgram = true
	program, err := minigame.New(cfg)
	require.NoError(t, err)
	ctx, p := t.Context(), minigame.Player{OpenID: "o", SessionKey: "k", IP: "1.2.3.4"}
	coins := minigame.Coins{Player: p}
	query := minigame.OrderQuery{OpenID: "o", OrderID: "order-01"}
	for field, call := range map[string]func() error{
		"OpenID": func() error {
			_, err := game.GetBalance(ctx, minigame.Coins{Player: minigame.Player{IP: "1"}})
			return err
		},
		"IP": func() error {
			_, err := game.GetBalance(ctx, minigame.Coins{Player: minigame.Player{OpenID: "o", SessionKey: "k"}})
			return err
		},
		"BillNo": func() error {
			_, err := game.Pay(ctx, minigame.Payment{Coins: coins, BillNo: "_1", Amount: 1})
			return err
		},
		"billno with a dot": func() error {
			_, err := game.Pay(ctx, minigame.Payment{Coins: coins, BillNo: "a.b", Amount: 1})
			return err
		},
		"Amount": func() error { _, err := game.Present(ctx, minigame.Payment{Coins: coins, BillNo: "b"}); return err },
		"PayBillNo": func() error {
			_, err := game.CancelPay(ctx, minigame.Payment{Coins: coins, BillNo: "b", Amount: 1})
			return err
		},
		"OutTradeNo": func() error { _, err := game.QueryOrderInfo(ctx, minigame.OrderInfoQuery{Player: p}); return err },
		"OrderID":    func() error { _, err := program.QueryOrder(ctx, minigame.OrderQuery{OpenID: "o"}); return err },
		"both ids": func() error {
			return program.NotifyProvideGoods(ctx, minigame.OrderQuery{OrderID: "a", WxOrderID: "b"})
		},
		"no openid": func() error { _, err := program.QueryOrder(ctx, minigame.OrderQuery{OrderID: "order-01"}); return err },
		"short order": func() error {
			_, err := program.CurrencyPay(ctx, minigame.TokenPayment{Player: p, OrderID: "short", Amount: 1})
			return err
		},
		"PayOrderID": func() error {
			_, err := program.CancelCurrencyPay(ctx, minigame.TokenPayment{Player: p, OrderID: "payment-1", Amount: 1})
			return err
		},
		"balance": func() error { _, err := program.QueryUserBalance(ctx, minigame.Player{OpenID: "o"}, 0); return err },
		"RefundFee": func() error {
			_, err := program.RefundOrder(ctx, minigame.RefundRequest{OrderQuery: query, RefundOrderID: "refund-01", LeftFee: 1, RefundFee: 2, From: 1})
			return err
		},
		"BizMeta": func() error {
			_, err := program.RefundOrder(ctx, minigame.RefundRequest{OrderQuery: query, RefundOrderID: "refund-01", LeftFee: 1, RefundFee: 1, From: 1, BizMeta: strings.Repeat("x", 1025)})
			return err
		},
		"Reason": func() error {
			_, err := program.RefundOrder(ctx, minigame.RefundRequest{OrderQuery: query, RefundOrderID: "refund-01", LeftFee: 1, RefundFee: 1, From: 1, Reason: 6})
			return err
		},
		"From": func() error {
			_, err := program.RefundOrder(ctx, minigame.RefundRequest{OrderQuery: query, RefundOrderID: "refund-01", LeftFee: 1, RefundFee: 1})
			return err
		},
		"code": func() error {
			cfg := cfg
			cfg.Secret = "s"
			c, _ := minigame.New(cfg)
			_, err := c.Code2Session(ctx, "")
			return err
		},
	} {
		t.Run(field, func(t *testing.T) {
			var param *midas.ParamError
			require.ErrorAs(t, call(), &param)
			require.NotEmpty(t, param.Field)
		})
	}
	_, err = game.GetBalance(ctx, minigame.Coins{Player: p, Env: minigame.Sandbox})
	var config *minigame.ConfigError
	require.ErrorAs(t, err, &config)
	_, err = game.GetBalance(ctx, coins)
	require.ErrorContains(t, err, "was asked for", "with nothing wrong it goes on")
	_, err = game.Code2Session(ctx, "code")
	require.ErrorAs(t, err, &config, "there is no Secret")
}

func TestCoinsMoveOnceWhateverGoesWrong(t *testing.T) {
	t.Parallel()
	for sentence, faults := range map[string][]minigametest.Fault{
		"nothing":              nil,
		"a lost answer":        {minigametest.LoseAnswer},
		"-1 after it was done": {minigametest.BusyAfter},
		"-1 before":            {minigametest.Busy, minigametest.Busy},
		"a proxy's 502":        {minigametest.BadGateway},
		"a proxy's page":       {minigametest.LoginPage, minigametest.EmptyAnswer},
		"half an answer":       {minigametest.HalfAnswer},
		"a huge answer":        {minigametest.HugeAnswer},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, minigametest.Config{}, nil)
			w.wechat.GiveCoins("player-1", minigame.Live, 100)
			coins := minigame.Coins{Player: w.player}
			for path, call := range map[string]func(context.Context, minigame.Payment) (*minigame.PaymentResult, error){
				"/wxa/game/pay": w.client.Pay,
			} {
				w.wechat.Fail(path, faults...)
				result, err := call(t.Context(), minigame.Payment{Coins: coins, BillNo: "bill-1", Amount: 30})
				require.NoError(t, err)
				require.Equal(t, "bill-1", result.BillNo)
			}
			balance, err := w.client.GetBalance(t.Context(), coins)
			require.NoError(t, err)
			require.Equal(t, int64(70), balance.Balance, "once")
			require.True(t, balance.FirstSave)

			_, err = w.client.CancelPay(t.Context(), minigame.Payment{Coins: coins, BillNo: "back-1", PayBillNo: "bill-1", Amount: 10})
			require.NoError(t, err)
			result, err := w.client.Present(t.Context(), minigame.Payment{Coins: coins, BillNo: "gift-1", Amount: 5})
			require.NoError(t, err)
			require.Equal(t, int64(85), result.Balance)
			_, err = w.client.Pay(t.Context(), minigame.Payment{Coins: coins, BillNo: "bill-2", Amount: 86})
			require.ErrorIs(t, err, minigame.ErrInsufficient)
		})
	}
	t.Run("and for tokens", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{MiniProgram: true}, nil)
		w.wechat.GiveCoins("player-1", minigame.Live, 100)
		w.wechat.Fail("/xpay/currency_pay", minigametest.LoseAnswer)
		pay := minigame.TokenPayment{Player: w.player, OrderID: "payment-1", Amount: 30, Items: []minigame.TokenItem{{ProductID: "p", UnitPrice: 30, Quantity: 1}}}
		result, err := w.client.CurrencyPay(t.Context(), pay)
		require.NoError(t, err)
		require.True(t, result.Repeated)
		_, err = w.client.CancelCurrencyPay(t.Context(), minigame.TokenPayment{Player: w.player, OrderID: "returned1", PayOrderID: "payment-1", Amount: 30})
		require.NoError(t, err)
		result, err = w.client.PresentCurrency(t.Context(), minigame.TokenPayment{Player: minigame.Player{OpenID: "player-1"}, OrderID: "present-1", Amount: 5})
		require.NoError(t, err)
		require.Equal(t, int64(105), result.Balance)
		balance, err := w.client.QueryUserBalance(t.Context(), w.player, minigame.Live)
		require.NoError(t, err)
		require.Equal(t, int64(105), balance.Balance)
		require.True(t, balance.FirstSave)
	})
}

func TestAnOutcomeThatStaysUnknownSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, func(cfg *minigame.Config) { cfg.MaxRetries = 1 })
	w.wechat.GiveCoins("player-1", minigame.Live, 100)
	pay := minigame.Payment{Coins: minigame.Coins{Player: w.player}, BillNo: "bill-1", Amount: 30}

	w.wechat.Fail("/wxa/game/pay", minigametest.LoseAnswer, minigametest.BadGateway)
	_, err := w.client.Pay(t.Context(), pay)
	require.ErrorIs(t, err, minigame.ErrOutcomeUnknown)
	var response *minigame.ResponseError
	require.ErrorAs(t, err, &response)
	require.Equal(t, 502, response.StatusCode)
	result, err := w.client.Pay(t.Context(), pay)
	require.NoError(t, err)
	require.True(t, result.Repeated)

	w.wechat.Fail("/wxa/game/getbalance", minigametest.Busy, minigametest.Busy)
	_, err = w.client.GetBalance(t.Context(), pay.Coins)
	require.ErrorIs(t, err, minigame.ErrBusy)
	require.NotErrorIs(t, err, minigame.ErrOutcomeUnknown, "nothing can have moved")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.client.Pay(ctx, pay)
	require.ErrorIs(t, err, context.Canceled)
	_, err = w.client.GetBalance(ctx, pay.Coins)
	require.Equal(t, context.Canceled, err)
}

// An answer was lost, and the next try is refused for what has nothing to do with the number: nobody
// knows whether the coins are gone.
func TestARefusalAfterALostAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		second   func(w http.ResponseWriter)
		unknown  bool
		matching error
	}{
		{"rate limit", errcode(45011), true, minigame.ErrRateLimit},
		{"session_key", errcode(90016), true, minigame.ErrLoginExpired},
		{"pay_sig", errcode(90011), true, minigame.ErrSignature},
		{"access token", errcode(40001), true, nil},
		{"whitelist", errcode(40164), true, minigame.ErrIPNotAllowed},
		{"redirect", func(w http.ResponseWriter) { w.WriteHeader(http.StatusFound) }, true, nil},
		{"too few coins", errcode(90013), false, minigame.ErrInsufficient},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var calls, tokens atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if calls.Add(1) == 1 {
					panic(http.ErrAbortHandler)
				}
				test.second(w)
			}))
			defer server.Close()
			client, err := minigame.New(minigame.Config{AppID: "wx0", OfferID: "1", AppKey: "k", BaseURL: server.URL, RetryDelay: time.Millisecond,
				AccessToken: func(context.Context, string) (string, error) {
					if tokens.Add(1) > 1 {
						return "", errors.New("no new token")
					}
					return "token", nil
				}})
			require.NoError(t, err)
			_, err = client.Pay(t.Context(), minigame.Payment{Coins: minigame.Coins{Player: minigame.Player{OpenID: "o", SessionKey: "s", IP: "203.0.113.7"}}, BillNo: "b", Amount: 1})
			require.Error(t, err)
			require.Equal(t, test.unknown, errors.Is(err, minigame.ErrOutcomeUnknown), "%v", err)
			if test.matching != nil {
				require.ErrorIs(t, err, test.matching)
			}
			require.EqualValues(t, 2, calls.Load())
		})
	}
}

// WeChat's word that the payment was taken before comes as the context ends.
func TestAnAnswerAtTheLastMoment(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]error{90012: nil, 90013: minigame.ErrInsufficient, 45011: minigame.ErrOutcomeUnknown} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			rec := httptest.NewRecorder()
			errcode(code)(rec)
			response := rec.Result()
			response.Body = atEOF{response.Body, cancel}
			return response, nil
		})
		client, err := minigame.New(minigame.Config{AppID: "wx0", OfferID: "1", AppKey: "k", HTTPClient: &http.Client{Transport: transport},
			AccessToken: func(context.Context, string) (string, error) { return "token", nil }})
		require.NoError(t, err)
		_, err = client.Pay(ctx, minigame.Payment{Coins: minigame.Coins{Player: minigame.Player{OpenID: "o", SessionKey: "s", IP: "203.0.113.7"}}, BillNo: "b", Amount: 1})
		require.ErrorIs(t, err, want, code)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// atEOF calls a function when the body has been read.
type atEOF struct {
	io.ReadCloser
	call func()
}

func (b atEOF) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.call()
	}
	return n, err
}

// An unusable answer to one call does not cost another one its connection: a login code works once.
func TestAnUnusableAnswerIsItsOwnCallsAlone(t *testing.T) {
	t.Parallel()
	for _, unusable := range []func(http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		func(w http.ResponseWriter) { io.WriteString(w, `{"balance":`) },
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/sns/jscode2session" {
				unusable(w)
				return
			}
			io.WriteString(w, `{"openid":"o","session_key":"s"}`)
		}))
		defer server.Close()
		client, err := minigame.New(minigame.Config{AppID: "wx0", OfferID: "1", AppKey: "k", Secret: "app-secret", BaseURL: server.URL, MaxRetries: -1,
			AccessToken: func(context.Context, string) (string, error) { return "token", nil }})
		require.NoError(t, err)
		var callers sync.WaitGroup
		var lost atomic.Int32
		for range 4 {
			callers.Go(func() {
				for range 300 {
					_, _ = client.GetBalance(t.Context(), minigame.Coins{Player: minigame.Player{OpenID: "o", SessionKey: "s", IP: "203.0.113.7"}})
				}
			})
			callers.Go(func() {
				for range 300 {
					if _, err := client.Code2Session(t.Context(), "code"); err != nil {
						lost.Add(1)
					}
				}
			})
		}
		callers.Wait()
		require.Zero(t, lost.Load())
	}
}

func errcode(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { fmt.Fprintf(w, `{"errcode":%d,"errmsg":"no"}`, code) }
}

// A log handler that blocks or panics holds up no call, nor the access token that all of them wait for.
func TestALogHandlerHoldsUpNoCall(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	for _, write := range []func([]byte){func([]byte) { <-block }, func([]byte) { panic("log handler") }} {
		w := newWorld(t, minigametest.Config{}, func(cfg *minigame.Config) { cfg.Logger = slog.New(slog.NewTextHandler(writerFunc(write), nil)) })
		w.wechat.Fail("/cgi-bin/stable_token", minigametest.BadGateway)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, w.client.CheckSessionKey(ctx, "player-1", w.player.SessionKey))
	}
	close(block)
}

// A proxy that sends more than it announced: net/http would print the rest, which may repeat our query.
func TestNothingOfAnUnusableAnswerIsPrinted(t *testing.T) {
	for _, answer := range []string{"502 Bad Gateway\r\nContent-Length: 5\r\n\r\nhello", "200 OK\r\nContent-Length: 3\r\n\r\n<p>"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		closed := make(chan error, 1)
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				closed <- err
				return
			}
			defer conn.Close()
			request := make([]byte, 4096)
			n, _ := conn.Read(request)
			fmt.Fprintf(conn, "HTTP/1.1 %s%s", answer, request[:n])
			_, err = io.Copy(io.Discard, conn)
			closed <- err
		}()
		var printed strings.Builder
		log.SetOutput(&printed)
		defer log.SetOutput(os.Stderr)
		client, err := minigame.New(minigame.Config{AppID: "wx0", Secret: "app-secret", BaseURL: "http://" + listener.Addr().String()})
		require.NoError(t, err)
		_, err = client.Code2Session(t.Context(), "code")
		var unusable *minigame.ResponseError
		require.ErrorAs(t, err, &unusable)
		<-closed // the client has hung up
		require.Empty(t, printed.String())
	}
}

// WeChat need not tell what is left of an order.
func TestAnOrderWithoutLeftFee(t *testing.T) {
	t.Parallel()
	for answer, refunded := range map[string]bool{
		`"paid_fee":100`:                   false,
		`"paid_fee":100,"left_fee":100`:    false,
		`"paid_fee":100,"left_fee":40`:     true,
		`"paid_fee":100,"refund_fee":60`:   true,
		`"paid_fee":100,"left_fee":"0"`:    true,
		`"paid_fee":100,"refund_fee":null`: false,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"errcode":0,"order":{"order_id":"order-01","status":4,%s}}`, answer)
		}))
		defer server.Close()
		client, err := minigame.New(minigame.Config{AppID: "wx0", MiniProgram: true, OfferID: "1", AppKey: "k", BaseURL: server.URL,
			AccessToken: func(context.Context, string) (string, error) { return "token", nil }})
		require.NoError(t, err)
		order, err := client.QueryOrder(t.Context(), minigame.OrderQuery{OpenID: "o", OrderID: "order-01"})
		require.NoError(t, err)
		require.True(t, order.Paid())
		require.Equal(t, refunded, order.Refunded(), answer)
	}
}

func TestABackOffEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(slog.NewTextHandler(writerFunc(func([]byte) { cancel() }), nil)) // at the first repetition
	w := newWorld(t, minigametest.Config{}, func(cfg *minigame.Config) { cfg.RetryDelay, cfg.Logger = time.Minute, log })
	w.wechat.Fail("/wxa/game/pay", minigametest.Busy)
	_, err := w.client.Pay(ctx, minigame.Payment{Coins: minigame.Coins{Player: w.player}, BillNo: "b", Amount: 1})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, minigame.ErrOutcomeUnknown)
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	w.wechat.Fail("/wxa/game/getbalance", minigametest.Redirect)
	_, err := w.client.GetBalance(t.Context(), minigame.Coins{Player: w.player})
	require.ErrorContains(t, err, "redirects are not followed")
	require.Equal(t, 1, w.wechat.Calls("/wxa/game/getbalance"))
}

func TestAccessTokens(t *testing.T) {
	t.Parallel()
	t.Run("one fetch for many callers", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{}, nil)
		var wait sync.WaitGroup
		for range 20 {
			wait.Go(func() { _, _ = w.client.GetBalance(t.Context(), minigame.Coins{Player: w.player}) })
		}
		wait.Wait()
		require.Equal(t, 20, w.wechat.Calls("/wxa/game/getbalance"))
		require.Equal(t, 1, w.wechat.Calls("/cgi-bin/stable_token"))
	})
	t.Run("one renewal on 40001", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{}, nil)
		require.NoError(t, w.client.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey))
		w.wechat.ExpireToken()
		_, err := w.client.GetBalance(t.Context(), minigame.Coins{Player: w.player})
		require.NoError(t, err)
		w.wechat.ExpireToken()
		require.NoError(t, w.client.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey))
		require.Equal(t, 3, w.wechat.Calls("/cgi-bin/stable_token"))
	})
	t.Run("and no second one", func(t *testing.T) {
		t.Parallel()
		asked := []string{}
		w := newWorld(t, minigametest.Config{}, func(cfg *minigame.Config) {
			cfg.AccessToken = func(_ context.Context, rejected string) (string, error) {
				asked = append(asked, rejected)
				return "dead", nil
			}
		})
		_, err := w.client.GetBalance(t.Context(), minigame.Coins{Player: w.player})
		require.ErrorIs(t, err, minigame.ErrAccessToken)
		require.Equal(t, []string{"", "dead"}, asked)
		require.ErrorIs(t, w.client.CheckSessionKey(t.Context(), "player-1", "k"), minigame.ErrAccessToken)
	})
	t.Run("a new one five minutes before the end", func(t *testing.T) {
		t.Parallel()
		now := time.Unix(1700000000, 0)
		w := newWorld(t, minigametest.Config{Now: func() time.Time { return now }}, nil)
		call := func() {
			_, err := w.client.GetBalance(t.Context(), minigame.Coins{Player: w.player})
			require.NoError(t, err)
		}
		call()
		now = now.Add(2*time.Hour - 5*time.Minute - time.Second)
		call()
		require.Equal(t, 1, w.wechat.Calls("/cgi-bin/stable_token"))
		now = now.Add(time.Second)
		call()
		require.Equal(t, 2, w.wechat.Calls("/cgi-bin/stable_token"))
	})
	t.Run("an error reaches every caller", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{}, nil)
		w.wechat.Fail("/cgi-bin/stable_token", minigametest.LoginPage, minigametest.EmptyAnswer, minigametest.BadGateway, minigametest.Redirect)
		_, err := w.client.GetBalance(t.Context(), minigame.Coins{Player: w.player})
		var response *minigame.ResponseError
		require.ErrorAs(t, err, &response, "the third of three tries")
		require.Equal(t, 502, response.StatusCode)
		require.Error(t, w.client.CheckSessionKey(t.Context(), "player-1", "k"))
		require.Equal(t, 4, w.wechat.Calls("/cgi-bin/stable_token"), "a redirect is not worth another")
		w.wechat.Fail("/cgi-bin/stable_token", minigametest.LoseAnswer, minigametest.Busy)
		w.wechat.Fail("/wxa/checksession", minigametest.BadGateway)
		require.NoError(t, w.client.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey))
	})
	t.Run("without a Secret", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{}, nil)
		cfg := w.wechat.ClientConfig()
		cfg.Secret = ""
		client, err := minigame.New(cfg)
		require.NoError(t, err)
		_, err = client.GetBalance(t.Context(), minigame.Coins{Player: w.player})
		require.ErrorContains(t, err, "Secret")
	})
	t.Run("a waiting caller obeys its context", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		defer server.Close()
		defer close(release)
		client, err := minigame.New(minigame.Config{AppID: "wx1", OfferID: "1", AppKey: "k", Secret: "s", BaseURL: server.URL})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = client.GetBalance(ctx, minigame.Coins{Player: minigame.Player{OpenID: "o", SessionKey: "k", IP: "1"}})
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	code := w.wechat.Login("player-2")
	_, err := w.client.Code2Session(t.Context(), code)
	require.NoError(t, err)
	_, err = w.client.Code2Session(t.Context(), code)
	require.ErrorIs(t, err, minigame.ErrCode, "a code works once")

	w.wechat.Fail("/sns/jscode2session", minigametest.LoseAnswer)
	calls := w.wechat.Calls("/sns/jscode2session")
	_, err = w.client.Code2Session(t.Context(), w.wechat.Login("player-2"))
	require.Error(t, err)
	require.Equal(t, calls+1, w.wechat.Calls("/sns/jscode2session"), "it is never repeated")

	require.NoError(t, w.client.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey))
	w.wechat.ExpireSession("player-1")
	require.ErrorIs(t, w.client.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey), minigame.ErrLoginExpired)
	_, err = w.client.GetBalance(t.Context(), minigame.Coins{Player: w.player})
	require.ErrorIs(t, err, minigame.ErrLoginExpired)
	w.login(t)
	_, err = w.client.GetBalance(t.Context(), minigame.Coins{Player: w.player})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.client.Code2Session(ctx, "code")
	require.Equal(t, context.Canceled, err)
}

// TestErrorsShowNoSecret has servers and proxies repeat what they got, in every notation.
func TestErrorsShowNoSecret(t *testing.T) {
	t.Parallel()
	var answer atomic.Pointer[func(w http.ResponseWriter, r *http.Request, body string)]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		(*answer.Load())(w, r, string(body))
	}))
	defer server.Close()
	secrets := []string{"app-key-3f9a", "session-key-77aa==", "app-secret-d0d0", "token-0123456789abcdef", "js-code-5151"}
	var log bytes.Buffer
	client, err := minigame.New(minigame.Config{
		AppID: "wx1", OfferID: "145", AppKey: minigame.Secret(secrets[0]), Secret: minigame.Secret(secrets[2]), BaseURL: server.URL, RetryDelay: time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil)), AccessToken: func(context.Context, string) (string, error) { return secrets[3], nil },
	})
	require.NoError(t, err)
	player := minigame.Player{OpenID: "oUrsf0TSXNtiZjP7JL9UUFiGJzmQ", SessionKey: minigame.Secret(secrets[1]), IP: "203.0.113.7"}
	refuse := func(w http.ResponseWriter, msg string) {
		json.NewEncoder(w).Encode(map[string]any{"errcode": 90011, "errmsg": msg})
	}
	for sentence, how := range map[string]func(w http.ResponseWriter, r *http.Request, body string){
		"the body": func(w http.ResponseWriter, _ *http.Request, body string) { refuse(w, "pay_sig, body is "+body) },
		"the URL":  func(w http.ResponseWriter, r *http.Request, _ string) { refuse(w, r.URL.String()) },
		"the token": func(w http.ResponseWriter, r *http.Request, _ string) {
			refuse(w, "bad "+r.URL.Query().Get("access_token"))
		},
		"every secret": func(w http.ResponseWriter, r *http.Request, _ string) { refuse(w, strings.Join(secrets, " ")) },
		"a page":       func(w http.ResponseWriter, r *http.Request, _ string) { io.WriteString(w, "<html>"+r.URL.String()) },
		"a 500": func(w http.ResponseWriter, r *http.Request, _ string) {
			w.WriteHeader(500)
			io.WriteString(w, r.URL.String())
		},
		"a break": func(http.ResponseWriter, *http.Request, string) { panic(http.ErrAbortHandler) },
		"odd types": func(w http.ResponseWriter, _ *http.Request, _ string) {
			io.WriteString(w, `{"balance":"app-key-3f9a","openid":7}`)
		},
	} {
		answer.Store(&how)
		_, err1 := client.GetBalance(t.Context(), minigame.Coins{Player: player})
		_, err2 := client.Code2Session(t.Context(), secrets[4])
		err3 := client.CheckSessionKey(t.Context(), player.OpenID, player.SessionKey)
		require.NoError(t, client.Wait(t.Context()))
		for _, err := range []error{err1, err2, err3} {
			text := log.String()
			if err != nil {
				text += err.Error()
			}
			for _, secret := range append(secrets, player.OpenID, "signature=") {
				require.NotContains(t, text, secret, sentence)
			}
		}
		require.Error(t, err1, sentence)
	}
	helpful := func(w http.ResponseWriter, _ *http.Request, _ string) {
		refuse(w, "[openid] openid is invalid, rid: 5f2a-11")
	}
	answer.Store(&helpful)
	_, err = client.GetBalance(t.Context(), minigame.Coins{Player: player})
	require.ErrorContains(t, err, "[openid] openid is invalid", "what helps is shown")
	require.ErrorIs(t, err, minigame.ErrSignature)
}

func TestBaseURLOfNobody(t *testing.T) {
	t.Parallel()
	client, err := minigame.New(minigame.Config{AppID: "wx1", OfferID: "1", AppKey: "k", Secret: "s3cr3t-0123", BaseURL: "http://127.0.0.1:1"})
	require.NoError(t, err)
	_, err = client.Code2Session(t.Context(), "code")
	require.ErrorContains(t, err, "connection refused")
	require.NotContains(t, err.Error(), "s3cr3t")
	require.NotContains(t, err.Error(), "js_code")
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "the cause can be matched")
	var network *net.OpError
	require.ErrorAs(t, err, &network)
}
