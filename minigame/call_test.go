package minigame_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
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

// A world is a WeChat, a Game or a Program of it and a player who is logged in.
type world struct {
	wechat  *minigametest.Server
	game    *minigame.Game    // nil for a mini program
	program *minigame.Program // nil for a mini game
	account account
	player  minigame.CallPlayer
}

// An account is what both products have.
type account interface {
	Code2Session(ctx context.Context, code string) (*minigame.Session, error)
	CheckSessionKey(ctx context.Context, openID string, sessionKey minigame.Secret) error
	NewOrder(req minigame.OrderRequest) (*minigame.Order, error)
	ParsePush(rawQuery string, body []byte) (*minigame.Push, error)
	Wait(ctx context.Context) error
}

func newWorld(t testing.TB, server minigametest.Config, change func(*minigame.GameConfig)) *world {
	t.Helper()
	if server.Errorf == nil {
		server.Errorf = t.Errorf
	}
	w := &world{wechat: minigametest.NewServer(server)}
	t.Cleanup(w.wechat.Close)
	var err error
	if server.MiniProgram {
		w.program, err = minigame.NewProgram(w.wechat.ProgramConfig())
		w.account = w.program
	} else {
		cfg := w.wechat.GameConfig()
		if change != nil {
			change(&cfg)
		}
		w.game, err = minigame.NewGame(cfg)
		w.account = w.game
	}
	require.NoError(t, err)
	w.login(t)
	return w
}

func (w *world) login(t testing.TB) {
	session, err := w.account.Code2Session(t.Context(), w.wechat.Login("player-1"))
	require.NoError(t, err)
	require.Equal(t, "player-1", session.OpenID)
	w.player = minigame.CallPlayer{OpenID: session.OpenID, SessionKey: session.SessionKey, IP: "203.0.113.7"}
}

func (w *world) order(t testing.TB, env minigame.Env) *minigame.Order {
	w.wechat.Publish("sword", 600*midas.Fen)
	order, err := w.account.NewOrder(minigame.OrderRequest{SessionKey: w.player.SessionKey, Env: env, ProductID: "sword", Quantity: 2, Price: 600 * midas.Fen})
	require.NoError(t, err)
	return order
}

// everyCall runs every server call of both products once.
func everyCall(ctx context.Context, game *minigame.Game, program *minigame.Program, p minigame.CallPlayer) map[string]error {
	coins := minigame.CoinAccount{Player: p}
	query := minigame.ProgramOrderQuery{OpenID: p.OpenID, OrderID: "order-01"}
	tokens := minigame.TokenMove{Player: p, OrderID: "payment-1", Amount: 1, PayOrderID: "payment-0"}
	pay := minigame.CoinMove{CoinAccount: coins, BillNo: "b1", Amount: 1, PayBillNo: "b0"}
	errs := map[string]error{}
	_, errs["/wxa/game/queryorderinfo"] = game.QueryOrder(ctx, minigame.GameOrderQuery{Player: p, OutTradeNo: "order-01"})
	_, errs["/wxa/game/getbalance"] = game.CoinBalance(ctx, coins)
	_, errs["/wxa/game/pay"] = game.SpendCoins(ctx, pay)
	_, errs["/wxa/game/cancelpay"] = game.ReturnCoins(ctx, pay)
	_, errs["/wxa/game/present"] = game.GiveCoins(ctx, pay)
	_, errs["/xpay/query_user_balance"] = program.TokenBalance(ctx, p, minigame.Live)
	_, errs["/xpay/currency_pay"] = program.SpendTokens(ctx, tokens)
	_, errs["/xpay/cancel_currency_pay"] = program.ReturnTokens(ctx, tokens)
	_, errs["/xpay/present_currency"] = program.GiveTokens(ctx, tokens)
	_, errs["/xpay/query_order"] = program.QueryOrder(ctx, query)
	errs["/xpay/notify_provide_goods"] = program.NotifyDelivered(ctx, query)
	_, errs["/xpay/refund_order"] = program.RefundOrder(ctx, minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: "refund-01", LeftFee: 2, RefundFee: 1, From: 1})
	january, february := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	file := func(file io.ReadCloser, err error) error {
		if err != nil {
			return err
		}
		return file.Close()
	}
	errs["/xpay/download_bill"] = file(program.DownloadBill(ctx, january, february))
	errs["/xpay/download_ios_settlement_bill"] = file(program.DownloadAppleBill(ctx, january))
	errs["/xpay/start_download_order"] = file(program.DownloadOrders(ctx, minigame.Download{Begin: january, End: february, Kind: minigame.ItemOrders}))
	return errs
}

// TestEachCallCarriesItsSignatures walks through the table: what minigame.md 3.4 and 4.4 say of
// each call, what the table says, and what is really sent must agree.
func TestEachCallCarriesItsSignatures(t *testing.T) {
	t.Parallel()
	const both, paySig = "access_token pay_sig signature", "access_token pay_sig"
	documented := map[string]string{
		"/wxa/game/queryorderinfo": both, "/wxa/game/getbalance": both, "/wxa/game/pay": both, "/wxa/game/cancelpay": both, "/wxa/game/present": both,
		"/xpay/query_user_balance": both, "/xpay/currency_pay": both, "/xpay/cancel_currency_pay": both,
		"/xpay/present_currency": paySig, "/xpay/query_order": paySig, "/xpay/notify_provide_goods": paySig, "/xpay/refund_order": paySig, "/xpay/download_bill": paySig,
		"/xpay/start_download_order": paySig, "/xpay/query_download_order": paySig, "/xpay/download_ios_settlement_bill": paySig,
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
		fmt.Fprintf(w, `{"errcode":0,"errmsg":"ok","order":{"order_id":"order-01"},"task_id":"t1","status":2,"bill_list":[{"month":"202601","bill_url":%[1]q}],"url":%[1]q,"download_url":%[1]q}`,
			"http://"+r.Host+"/file")
	}))
	defer server.Close()
	token := func(context.Context, string) (string, error) { return "the+token/&", nil }
	now := func() time.Time { return time.Unix(1668512806, 0) }
	game, err := minigame.NewGame(minigame.GameConfig{AppID: "wx1", OfferID: "145", AppKey: "the-key", BaseURL: server.URL, AccessToken: token, Now: now})
	require.NoError(t, err)
	program, err := minigame.NewProgram(minigame.ProgramConfig{AppID: "wx1", OfferID: "145", AppKey: "the-key", BaseURL: server.URL, AccessToken: token, Now: now, RetryDelay: 1})
	require.NoError(t, err)
	for path, err := range everyCall(t.Context(), game, program, minigame.CallPlayer{OpenID: "o1", SessionKey: "session==", IP: "203.0.113.7"}) {
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
			require.Equal(t, [3]bool{true, signatures == both, path != "/xpay/start_download_order"}, table[path])
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

		"/xpay/start_download_order":         `{"begin_ds":20260131,"end_ds":20260201,"order_type":2,"pay_channel":1,"is_provided":false,"env":0}`,
		"/xpay/query_download_order":         `{"task_id":"t1","env":0}`,
		"/xpay/download_ios_settlement_bill": `{"start_month":"202601","end_month":"202601"}`,
	} {
		require.JSONEq(t, body, seen[path].body, path)
	}
}

func TestCallsRefuseBeforeSending(t *testing.T) {
	t.Parallel()
	cfg := minigame.GameConfig{AppID: "wx1", OfferID: "145", AppKey: "k", BaseURL: "http://127.0.0.1:1",
		AccessToken: func(context.Context, string) (string, error) { return "", errors.New("was asked for") }}
	game, err := minigame.NewGame(cfg)
	require.NoError(t, err)
	program, err := minigame.NewProgram(minigame.ProgramConfig{AppID: "wx1", OfferID: "145", AppKey: "k", BaseURL: cfg.BaseURL, AccessToken: cfg.AccessToken})
	require.NoError(t, err)
	ctx, p := t.Context(), minigame.CallPlayer{OpenID: "o", SessionKey: "k", IP: "1.2.3.4"}
	coins := minigame.CoinAccount{Player: p}
	query := minigame.ProgramOrderQuery{OpenID: "o", OrderID: "order-01"}
	for field, call := range map[string]func() error{
		"OpenID": func() error {
			_, err := game.CoinBalance(ctx, minigame.CoinAccount{Player: minigame.CallPlayer{IP: "1"}})
			return err
		},
		"IP": func() error {
			_, err := game.CoinBalance(ctx, minigame.CoinAccount{Player: minigame.CallPlayer{OpenID: "o", SessionKey: "k"}})
			return err
		},
		"BillNo": func() error {
			_, err := game.SpendCoins(ctx, minigame.CoinMove{CoinAccount: coins, BillNo: "_1", Amount: 1})
			return err
		},
		"billno with a dot": func() error {
			_, err := game.SpendCoins(ctx, minigame.CoinMove{CoinAccount: coins, BillNo: "a.b", Amount: 1})
			return err
		},
		"Amount": func() error {
			_, err := game.GiveCoins(ctx, minigame.CoinMove{CoinAccount: coins, BillNo: "b"})
			return err
		},
		"PayBillNo": func() error {
			_, err := game.ReturnCoins(ctx, minigame.CoinMove{CoinAccount: coins, BillNo: "b", Amount: 1})
			return err
		},
		"OutTradeNo": func() error { _, err := game.QueryOrder(ctx, minigame.GameOrderQuery{Player: p}); return err },
		"OrderID":    func() error { _, err := program.QueryOrder(ctx, minigame.ProgramOrderQuery{OpenID: "o"}); return err },
		"both ids": func() error {
			return program.NotifyDelivered(ctx, minigame.ProgramOrderQuery{OrderID: "a", WxOrderID: "b"})
		},
		"no openid": func() error {
			_, err := program.QueryOrder(ctx, minigame.ProgramOrderQuery{OrderID: "order-01"})
			return err
		},
		"short order": func() error {
			_, err := program.SpendTokens(ctx, minigame.TokenMove{Player: p, OrderID: "short", Amount: 1})
			return err
		},
		"PayOrderID": func() error {
			_, err := program.ReturnTokens(ctx, minigame.TokenMove{Player: p, OrderID: "payment-1", Amount: 1})
			return err
		},
		"balance": func() error { _, err := program.TokenBalance(ctx, minigame.CallPlayer{OpenID: "o"}, 0); return err },
		"RefundFee": func() error {
			_, err := program.RefundOrder(ctx, minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: "refund-01", LeftFee: 1, RefundFee: 2, From: 1})
			return err
		},
		"BizMeta": func() error {
			_, err := program.RefundOrder(ctx, minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: "refund-01", LeftFee: 1, RefundFee: 1, From: 1, BizMeta: strings.Repeat("x", 1025)})
			return err
		},
		"Reason": func() error {
			_, err := program.RefundOrder(ctx, minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: "refund-01", LeftFee: 1, RefundFee: 1, From: 1, Reason: 6})
			return err
		},
		"From": func() error {
			_, err := program.RefundOrder(ctx, minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: "refund-01", LeftFee: 1, RefundFee: 1})
			return err
		},
		"code": func() error {
			cfg := cfg
			cfg.Secret = "s"
			c, _ := minigame.NewGame(cfg)
			_, err := c.Code2Session(ctx, "")
			return err
		},
	} {
		t.Run(field, func(t *testing.T) {
			var param *minigame.FieldError
			require.ErrorAs(t, call(), &param)
			require.NotEmpty(t, param.Field)
		})
	}
	_, err = game.CoinBalance(ctx, minigame.CoinAccount{Player: p, Env: minigame.Sandbox})
	var config *minigame.ConfigError
	require.ErrorAs(t, err, &config)
	_, err = game.CoinBalance(ctx, coins)
	require.ErrorContains(t, err, "was asked for", "with nothing wrong it goes on")
	_, err = game.Code2Session(ctx, "code")
	require.ErrorAs(t, err, &config, "there is no Secret")
}

func TestCoinsMoveOnceWhateverGoesWrong(t *testing.T) {
	t.Parallel()
	for sentence, faults := range map[string][]minigametest.Fault{
		"nothing":              nil,
		"a lost answer":        {minigametest.Fault{Cut: true}},
		"-1 after it was done": {minigametest.Fault{Done: true, Code: -1}},
		"-1 before":            {minigametest.Fault{Code: -1}, minigametest.Fault{Code: -1}},
		"a proxy's 502":        {minigametest.Fault{Status: 502}},
		"a proxy's page":       {minigametest.Fault{HTML: true}, minigametest.Fault{Body: " "}},
		"half an answer":       {minigametest.Fault{Done: true, Body: `{"errcode":0`}},
		"a huge answer":        {minigametest.Fault{Done: true, Body: strings.Repeat(" ", 2<<20)}},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, minigametest.Config{}, nil)
			w.wechat.GiveCoins("player-1", minigame.Live, 100)
			coins := minigame.CoinAccount{Player: w.player}
			for path, call := range map[string]func(context.Context, minigame.CoinMove) (*minigame.MoveResult, error){
				"/wxa/game/pay": w.game.SpendCoins,
			} {
				w.wechat.NextCalls(path, faults...)
				result, err := call(t.Context(), minigame.CoinMove{CoinAccount: coins, BillNo: "bill-1", Amount: 30})
				require.NoError(t, err)
				require.Equal(t, len(faults) > 0 && (faults[0].Done || faults[0].Cut), result.Repeated)
			}
			balance, err := w.game.CoinBalance(t.Context(), coins)
			require.NoError(t, err)
			require.Equal(t, int64(70), balance.Balance, "once")
			require.True(t, balance.FirstSave)

			_, err = w.game.ReturnCoins(t.Context(), minigame.CoinMove{CoinAccount: coins, BillNo: "back-1", PayBillNo: "bill-1", Amount: 10})
			require.NoError(t, err)
			result, err := w.game.GiveCoins(t.Context(), minigame.CoinMove{CoinAccount: coins, BillNo: "gift-1", Amount: 5})
			require.NoError(t, err)
			require.Equal(t, int64(85), result.Balance)
			_, err = w.game.SpendCoins(t.Context(), minigame.CoinMove{CoinAccount: coins, BillNo: "bill-2", Amount: 86})
			require.ErrorIs(t, err, minigame.ErrInsufficient)
		})
	}
	t.Run("and for tokens", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{MiniProgram: true}, nil)
		w.wechat.GiveCoins("player-1", minigame.Live, 100)
		w.wechat.NextCalls("/xpay/currency_pay", minigametest.Fault{Cut: true})
		pay := minigame.TokenMove{Player: w.player, OrderID: "payment-1", Amount: 30, Items: []minigame.TokenItem{{ProductID: "p", UnitPrice: 30, Quantity: 1}}}
		result, err := w.program.SpendTokens(t.Context(), pay)
		require.NoError(t, err)
		require.True(t, result.Repeated)
		_, err = w.program.ReturnTokens(t.Context(), minigame.TokenMove{Player: w.player, OrderID: "returned1", PayOrderID: "payment-1", Amount: 30})
		require.NoError(t, err)
		result, err = w.program.GiveTokens(t.Context(), minigame.TokenMove{Player: minigame.CallPlayer{OpenID: "player-1"}, OrderID: "present-1", Amount: 5})
		require.NoError(t, err)
		require.Equal(t, int64(105), result.Balance)
		balance, err := w.program.TokenBalance(t.Context(), w.player, minigame.Live)
		require.NoError(t, err)
		require.Equal(t, int64(105), balance.Balance)
		require.True(t, balance.FirstSave)
	})
}

func TestAnOutcomeThatStaysUnknownSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, func(cfg *minigame.GameConfig) { cfg.MaxRetries = 1 })
	w.wechat.GiveCoins("player-1", minigame.Live, 100)
	pay := minigame.CoinMove{CoinAccount: minigame.CoinAccount{Player: w.player}, BillNo: "bill-1", Amount: 30}

	w.wechat.NextCalls("/wxa/game/pay", minigametest.Fault{Cut: true}, minigametest.Fault{Status: 502})
	_, err := w.game.SpendCoins(t.Context(), pay)
	require.ErrorIs(t, err, minigame.ErrOutcomeUnknown)
	var response *minigame.ResponseError
	require.ErrorAs(t, err, &response)
	require.Equal(t, 502, response.StatusCode)
	result, err := w.game.SpendCoins(t.Context(), pay)
	require.NoError(t, err)
	require.True(t, result.Repeated)

	w.wechat.NextCalls("/wxa/game/getbalance", minigametest.Fault{Code: -1}, minigametest.Fault{Code: -1})
	_, err = w.game.CoinBalance(t.Context(), pay.CoinAccount)
	require.ErrorIs(t, err, minigame.ErrBusy)
	require.NotErrorIs(t, err, minigame.ErrOutcomeUnknown, "nothing can have moved")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.game.SpendCoins(ctx, pay)
	require.ErrorIs(t, err, context.Canceled)
	_, err = w.game.CoinBalance(ctx, pay.CoinAccount)
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
			client, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0", OfferID: "1", AppKey: "k", BaseURL: server.URL, RetryDelay: time.Millisecond,
				AccessToken: func(context.Context, string) (string, error) {
					if tokens.Add(1) > 1 {
						return "", errors.New("no new token")
					}
					return "token", nil
				}})
			require.NoError(t, err)
			_, err = client.SpendCoins(t.Context(), minigame.CoinMove{CoinAccount: minigame.CoinAccount{Player: minigame.CallPlayer{OpenID: "o", SessionKey: "s", IP: "203.0.113.7"}}, BillNo: "b", Amount: 1})
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
		client, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0", OfferID: "1", AppKey: "k", HTTPClient: &http.Client{Transport: transport},
			AccessToken: func(context.Context, string) (string, error) { return "token", nil }})
		require.NoError(t, err)
		_, err = client.SpendCoins(ctx, minigame.CoinMove{CoinAccount: minigame.CoinAccount{Player: minigame.CallPlayer{OpenID: "o", SessionKey: "s", IP: "203.0.113.7"}}, BillNo: "b", Amount: 1})
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
		client, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0", OfferID: "1", AppKey: "k", Secret: "app-secret", BaseURL: server.URL, MaxRetries: -1,
			AccessToken: func(context.Context, string) (string, error) { return "token", nil }})
		require.NoError(t, err)
		var callers sync.WaitGroup
		var lost atomic.Int32
		for range 16 { // they wait for connections, so that one that is free again is taken at once
			callers.Go(func() {
				for range 20 {
					_, _ = client.CoinBalance(t.Context(), minigame.CoinAccount{Player: minigame.CallPlayer{OpenID: "o", SessionKey: "s", IP: "203.0.113.7"}})
				}
			})
			callers.Go(func() {
				for range 20 {
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
		w := newWorld(t, minigametest.Config{}, func(cfg *minigame.GameConfig) { cfg.Logger = slog.New(slog.NewTextHandler(writerFunc(write), nil)) })
		w.wechat.NextCalls("/cgi-bin/stable_token", minigametest.Fault{Status: 502})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, w.game.CheckSessionKey(ctx, "player-1", w.player.SessionKey))
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
		client, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0", Secret: "app-secret", BaseURL: "http://" + listener.Addr().String()})
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
		client, err := minigame.NewProgram(minigame.ProgramConfig{AppID: "wx0", OfferID: "1", AppKey: "k", BaseURL: server.URL,
			AccessToken: func(context.Context, string) (string, error) { return "token", nil }})
		require.NoError(t, err)
		order, err := client.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "o", OrderID: "order-01"})
		require.NoError(t, err)
		require.True(t, order.Paid())
		require.Equal(t, refunded, order.Refunded(), answer)
	}
}

func TestABackOffEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(slog.NewTextHandler(writerFunc(func([]byte) { cancel() }), nil)) // at the first repetition
	w := newWorld(t, minigametest.Config{}, func(cfg *minigame.GameConfig) { cfg.RetryDelay, cfg.Logger = time.Minute, log })
	w.wechat.NextCalls("/wxa/game/pay", minigametest.Fault{Code: -1})
	_, err := w.game.SpendCoins(ctx, minigame.CoinMove{CoinAccount: minigame.CoinAccount{Player: w.player}, BillNo: "b", Amount: 1})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, minigame.ErrOutcomeUnknown)
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	w.wechat.NextCalls("/wxa/game/getbalance", minigametest.Fault{Status: 302})
	_, err := w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
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
			wait.Go(func() { _, _ = w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player}) })
		}
		wait.Wait()
		require.Equal(t, 20, w.wechat.Calls("/wxa/game/getbalance"))
		require.Equal(t, 1, w.wechat.Calls("/cgi-bin/stable_token"))
	})
	t.Run("one renewal on 40001", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{}, nil)
		require.NoError(t, w.game.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey))
		w.wechat.ExpireToken()
		_, err := w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
		require.NoError(t, err)
		w.wechat.ExpireToken()
		require.NoError(t, w.game.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey))
		require.Equal(t, 3, w.wechat.Calls("/cgi-bin/stable_token"))
	})
	t.Run("and no second one", func(t *testing.T) {
		t.Parallel()
		asked := []string{}
		w := newWorld(t, minigametest.Config{}, func(cfg *minigame.GameConfig) {
			cfg.AccessToken = func(_ context.Context, rejected string) (string, error) {
				asked = append(asked, rejected)
				return "dead", nil
			}
		})
		_, err := w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
		require.ErrorIs(t, err, minigame.ErrAccessToken)
		require.Equal(t, []string{"", "dead"}, asked)
		require.ErrorIs(t, w.game.CheckSessionKey(t.Context(), "player-1", "k"), minigame.ErrAccessToken)
	})
	t.Run("a new one five minutes before the end", func(t *testing.T) {
		t.Parallel()
		now := time.Unix(1700000000, 0)
		w := newWorld(t, minigametest.Config{Now: func() time.Time { return now }}, nil)
		call := func() {
			_, err := w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
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
	t.Run("one whose life was over before it came is tried once", func(t *testing.T) {
		t.Parallel()
		var seconds atomic.Int64
		w := newWorld(t, minigametest.Config{Now: func() time.Time { return time.Unix(1700000000+seconds.Add(1), 0) }}, nil)
		w.wechat.NextCalls("/cgi-bin/stable_token", minigametest.Fault{Body: `{"access_token":"short","expires_in":1}`})
		_, err := w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
		require.NoError(t, err, "WeChat refuses the token, and the next one is good")
		require.Equal(t, 2, w.wechat.Calls("/cgi-bin/stable_token"))
		require.Equal(t, 2, w.wechat.Calls("/wxa/game/getbalance"))
	})
	t.Run("an error reaches every caller", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{}, nil)
		w.wechat.NextCalls("/cgi-bin/stable_token", minigametest.Fault{HTML: true}, minigametest.Fault{Body: " "}, minigametest.Fault{Status: 502}, minigametest.Fault{Status: 302})
		_, err := w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
		var response *minigame.ResponseError
		require.ErrorAs(t, err, &response, "the third of three tries")
		require.Equal(t, 502, response.StatusCode)
		require.Error(t, w.game.CheckSessionKey(t.Context(), "player-1", "k"))
		require.Equal(t, 4, w.wechat.Calls("/cgi-bin/stable_token"), "a redirect is not worth another")
		w.wechat.NextCalls("/cgi-bin/stable_token", minigametest.Fault{Cut: true}, minigametest.Fault{Code: -1})
		w.wechat.NextCalls("/wxa/checksession", minigametest.Fault{Status: 502})
		require.NoError(t, w.game.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey))
	})
	t.Run("without a Secret", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, minigametest.Config{}, nil)
		cfg := w.wechat.GameConfig()
		cfg.Secret = ""
		client, err := minigame.NewGame(cfg)
		require.NoError(t, err)
		_, err = client.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
		require.ErrorContains(t, err, "Secret")
	})
	t.Run("a waiting caller obeys its context", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		defer server.Close()
		defer close(release)
		client, err := minigame.NewGame(minigame.GameConfig{AppID: "wx1", OfferID: "1", AppKey: "k", Secret: "s", BaseURL: server.URL})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = client.CoinBalance(ctx, minigame.CoinAccount{Player: minigame.CallPlayer{OpenID: "o", SessionKey: "k", IP: "1"}})
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minigametest.Config{}, nil)
	code := w.wechat.Login("player-2")
	_, err := w.game.Code2Session(t.Context(), code)
	require.NoError(t, err)
	_, err = w.game.Code2Session(t.Context(), code)
	require.ErrorIs(t, err, minigame.ErrCode, "a code works once")

	w.wechat.NextCalls("/sns/jscode2session", minigametest.Fault{Cut: true})
	calls := w.wechat.Calls("/sns/jscode2session")
	_, err = w.game.Code2Session(t.Context(), w.wechat.Login("player-2"))
	require.Error(t, err)
	require.Equal(t, calls+1, w.wechat.Calls("/sns/jscode2session"), "it is never repeated")

	require.NoError(t, w.game.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey))
	w.wechat.ExpireSession("player-1")
	require.ErrorIs(t, w.game.CheckSessionKey(t.Context(), "player-1", w.player.SessionKey), minigame.ErrLoginExpired)
	_, err = w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
	require.ErrorIs(t, err, minigame.ErrLoginExpired)
	w.login(t)
	_, err = w.game.CoinBalance(t.Context(), minigame.CoinAccount{Player: w.player})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.game.Code2Session(ctx, "code")
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
	client, err := minigame.NewGame(minigame.GameConfig{
		AppID: "wx1", OfferID: "145", AppKey: minigame.Secret(secrets[0]), Secret: minigame.Secret(secrets[2]), BaseURL: server.URL, RetryDelay: time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil)), AccessToken: func(context.Context, string) (string, error) { return secrets[3], nil },
	})
	require.NoError(t, err)
	player := minigame.CallPlayer{OpenID: "oUrsf0TSXNtiZjP7JL9UUFiGJzmQ", SessionKey: minigame.Secret(secrets[1]), IP: "203.0.113.7"}
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
		_, err1 := client.CoinBalance(t.Context(), minigame.CoinAccount{Player: player})
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
	_, err = client.CoinBalance(t.Context(), minigame.CoinAccount{Player: player})
	require.ErrorContains(t, err, "[openid] openid is invalid", "what helps is shown")
	require.ErrorIs(t, err, minigame.ErrSignature)
}

func TestBaseURLOfNobody(t *testing.T) {
	t.Parallel()
	client, err := minigame.NewGame(minigame.GameConfig{AppID: "wx1", OfferID: "1", AppKey: "k", Secret: "s3cr3t-0123", BaseURL: "http://127.0.0.1:1"})
	require.NoError(t, err)
	_, err = client.Code2Session(t.Context(), "code")
	require.ErrorContains(t, err, "connection refused")
	require.NotContains(t, err.Error(), "s3cr3t")
	require.NotContains(t, err.Error(), "js_code")
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "the cause can be matched")
	var network *net.OpError
	require.ErrorAs(t, err, &network)
}

// A client without a transport uses http.DefaultTransport, which old code bases change "for the
// test environment" (adversary review, A4). Not a parallel test: it does so itself.
func TestADefaultTransportWithoutTLSVerificationIsRefused(t *testing.T) {
	previous := http.DefaultTransport
	defer func() { http.DefaultTransport = previous }()
	http.DefaultTransport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	for _, hc := range []*http.Client{{}, http.DefaultClient} {
		_, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0", HTTPClient: hc})
		var wrong *minigame.ConfigError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, "HTTPClient", wrong.Field)
	}
}

// The access token is fetched in a goroutine of its own, where a panic ends the process and a
// goroutine that ends leaves the next call waiting (A9).
func TestATransportThatBreaksTheFetchOfATokenFailsTheCallAlone(t *testing.T) {
	t.Parallel()
	for what, breaks := range map[string]func(){"panic": func() { panic("a mirror's bug") }, "Goexit": runtime.Goexit} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			broken.Store(true)
			transport := roundTripper(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "stable_token") && broken.Load() {
					breaks()
				}
				w := httptest.NewRecorder()
				fmt.Fprint(w, `{"errcode":0,"access_token":"token","expires_in":7200,"out_trade_no":"order-01"}`)
				return w.Result(), nil
			})
			client, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0", OfferID: "1", AppKey: "k", Secret: "s", MaxRetries: -1, HTTPClient: &http.Client{Transport: transport}})
			require.NoError(t, err)
			query := minigame.GameOrderQuery{Player: minigame.CallPlayer{OpenID: "o", SessionKey: "s"}, OutTradeNo: "order-01"}
			_, err = client.QueryOrder(t.Context(), query)
			require.ErrorContains(t, err, "access token")
			broken.Store(false)
			_, err = client.QueryOrder(t.Context(), query)
			require.NoError(t, err, "the next call fetches it")
		})
	}
}

// A "-" does not make two short words of an openid or a token (A10).
func TestWhatWeChatRepeatsOfACallIsWithheld(t *testing.T) {
	t.Parallel()
	const openID, token = "oOpEnIdX-AbCdEfGh-IjKlMnOp", "84_AbCdEfGh-IjKlMnOp-QrStUvWx"
	for message, want := range map[string]string{
		"openid " + openID + " is wrong":                        "[withheld]",
		"openid " + openID[:10] + " is wrong":                   "[withheld]",
		"access_token " + token[:12]:                            "[withheld]",
		"system error rid: 69ddee24-00000000-00000000":          "system error rid: 69ddee24-00000000-00000000",
		"invalid args, hint: [" + openID[:9] + "] rid: 1-2-3-4": "[withheld]",
		"invalid credential":                                    "invalid credential",
	} {
		transport := roundTripper(func(*http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			fmt.Fprintf(w, `{"errcode":90018,"errmsg":%q}`, message)
			return w.Result(), nil
		})
		client, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0", OfferID: "1", AppKey: "k", HTTPClient: &http.Client{Transport: transport},
			AccessToken: func(context.Context, string) (string, error) { return token, nil }})
		require.NoError(t, err)
		_, err = client.QueryOrder(t.Context(), minigame.GameOrderQuery{Player: minigame.CallPlayer{OpenID: openID, SessionKey: "s"}, OutTradeNo: "order-01"})
		var refused *minigame.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, want, refused.Msg)
	}
}

// Whatever WeChat or a proxy repeats of a call, and in whatever notation: no 8 bytes of what was
// sent, and no encoded value, are in an error.
func FuzzNoPieceOfACallShows(f *testing.F) {
	encoders := []func(string) string{
		func(s string) string { return s }, url.QueryEscape, url.PathEscape, html.EscapeString,
		func(s string) string { text, _ := json.Marshal(s); return string(text[1 : len(text)-1]) },
		func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		func(s string) string { return hex.EncodeToString([]byte(s)) },
	}
	for i := range encoders {
		f.Add("invalid openid ", "oOpEnIdX-AbCdEfGh-IjKlMnOp", "9hAb/NEYUlkaMBEsmFgzig==", "84_AbCdEfGh-IjKlMnOp", " rid: 69ddee24-00000000-00000000", uint8(i))
	}
	f.Fuzz(func(t *testing.T, before, openID, sessionKey, token, after string, encoder uint8) {
		if openID == "" || sessionKey == "" || token == "" {
			return
		}
		encode := encoders[int(encoder)%len(encoders)]
		message, _ := json.Marshal(before + encode(openID) + encode(sessionKey) + encode(token) + after)
		transport := roundTripper(func(*http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			fmt.Fprintf(w, `{"errcode":90018,"errmsg":%s}`, message)
			return w.Result(), nil
		})
		game, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0", OfferID: "1", AppKey: "an-app-key-in-words", HTTPClient: &http.Client{Transport: transport},
			AccessToken: func(context.Context, string) (string, error) { return token, nil }})
		require.NoError(t, err)
		_, err = game.QueryOrder(t.Context(), minigame.GameOrderQuery{Player: minigame.CallPlayer{OpenID: openID, SessionKey: minigame.Secret(sessionKey)}, OutTradeNo: "order-01"})
		var refused *minigame.Error
		if !errors.As(err, &refused) || refused.Msg == "[withheld]" {
			return
		}
		for _, value := range []string{openID, sessionKey, token} {
			for i := 0; i+8 <= len(value); i++ {
				require.NotContains(t, refused.Msg, value[i:i+8])
			}
			if len(value) >= 2*8 {
				require.NotContains(t, refused.Msg, encode(value))
			}
		}
	})
}

// "Returned before" may be the first try's doing: it does not settle what became of the call.
func TestReturnedBeforeSettlesNothingAfterALostAnswer(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		tries := 0
		transport := roundTripper(func(*http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			if tries++; tries == 1 && lost {
				w.WriteHeader(502)
			} else {
				errcode(268490005)(w)
			}
			return w.Result(), nil
		})
		program, err := minigame.NewProgram(minigame.ProgramConfig{AppID: "wx0", OfferID: "1", AppKey: "k", RetryDelay: time.Nanosecond, HTTPClient: &http.Client{Transport: transport},
			AccessToken: func(context.Context, string) (string, error) { return "token", nil }})
		require.NoError(t, err)
		_, err = program.ReturnTokens(t.Context(), minigame.TokenMove{Player: minigame.CallPlayer{OpenID: "o", SessionKey: "s", IP: "203.0.113.7"}, OrderID: "return-001", PayOrderID: "payment-01", Amount: 1})
		require.Error(t, err)
		require.Equal(t, lost, errors.Is(err, minigame.ErrOutcomeUnknown), "%v", err)
	}
}
