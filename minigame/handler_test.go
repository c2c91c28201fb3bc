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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	successJSON = `{"ErrCode":0,"ErrMsg":"Success"}`
	failJSON    = `{"ErrCode":99999,"ErrMsg":"internal error"}`
)

// events collects what a client reports.
type events struct {
	mu   sync.Mutex
	list []PushEvent
}

func (e *events) add(event PushEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

// wait returns the events once the client has reported all of them.
func (e *events) wait(t testing.TB, c *Client) []PushEvent {
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
	var seen events
	client := newClient(t, func(cfg *Config) { cfg.OnPush = seen.add })
	h := client.PushHandler(Handlers{})
	eachVector(t, "push_signature", func(t *testing.T, v *vector) {
		if v.Echostr == "" {
			t.Skip("a push")
		}
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
	})
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
		handlers Handlers
		body     string
		status   int
		answer   string
		outcome  Outcome
	}{
		{"a delivery", Handlers{Deliver: func(context.Context, *Delivery) error { return nil }}, goods(), 200, successJSON, Done},
		{"a delivery that fails", Handlers{Deliver: func(context.Context, *Delivery) error { return fails }}, goods(), 200, failJSON, Failed},
		{"a panic", Handlers{Deliver: func(context.Context, *Delivery) error { panic("boom") }}, goods(), 200, failJSON, Panicked},
		{"a nil panic", Handlers{Deliver: func(context.Context, *Delivery) error { panic(nil) }}, goods(), 200, failJSON, Panicked},
		{"the end of the goroutine", Handlers{Deliver: func(context.Context, *Delivery) error { runtime.Goexit(); return nil }}, goods(), 200, failJSON, Panicked},
		{"an error whose text panics", Handlers{Deliver: func(context.Context, *Delivery) error { return (*textless)(nil) }}, goods(), 200, failJSON, Panicked},
		{"a delivery nobody grants", Handlers{}, goods(), 200, failJSON, Failed},
		{"a refund", Handlers{Refund: func(_ context.Context, r *Refund) error {
			if r.RefundID != "r1" || !r.EnvKnown {
				return fails
			}
			return nil
		}}, refund, 200, successJSON, Done},
		{"a refund nobody notes", Handlers{}, refund, 200, failJSON, Failed},
		{"coins", Handlers{Coins: func(_ context.Context, c *CoinPayment) error {
			if c.Quantity != 10 || c.ActualPrice != 100 {
				return fails
			}
			return nil
		}}, coins, 200, successJSON, Done},
		{"coins nobody cares about", Handlers{}, coins, 200, successJSON, Ignored},
		{"coins as something else", Handlers{Other: func(_ context.Context, p *Push) error { return fails }}, coins, 200, failJSON, Failed},
		{"another message", Handlers{}, `{"MsgType":"text","Content":"hi"}`, 200, "success", Ignored},
		{"a mock push", Handlers{Deliver: func(context.Context, *Delivery) error { return fails }}, gamePush(eventGoods, goodsPayload, "wrong", true), 200, successJSON, Mock},
		{"a forgery", Handlers{}, gamePush(eventGoods, goodsPayload, "wrong", false), 403, failJSON, Unverified},
		{"a sandbox payment", Handlers{}, gamePush(eventGoods, strings.Replace(goodsPayload, `"Env":0`, `"Env":1`, 1), "67890", false), 200, failJSON, WrongEnv},
		{"a malformed push", Handlers{}, gamePush(eventGoods, `{"Env":0}`, "12345", false), 200, failJSON, Malformed},
		{"too much", Handlers{}, goods() + strings.Repeat(" ", 1<<20), 403, failJSON, Unverified},
	} {
		t.Run(test.sentence, func(t *testing.T) {
			var seen events
			var log strings.Builder
			client := newClient(t, func(cfg *Config) {
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
		newClient(t, nil).PushHandler(Handlers{}).ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/", nil))
		require.Equal(t, 405, w.Code)
	})
}

type textless struct{ text string }

func (e *textless) Error() string { return e.text }

func TestTheTwoMoments(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen events
		client := newClient(t, func(cfg *Config) { cfg.OnPush = seen.add })
		var ended time.Duration
		start := time.Now()
		release := make(chan struct{})
		w := post(client.PushHandler(Handlers{Deliver: func(ctx context.Context, _ *Delivery) error {
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
			Outcome: Done, Late: true, OK: true, Duration: got[1].Duration, Event: eventGoods, OpenID: "player-1", OutTradeNo: "order-01",
		}, got[1])
	})
}

func TestShedding(t *testing.T) {
	t.Parallel()
	var seen events
	client := newClient(t, func(cfg *Config) { cfg.MaxDeliveries, cfg.OnPush = 1, seen.add })
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h := client.PushHandler(Handlers{Deliver: func(context.Context, *Delivery) error {
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
	require.NoError(t, client.Ready())
	require.Equal(t, Shed, seen.wait(t, client)[0].Outcome)
}

func TestABodyThatDoesNotArriveIsGivenUp(t *testing.T) {
	t.Parallel()
	var seen events
	client := newClient(t, func(cfg *Config) {
		cfg.OnPush, cfg.DeliverTimeout, cfg.AnswerTimeout = seen.add, 50*time.Millisecond, 60*time.Millisecond
	})
	server := httptest.NewServer(client.PushHandler(Handlers{}))
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
	var seen events
	client := newClient(t, func(cfg *Config) { cfg.OnPush = seen.add })
	entered := make(chan struct{})
	server := httptest.NewServer(client.PushHandler(Handlers{Deliver: func(ctx context.Context, _ *Delivery) error {
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
	var seen events
	client := newClient(t, func(cfg *Config) { cfg.OnPush = seen.add })
	client.PushHandler(Handlers{Deliver: func(context.Context, *Delivery) error { return nil }}).
		ServeHTTP(brokenWriter{httptest.NewRecorder()}, httptest.NewRequest(http.MethodPost, "/?"+plainQuery(), strings.NewReader(goods())))
	require.Equal(t, HungUp, seen.wait(t, client)[0].Outcome)
}

func TestALogHandlerThatBlocksHoldsUpNothing(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	client := newClient(t, func(cfg *Config) {
		cfg.OnPush = func(PushEvent) { <-block; panic("hook") }
	})
	h := client.PushHandler(Handlers{})
	for range 1010 { // more than may wait
		require.Equal(t, 200, post(h, plainQuery(), gamePush(eventGoods, goodsPayload, "12345", true)).Code)
	}
	close(block)
	require.NoError(t, client.Wait(t.Context()))
}

func TestForgeriesFillNoLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	client := newClient(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	h := client.PushHandler(Handlers{})
	for range 100 {
		post(h, "", goods())
	}
	require.NoError(t, client.Wait(t.Context()))
	require.Equal(t, 10, strings.Count(log.String(), "\n"))
}

// Somebody has to find a paid order that cannot be granted.
func TestAMalformedDeliveryNamesItsOrder(t *testing.T) {
	t.Parallel()
	malformed := func(client *Client, seen *events, query, body string) {
		t.Helper()
		h := client.PushHandler(Handlers{Deliver: func(context.Context, *Delivery) error { return nil }, Refund: func(context.Context, *Refund) error { return nil }})
		require.Contains(t, post(h, query, body).Body.String(), "99999")
		e := seen.wait(t, client)[0]
		require.Equal(t, Malformed, e.Outcome)
		require.Equal(t, "order-01", e.OutTradeNo, body)
		require.Equal(t, "player-1", e.OpenID, body)
	}
	const backwards = `{"GoodsInfo":{"Quantity":"two","ProductId":"sword"},"Env":0,"OutTradeNo":"order-01","OpenId":"player-1"}`
	for _, change := range [][2]string{{`"ZoneId":"1"`, `"ZoneId":1`}, {`"OrigPrice":1000`, `"OrigPrice":-1`}, {`"OrigPrice":1000`, `"OrigPrice":1000.0`},
		{`"ProductId":"sword"`, `"ProductId":""`}, {goodsPayload, backwards}} {
		var seen events
		payload := strings.Replace(goodsPayload, change[0], change[1], 1)
		require.NotEqual(t, goodsPayload, payload)
		malformed(newClient(t, func(cfg *Config) { cfg.OnPush = seen.add }), &seen, plainQuery(), gamePush(eventGoods, payload, "12345", false))
	}
	for _, message := range []string{
		`{"Event":"xpay_goods_deliver_notify","GoodsInfo":{"Quantity":"two"},"OpenId":"player-1","OutTradeNo":"order-01","Env":0}`,
		`{"Event":"xpay_refund_notify","RefundFee":"some","OpenId":"player-1","MchOrderId":"order-01"}`,
		`<xml><Event>xpay_goods_deliver_notify</Event><GoodsInfo><Quantity>two</Quantity></GoodsInfo><OpenId>player-1</OpenId><OutTradeNo>order-01</OutTradeNo></xml>`,
	} {
		var seen events
		client := newClient(t, func(cfg *Config) {
			cfg.MiniProgram, cfg.OnPush, cfg.PushKeys[0].EncodingAESKey = true, seen.add, testAESKey
		})
		query, body := sealed(t, "wxba5fad812f8e6fb9", message)
		malformed(client, &seen, query, body)
	}
}

// A request whose body is only promised is answered without it.
func TestABodyThatIsOnlyPromised(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newClient(t, nil).PushHandler(Handlers{}))
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
	var seen events
	client := newClient(t, func(cfg *Config) { cfg.OnPush = seen.add })
	r := httptest.NewRequest(http.MethodPost, "/push%3F"+plainQuery(), strings.NewReader(goods()))
	client.PushHandler(Handlers{}).ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, "/push", seen.wait(t, client)[0].Path)
}

// Pushes that anybody can send wait in no memory without a limit; those that are believed are not dropped.
func TestForgeriesFillNoMemory(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{false, true} {
		var seen events
		block := make(chan struct{})
		client := newClient(t, func(cfg *Config) {
			cfg.MiniProgram, cfg.TrustPlaintext = true, trusted
			cfg.OnPush = func(e PushEvent) { <-block; seen.add(e) }
			cfg.AccessToken = func(context.Context, string) (string, error) { return "", errors.New("not now") }
		})
		h := client.PushHandler(Handlers{Deliver: func(context.Context, *Delivery) error { return errors.New("not now") }})
		const sent = 1500
		for i := range sent {
			post(h, plainQuery(), fmt.Sprintf(`{"Event":"xpay_goods_deliver_notify","OpenId":"o","OutTradeNo":"order-%d","Env":0,"GoodsInfo":{"ProductId":"p","Quantity":1}}`, i))
		}
		close(block)
		if list := seen.wait(t, client); trusted {
			require.Len(t, list, sent)
		} else {
			require.Less(t, len(list), sent)
		}
	}
}

// What is not checked for its length is cut.
func TestAnEventIsSmall(t *testing.T) {
	t.Parallel()
	var seen events
	client := newClient(t, func(cfg *Config) { cfg.MiniProgram, cfg.TrustPlaintext, cfg.OnPush = true, true, seen.add })
	post(client.PushHandler(Handlers{}), plainQuery(), `{"Event":"xpay_complaint_notify","OpenId":"o","MchOrderId":"`+strings.Repeat("x", 100_000)+`"}`)
	require.LessOrEqual(t, len(seen.wait(t, client)[0].OutTradeNo), maxName+len("…"))
}

// TestHostileBodies posts a thousand bodies that are not WeChat's: changed, cut, nested or
// made of noise. None may be delivered, or take long.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	var delivered atomic.Int64
	handlers := Handlers{
		Deliver: func(context.Context, *Delivery) error { delivered.Add(1); return nil },
		Refund:  func(context.Context, *Refund) error { delivered.Add(1); return nil },
		Coins:   func(context.Context, *CoinPayment) error { delivered.Add(1); return nil },
	}
	game := newClient(t, nil).PushHandler(handlers)
	secure := newClient(t, func(cfg *Config) { cfg.PushKeys[0].EncodingAESKey = testAESKey }).PushHandler(handlers)
	mini := newClient(t, func(cfg *Config) { cfg.MiniProgram, cfg.Secret = true, "" }).PushHandler(handlers)
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
	game := newClient(f, func(cfg *Config) {
		cfg.PushKeys = append(cfg.PushKeys, PushKey{Token: "AAAAA", EncodingAESKey: testAESKey})
	})
	mini := newClient(f, func(cfg *Config) { cfg.MiniProgram, cfg.Secret = true, "" })
	f.Fuzz(func(t *testing.T, query, body string) {
		p, err := game.ParsePush(t.Context(), query, []byte(body))
		require.Equal(t, err == nil, p != nil)
		if p != nil && (p.Delivery != nil || p.Coins != nil || p.Refund != nil) {
			// Only the seed's payload is signed under a key that the fuzzer does not have.
			require.NotNil(t, p.Delivery)
			require.Equal(t, "order-01", p.Delivery.OutTradeNo)
			require.True(t, p.Authentic)
		}
		p, _ = mini.ParsePush(t.Context(), query, []byte(body))
		require.False(t, p != nil && (p.Delivery != nil || p.Coins != nil || p.Refund != nil), "in plaintext nothing is delivered without query_order")
	})
}

// Anybody can send a push that does not verify, with a path of a megabyte.
func TestAnUnverifiedEventIsSmall(t *testing.T) {
	t.Parallel()
	var seen events
	client := newClient(t, func(cfg *Config) { cfg.OnPush = seen.add })
	r := httptest.NewRequest("POST", "/"+strings.Repeat("p", 1<<20), nil)
	r.RemoteAddr = strings.Repeat("r", 1<<20) // middleware may have taken it from a header
	client.PushHandler(Handlers{}).ServeHTTP(httptest.NewRecorder(), r)
	got := seen.wait(t, client)
	require.Len(t, got, 1)
	require.LessOrEqual(t, len(got[0].Path), 110)
	require.LessOrEqual(t, len(got[0].Remote), 110)
}
