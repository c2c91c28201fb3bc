package minigame

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

const (
	successJSON = `{"ErrCode":0,"ErrMsg":"Success"}`
	failJSON    = `{"ErrCode":99999,"ErrMsg":"internal error"}`
)

// Events of the table, as tests use them.
const (
	eventGoods  = "minigame_game_pay_goods_deliver_notify"
	eventShop   = "minigame_h5_goods_deliver_notify"
	eventCoins  = "minigame_coin_deliver_completed"
	eventRefund = "minigame_pay_refund_succ_notify"
)

// heard collects what an account reports.
type heard struct {
	mu   sync.Mutex
	list []PushEvent
}

func (e *heard) add(event PushEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

// wait returns the events once the client has reported all of them.
func (e *heard) wait(t testing.TB, c interface{ Wait(context.Context) error }) []PushEvent {
	require.NoError(t, c.Wait(t.Context()))
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.list
}

func post(h http.Handler, query, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/push?"+query, strings.NewReader(body)))
	return w
}

func goods() string { return gamePush(eventGoods, goodsPayload, "12345", false) }

func TestVerificationAnswersTheEchostrAlone(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
	h := client.PushHandler(GameHandlers{})
	verifications := slices.DeleteFunc(vectors(t, "push_signature"), func(v vector) bool { return v.Echostr == "" })
	require.Len(t, verifications, 1)
	for _, v := range verifications {
		get := func(query url.Values) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/push?"+query.Encode(), nil))
			return w
		}
		query := url.Values{"signature": {v.expected(t)}, "timestamp": {v.Inputs.Timestamp}, "nonce": {v.Inputs.Nonce}, "echostr": {v.Echostr}}
		w := get(query)
		require.Equal(t, 200, w.Code)
		require.Equal(t, v.Answer, w.Body.String())
		require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))

		query.Set("echostr", "<b>ü")
		require.Equal(t, "<b>ü", get(query).Body.String(), "decoded, and as text")

		query.Add("nonce", "1")
		require.Equal(t, 403, get(query).Code)
		query.Set("nonce", "1")
		require.Equal(t, 403, get(query).Code)
	}
	outcomes := seen.wait(t, client)
	require.Equal(t, Verification, outcomes[0].Outcome)
	require.Equal(t, Unverified, outcomes[len(outcomes)-1].Outcome)
}

func TestAnswersOfTheHandler(t *testing.T) {
	t.Parallel()
	refund := gamePush(eventRefund, `{"RefundId":"r1","RefundAmount":100,"RefundSource":1,"Env":0,"OutTradeNo":"order-01"}`, "12345", false)
	coins := gamePush(eventCoins, `{"OpenId":"o","OutTradeNo":"c1","Env":0,"CoinInfo":{"ZoneId":"1","TotalPrice":100,"BuyQuantity":10}}`, "12345", false)
	fails := errors.New("no")
	for _, test := range []struct {
		sentence string
		handlers GameHandlers
		body     string
		status   int
		answer   string
		outcome  Outcome
	}{
		{"a delivery", GameHandlers{Deliver: func(context.Context, *Delivery) error { return nil }}, goods(), 200, successJSON, Handled},
		{"a delivery that fails", GameHandlers{Deliver: func(context.Context, *Delivery) error { return fails }}, goods(), 200, failJSON, Failed},
		{"a panic", GameHandlers{Deliver: func(context.Context, *Delivery) error { panic("boom") }}, goods(), 200, failJSON, Panicked},
		{"a nil panic", GameHandlers{Deliver: func(context.Context, *Delivery) error { panic(nil) }}, goods(), 200, failJSON, Panicked},
		{"the end of the goroutine", GameHandlers{Deliver: func(context.Context, *Delivery) error { runtime.Goexit(); return nil }}, goods(), 200, failJSON, Panicked},
		{"an error whose text panics", GameHandlers{Deliver: func(context.Context, *Delivery) error { return (*textless)(nil) }}, goods(), 200, failJSON, Panicked},
		{"a delivery nobody grants", GameHandlers{}, goods(), 200, failJSON, Failed},
		{"a refund", GameHandlers{Refund: func(_ context.Context, r *RefundPush) error {
			if r.RefundID != "r1" || !r.EnvKnown {
				return fails
			}
			return nil
		}}, refund, 200, successJSON, Handled},
		{"a refund nobody notes", GameHandlers{}, refund, 200, failJSON, Failed},
		{"coins", GameHandlers{Coins: func(_ context.Context, c *CoinPayment) error {
			if c.Quantity != 10 || c.ActualPrice != 100 {
				return fails
			}
			return nil
		}}, coins, 200, successJSON, Handled},
		{"coins nobody cares about", GameHandlers{}, coins, 200, successJSON, Ignored},
		{"coins as something else", GameHandlers{Other: func(_ context.Context, p *Push) error { return fails }}, coins, 200, failJSON, Failed},
		{"another message", GameHandlers{}, `{"MsgType":"text","Content":"hi"}`, 200, "success", Ignored},
		{"a mock push", GameHandlers{Deliver: func(context.Context, *Delivery) error { return fails }}, gamePush(eventGoods, goodsPayload, "wrong", true), 200, successJSON, Mock},
		{"a forgery", GameHandlers{}, gamePush(eventGoods, goodsPayload, "wrong", false), 403, failJSON, Unverified},
		{"a sandbox payment", GameHandlers{}, gamePush(eventGoods, strings.Replace(goodsPayload, `"Env":0`, `"Env":1`, 1), "67890", false), 200, failJSON, WrongEnv},
		{"a malformed push", GameHandlers{}, gamePush(eventGoods, `{"Env":0}`, "12345", false), 200, failJSON, Malformed},
		{"too much", GameHandlers{}, goods() + strings.Repeat(" ", 1<<20), 403, failJSON, Unverified},
	} {
		t.Run(test.sentence, func(t *testing.T) {
			var seen heard
			var log strings.Builder
			client := newGame(t, func(cfg *GameConfig) {
				cfg.OnPush = seen.add
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			w := post(client.PushHandler(test.handlers), plainQuery(), test.body)
			require.Equal(t, test.status, w.Code)
			require.Equal(t, test.answer, w.Body.String())
			require.Equal(t, fmt.Sprint(len(test.answer)), w.Header().Get("Content-Length"))
			got := seen.wait(t, client)
			require.Len(t, got, 1, "one event for each answer")
			require.Equal(t, test.outcome, got[0].Outcome)
			require.Equal(t, test.status == 200 && test.answer != failJSON, got[0].OK)
			require.Equal(t, 1, strings.Count(log.String(), "\n"), "and one line: %s", &log)
			require.Contains(t, log.String(), "outcome="+string(test.outcome))
		})
	}
	t.Run("another method", func(t *testing.T) {
		w := httptest.NewRecorder()
		newGame(t, nil).PushHandler(GameHandlers{}).ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/", nil))
		require.Equal(t, 405, w.Code)
	})
}

type textless struct{ text string }

func (e *textless) Error() string { return e.text }

func TestTheTwoMoments(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen heard
		client := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
		var ended time.Duration
		start := time.Now()
		release := make(chan struct{})
		w := post(client.PushHandler(GameHandlers{Deliver: func(ctx context.Context, _ *Delivery) error {
			<-ctx.Done()
			ended = time.Since(start)
			<-release
			return nil
		}}), plainQuery(), goods())
		require.Equal(t, failJSON, w.Body.String())
		require.Equal(t, 2500*time.Millisecond, time.Since(start), "the answer leaves")
		close(release)
		got := seen.wait(t, client)
		require.Equal(t, 2000*time.Millisecond, ended, "the context ends")
		require.Len(t, got, 2)
		require.Equal(t, TimedOut, got[0].Outcome)
		require.Equal(t, PushEvent{
			Outcome: Handled, Late: true, OK: true, Duration: got[1].Duration, Event: eventGoods, OpenID: "player-1", OutTradeNo: "order-01",
		}, got[1])
	})
}

func TestShedding(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) { cfg.MaxDeliveries, cfg.OnPush = 1, seen.add })
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h := client.PushHandler(GameHandlers{Deliver: func(context.Context, *Delivery) error {
		once.Do(func() { close(entered); <-release })
		return nil
	}})
	first := make(chan string)
	go func() { first <- post(h, plainQuery(), goods()).Body.String() }()
	<-entered
	require.Error(t, client.Ready())
	require.Equal(t, failJSON, post(h, plainQuery(), goods()).Body.String())
	require.Equal(t, successJSON, post(h, plainQuery(), gamePush(eventGoods, goodsPayload, "12345", true)).Body.String(), "a mock needs no function")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, client.Wait(ended), context.Canceled)
	close(release)
	require.Equal(t, successJSON, <-first)
	require.Equal(t, Shed, seen.wait(t, client)[0].Outcome)
	require.NoError(t, client.Ready()) // its place is given back after the answer
}

func TestABodyThatDoesNotArriveIsGivenUp(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) {
		cfg.OnPush, cfg.DeliverTimeout, cfg.AnswerTimeout = seen.add, 50*time.Millisecond, 60*time.Millisecond
	})
	server := httptest.NewServer(client.PushHandler(GameHandlers{}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /push?%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", plainQuery())
	answer, err := io.ReadAll(conn) // the server closes the connection
	require.NoError(t, err)
	require.Contains(t, string(answer), "403 Forbidden")
	require.Equal(t, Unverified, seen.wait(t, client)[0].Outcome)
}

func TestAClosedConnectionEndsTheContext(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
	entered := make(chan struct{})
	server := httptest.NewServer(client.PushHandler(GameHandlers{Deliver: func(ctx context.Context, _ *Delivery) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	fmt.Fprintf(conn, "POST /push?%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", plainQuery(), len(goods()), goods())
	<-entered
	conn.Close()
	server.Close() // waits for the handler
	require.Equal(t, HungUp, seen.wait(t, client)[0].Outcome)
}

type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { panic("gone") }

func TestAResponseWriterThatPanics(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
	client.PushHandler(GameHandlers{Deliver: func(context.Context, *Delivery) error { return nil }}).
		ServeHTTP(brokenWriter{httptest.NewRecorder()}, httptest.NewRequest(http.MethodPost, "/?"+plainQuery(), strings.NewReader(goods())))
	require.Equal(t, HungUp, seen.wait(t, client)[0].Outcome)
}

func TestALogHandlerThatBlocksHoldsUpNothing(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	client := newGame(t, func(cfg *GameConfig) {
		cfg.OnPush = func(PushEvent) { <-block; panic("hook") }
	})
	h := client.PushHandler(GameHandlers{})
	for range 1010 { // more than may wait
		require.Equal(t, 200, post(h, plainQuery(), gamePush(eventGoods, goodsPayload, "12345", true)).Code)
	}
	close(block)
	require.NoError(t, client.Wait(t.Context()))
}

func TestForgeriesFillNoLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	client := newGame(t, func(cfg *GameConfig) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	h := client.PushHandler(GameHandlers{})
	for range 100 {
		post(h, "", goods())
	}
	require.NoError(t, client.Wait(t.Context()))
	require.Equal(t, 10, strings.Count(log.String(), "\n"))
}

// Somebody has to find a paid order that cannot be granted.
func TestAMalformedDeliveryNamesItsOrder(t *testing.T) {
	t.Parallel()
	deliver := func(context.Context, *Delivery) error { return nil }
	refund := func(context.Context, *RefundPush) error { return nil }
	malformed := func(h http.Handler, client interface{ Wait(context.Context) error }, seen *heard, query, body string) {
		t.Helper()
		require.Contains(t, post(h, query, body).Body.String(), "99999")
		e := seen.wait(t, client)[0]
		require.Equal(t, Malformed, e.Outcome)
		require.Equal(t, "order-01", e.OutTradeNo, body)
		require.Equal(t, "player-1", e.OpenID, body)
	}
	const backwards = `{"GoodsInfo":{"Quantity":"two","ProductId":"sword"},"Env":0,"OutTradeNo":"order-01","OpenId":"player-1"}`
	for _, change := range [][2]string{{`"ZoneId":"1"`, `"ZoneId":1`}, {`"OrigPrice":1000`, `"OrigPrice":-1`}, {`"OrigPrice":1000`, `"OrigPrice":1000.0`},
		{`"ProductId":"sword"`, `"ProductId":""`}, {goodsPayload, backwards}} {
		var seen heard
		payload := strings.Replace(goodsPayload, change[0], change[1], 1)
		require.NotEqual(t, goodsPayload, payload)
		game := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
		malformed(game.PushHandler(GameHandlers{Deliver: deliver, Refund: refund}), game, &seen, plainQuery(), gamePush(eventGoods, payload, "12345", false))
	}
	for _, message := range []string{
		`{"Event":"xpay_goods_deliver_notify","GoodsInfo":{"Quantity":"two"},"OpenId":"player-1","OutTradeNo":"order-01","Env":0}`,
		`{"Event":"xpay_refund_notify","RefundFee":"some","OpenId":"player-1","MchOrderId":"order-01"}`,
		`<xml><Event>xpay_goods_deliver_notify</Event><GoodsInfo><Quantity>two</Quantity></GoodsInfo><OpenId>player-1</OpenId><OutTradeNo>order-01</OutTradeNo></xml>`,
	} {
		var seen heard
		program := newProgram(t, func(cfg *ProgramConfig) { cfg.OnPush = seen.add })
		query, body := sealed(t, "wxba5fad812f8e6fb9", message)
		malformed(program.PushHandler(ProgramHandlers{Deliver: deliver, Refund: refund}), program, &seen, query, body)
	}
}

// A request whose body is only promised is answered without it.
func TestABodyThatIsOnlyPromised(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newGame(t, nil).PushHandler(GameHandlers{}))
	defer server.Close()
	for method, status := range map[string]string{"GET": "403", "PUT": "405"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		fmt.Fprintf(conn, "%s /push HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", method)
		answer, err := io.ReadAll(conn) // the server closes the connection
		require.NoError(t, err, method)
		require.Contains(t, string(answer), status)
	}
}

// A proxy may escape the "?": then the path holds what a stranger could use again.
func TestAQueryInThePathIsNotShown(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
	r := httptest.NewRequest(http.MethodPost, "/push%3F"+plainQuery(), strings.NewReader(goods()))
	client.PushHandler(GameHandlers{}).ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, "/push", seen.wait(t, client)[0].Path)
}

// Pushes that anybody can send wait in no memory without a limit; those that are believed are not dropped.
func TestForgeriesFillNoMemory(t *testing.T) {
	t.Parallel()
	for _, forged := range []bool{false, true} {
		var seen heard
		block := make(chan struct{})
		client := newGame(t, func(cfg *GameConfig) {
			cfg.OnPush = func(e PushEvent) { <-block; seen.add(e) }
		})
		h := client.PushHandler(GameHandlers{Deliver: func(context.Context, *Delivery) error { return errors.New("not now") }})
		const sent = 1500
		for i := range sent {
			key := "12345"
			if forged {
				key = "a guess"
			}
			post(h, plainQuery(), gamePush(eventGoods, strings.Replace(goodsPayload, "order-01", fmt.Sprint("order-", i), 1), key, false))
		}
		close(block)
		if list := seen.wait(t, client); forged {
			require.Less(t, len(list), sent)
		} else {
			require.Len(t, list, sent)
		}
	}
}

// What is not checked for its length is cut.
func TestAnEventIsSmall(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newProgram(t, func(cfg *ProgramConfig) { cfg.OnPush = seen.add })
	query, body := sealed(t, "wxba5fad812f8e6fb9", `{"Event":"xpay_complaint_notify","OpenId":"o","MchOrderId":"`+strings.Repeat("x", 60_000)+`"}`)
	post(client.PushHandler(ProgramHandlers{}), query, body)
	require.Equal(t, strings.Repeat("x", maxName)+"…", seen.wait(t, client)[0].OutTradeNo)
}

// TestHostileBodies posts a thousand bodies that are not WeChat's: changed, cut, nested or
// made of noise. None may be delivered, or take long.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	var delivered atomic.Int64
	handlers := GameHandlers{
		Deliver: func(context.Context, *Delivery) error { delivered.Add(1); return nil },
		Refund:  func(context.Context, *RefundPush) error { delivered.Add(1); return nil },
		Coins:   func(context.Context, *CoinPayment) error { delivered.Add(1); return nil },
	}
	game := newGame(t, nil).PushHandler(handlers)
	secure := newGame(t, func(cfg *GameConfig) { cfg.PushKeys[0].EncodingAESKey = testAESKey }).PushHandler(handlers)
	mini := newProgram(t, nil).PushHandler(ProgramHandlers{Deliver: handlers.Deliver, Refund: handlers.Refund, Coins: handlers.Coins})
	random := rand.New(rand.NewPCG(1, 2))
	good, xpay := goods(), `{"MsgType":"event","Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`
	head, _, _ := strings.Cut(good, `"MiniGame"`)
	sealedQuery, sealedBody := sealed(t, "wxba5fad812f8e6fb9", good)
	encrypted := strings.Index(sealedBody, `"Encrypt":"`) + len(`"Encrypt":"`)

	require.Equal(t, successJSON, post(game, plainQuery(), good).Body.String(), "the counter-example")
	require.Equal(t, successJSON, post(secure, sealedQuery, sealedBody).Body.String())
	require.Equal(t, int64(2), delivered.Swap(0))

	change := func(body string, from, to int) string { // one byte, so that the meaning changes
		b := []byte(body)
		i := from + random.IntN(to-from)
		for old := b[i]; b[i] == old || b[i]|0x20 == old|0x20; {
			b[i] = byte(random.IntN(256))
		}
		return string(b)
	}
	payload := strings.Index(good, `"PayEventSig":"`) + len(`"PayEventSig":"`) // from here on
	payloadEnd := strings.Index(good, `"},"MsgType"`)                          // to here everything is signed, or the signature
	require.Less(t, payload, payloadEnd)
	for i := range 1000 {
		query, body, h := plainQuery(), "", game
		switch i % 10 {
		case 0:
			body = change(good, payload, payloadEnd)
		case 1:
			body = good[:random.IntN(len(good)-2)]
		case 2:
			body = strings.Repeat(`{"MiniGame":`, random.IntN(20000))
		case 3:
			body = strings.Repeat(`<xml>`, random.IntN(20000))
		case 4:
			noise := make([]byte, random.IntN(2000))
			for j := range noise {
				noise[j] = byte(random.IntN(256))
			}
			body = string(noise)
		case 5:
			query, body, h = sealedQuery, change(sealedBody, encrypted, len(sealedBody)-2), secure
		case 6:
			query, body, h = sealedQuery, good, secure
		case 7:
			body, h = xpay, mini
		case 8:
			body = head + `"OpenId":"o","OutTradeNo":"n","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`
		case 9:
			body = `<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><xml><Event>&b;</Event><MiniGame><Payload>` + strings.Repeat("&amp;", i) + `</Payload></MiniGame></xml>`
		}
		w := post(h, query, body)
		require.Contains(t, []int{200, 403}, w.Code)
	}
	require.Zero(t, delivered.Load())
}

func FuzzPush(f *testing.F) {
	f.Add(plainQuery(), goods())
	query, body := sealed(f, "wxba5fad812f8e6fb9", goods())
	f.Add(query, body)
	f.Add(plainQuery(), `{"MsgType":"event","Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`)
	f.Add(plainQuery(), `<xml><Event>x</Event><MiniGame><Payload>{}</Payload></MiniGame></xml>`)
	game := newGame(f, func(cfg *GameConfig) {
		cfg.PushKeys = append(cfg.PushKeys, PushKey{Token: "AAAAA", EncodingAESKey: testAESKey})
	})
	mini := newProgram(f, nil)
	f.Fuzz(func(t *testing.T, query, body string) {
		p, err := game.ParsePush(query, []byte(body))
		require.Equal(t, err == nil, p != nil)
		if p != nil && p.Content != nil {
			// Only the seed's payload is signed under a key that the fuzzer does not have.
			require.IsType(t, &Delivery{}, p.Content)
			require.Equal(t, "order-01", p.Content.(*Delivery).OutTradeNo)
			require.True(t, p.Authentic)
		}
		p, err = mini.ParsePush(query, []byte(body))
		if err == nil { // the seed's alone
			require.True(t, p.Authentic)
			require.Contains(t, query, "aes")
		}
	})
}

// FuzzMessage reads any message in secure mode: what is handed on names its payment and its player,
// and is of an environment that is served.
func FuzzMessage(f *testing.F) {
	for _, message := range []string{
		goods(), gamePush(eventRefund, `{"RefundId":"r1","RefundAmount":100,"Env":0}`, "12345", false),
		`{"Event":"minigame_deliver_goods","MiniGame":{"OrderId":"g","ToUserOpenid":"o","GoodsList":[{"Id":"a","Num":1}]}}`,
		`{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"n","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1},"CoinInfo":{"Quantity":1},"AppleSubscriptionInfo":{}}`,
		`{"Event":"xpay_refund_notify","OpenId":"o","WxRefundId":"w","MchOrderId":"n","RefundFee":1,"RetCode":0}`,
		`{"Event":"xpay_complaint_notify","ComplaintTime":"1700000000"}`, `{"channel_bill":"b","bundleid":"c","p_count":"1"}`,
		`<xml><Event>xpay_coin_pay_notify</Event><OpenId>o</OpenId><OutTradeNo>n</OutTradeNo><Env>0</Env><CoinInfo><Quantity>1</Quantity></CoinInfo></xml>`,
	} {
		f.Add(message)
	}
	game := newGame(f, func(cfg *GameConfig) { cfg.PushKeys[0].EncodingAESKey = testAESKey })
	program := newProgram(f, nil)
	f.Fuzz(func(t *testing.T, message string) {
		query, body := sealed(t, "wxba5fad812f8e6fb9", message)
		for _, c := range []*core{game.core, program.core} {
			p, err := c.ParsePush(query, []byte(body))
			require.Equal(t, err == nil, p != nil)
			if p == nil {
				continue
			}
			delivery, isDelivery := p.Content.(*Delivery)
			if charge, ok := p.Content.(*SubscriptionCharge); ok {
				require.True(t, c.program)
				delivery, isDelivery = &charge.Delivery, true
			}
			switch pushed := p.Content.(type) {
			case *RefundPush:
				require.NotEmpty(t, pushed.RefundID)
				require.GreaterOrEqual(t, pushed.Amount, midas.Amount(0))
			case *CoinPayment:
				require.NotEmpty(t, pushed.OpenID+pushed.OutTradeNo)
				require.Positive(t, pushed.Quantity)
				require.Equal(t, Live, pushed.Env)
			case *Gift:
				require.False(t, c.program)
				require.NotEmpty(t, pushed.Items)
			}
			if isDelivery {
				require.NotEmpty(t, delivery.OpenID)
				require.NotEmpty(t, delivery.OutTradeNo)
				require.NotEmpty(t, delivery.ProductID)
				require.Positive(t, delivery.Quantity)
				require.GreaterOrEqual(t, min(delivery.OrigPrice, delivery.ActualPrice), midas.Amount(0))
				require.Equal(t, Live, delivery.Env)
			}
			_ = fmt.Sprintf("%+v", p.Content)
		}
	})
}

// Anybody can send a push that does not verify, with a path of a megabyte.
func TestAnUnverifiedEventIsSmall(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
	r := httptest.NewRequest("POST", "/"+strings.Repeat("p", 1<<20), nil)
	r.RemoteAddr = strings.Repeat("r", 1<<20) // middleware may have taken it from a header
	client.PushHandler(GameHandlers{}).ServeHTTP(httptest.NewRecorder(), r)
	got := seen.wait(t, client)
	require.Len(t, got, 1)
	require.LessOrEqual(t, len(got[0].Path), 110)
	require.LessOrEqual(t, len(got[0].Remote), 110)
}

// In plaintext mode a URL that was seen once signs any body: it must not ring a pager, and each
// kind of line is limited (adversary review, A11).
func TestWhatAStrangerSendsWritesFewAndQuietLines(t *testing.T) {
	t.Parallel()
	for what, body := range map[string]string{
		"no object MiniGame":            `{"Event":"minigame_game_pay_goods_deliver_notify"}`,
		"an event of the other product": `{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"order-01"}`,
		"a mock":                        gamePush(eventGoods, goodsPayload, "wrong key", true),
		"a message":                     `{"MsgType":"text","Event":"x"}`,
		"a forged payment":              gamePush(eventGoods, goodsPayload, "wrong key", false),
		"nonsense":                      "nonsense",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder // written by one goroutine, and read after Wait
			client := newGame(t, func(cfg *GameConfig) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			h := client.PushHandler(GameHandlers{})
			for range 100 {
				post(h, plainQuery(), body)
			}
			require.NoError(t, client.Wait(t.Context()))
			require.Equal(t, 10, strings.Count(log.String(), "\n"), log.String())
			require.NotContains(t, log.String(), "level=ERROR")
		})
	}
}

// A name is cut between two characters, or a metrics library may refuse it (shape review, A3).
func TestANameIsCutOnACharacter(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
	post(client.PushHandler(GameHandlers{}), plainQuery(), `{"MsgType":"event","Event":"`+strings.Repeat("剑", 200)+`"}`)
	event := seen.wait(t, client)[0].Event
	require.Equal(t, strings.Repeat("剑", 170)+"…", event)
}

func TestARepeatIsToldFromAGrant(t *testing.T) {
	t.Parallel()
	var seen heard
	client := newGame(t, func(cfg *GameConfig) { cfg.OnPush = seen.add })
	calls := 0
	h := client.PushHandler(GameHandlers{Deliver: func(ctx context.Context, _ *Delivery) error {
		if calls++; calls > 1 {
			MarkRepeat(ctx)
		}
		return nil
	}})
	post(h, plainQuery(), goods())
	post(h, plainQuery(), goods())
	list := seen.wait(t, client)
	require.Equal(t, []bool{false, true}, []bool{list[0].Repeat, list[1].Repeat})
	require.Equal(t, []Outcome{Handled, Handled}, []Outcome{list[0].Outcome, list[1].Outcome})
}

// Keys of both kinds are changed without refusing a push, and the event says which it was.
func TestAKeyIsChangedWithoutRefusingAPush(t *testing.T) {
	t.Parallel()
	var seen heard
	otherAES := strings.Repeat("B", 43)
	game := newGame(t, func(cfg *GameConfig) {
		cfg.OnPush, cfg.OtherAppKeys = seen.add, []Secret{"older", "oldest"}
		cfg.PushKeys = append(cfg.PushKeys, PushKey{Token: "other", EncodingAESKey: Secret(otherAES)})
	})
	h := game.PushHandler(GameHandlers{Deliver: func(context.Context, *Delivery) error { return nil }})
	for _, key := range []string{"12345", "older", "oldest"} {
		require.Equal(t, successJSON, post(h, plainQuery(), gamePush(eventGoods, goodsPayload, key, false)).Body.String())
	}
	require.Equal(t, 403, post(h, plainQuery(), gamePush(eventGoods, goodsPayload, "gone", false)).Code)
	encrypted, err := EncryptPush(otherAES, "wxba5fad812f8e6fb9", []byte(gamePush(eventGoods, goodsPayload, "older", false)))
	require.NoError(t, err)
	query := "encrypt_type=aes&timestamp=1&nonce=n&msg_signature=" + PushSignature("other", "1", "n", encrypted)
	require.Equal(t, 200, post(h, query, `{"Encrypt":"`+encrypted+`"}`).Code)
	var keys []any
	for _, e := range seen.wait(t, game) {
		keys = append(keys, []any{e.Outcome, e.Key, e.PushKey})
	}
	require.Equal(t, []any{[]any{Handled, 0, 0}, []any{Handled, 1, 0}, []any{Handled, 2, 0}, []any{Unverified, 0, 0}, []any{Handled, 1, 1}}, keys)

	for field, others := range map[string][]Secret{
		"OtherAppKeys[0]": {""}, "OtherAppKeys[1]": {"a", "a"}, "OtherAppKeys[2]": {"a", "b", "c&"}, "OtherAppKeys": {"a", "b", "c", "d"}, "SandboxAppKey": {"67890"},
	} {
		_, err := NewGame(GameConfig{AppID: "wx0", AppKey: "12345", SandboxAppKey: "67890", OtherAppKeys: others})
		var wrong *ConfigError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, field, wrong.Field)
	}
}
